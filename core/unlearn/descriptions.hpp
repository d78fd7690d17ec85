// One description a method, each defined beside the method itself; registry.cpp lists them.
#pragma once

#include "core/unlearn/method.hpp"

namespace efface {

MethodDescription describe_nsru();
MethodDescription describe_kuda();
MethodDescription describe_grad_ascent();
MethodDescription describe_grad_diff();
MethodDescription describe_npo();
MethodDescription describe_sim_npo();
MethodDescription describe_idk_dpo();
MethodDescription describe_rmu();
MethodDescription describe_fine_tune();

}  // namespace efface
