#include "distributed/activity.hpp"

#include <atomic>
#include <mutex>

namespace efface {
namespace {

constexpr double kDefaultSilence = 1800;

struct Record {
  std::mutex names;  // stage and unit
  std::string stage, unit;
  std::atomic<int64_t> done = 0;
  std::atomic<const char*> last = nullptr, current = nullptr;
  std::atomic<uint64_t> signs = 0;
  std::atomic<double> silence = kDefaultSilence;
};

Record& record() {
  static Record one;
  return one;
}

}  // namespace

std::string Activity::text() const {
  std::string text = stage;
  if (!stage.empty() && done > 0) text += ": " + std::to_string(done) + " " + unit + " done";
  if (in_collective) text += (text.empty() ? "in " : ", in ") + std::string(collective);
  return text;
}

Activity current_activity() {
  Record& now = record();
  Activity activity;
  {
    const std::scoped_lock lock(now.names);
    activity.stage = now.stage;
    activity.unit = now.unit;
  }
  activity.done = now.done;
  const char* current = now.current;
  activity.in_collective = current != nullptr;
  activity.collective = current != nullptr ? current : now.last.load();
  activity.signs = now.signs;
  return activity;
}

void note_stage(const std::string& stage, const std::string& unit) {
  Record& now = record();
  {
    const std::scoped_lock lock(now.names);
    now.stage = stage;
    now.unit = unit;
  }
  now.done = 0;
  ++now.signs;
}

void note_done(int64_t units) {
  record().done = units;
  ++record().signs;
}

void allow_silence(double seconds) { record().silence = seconds; }
double allowed_silence() { return record().silence; }

InCollective::InCollective(const char* name) : outer_(record().current) {
  Record& now = record();
  now.current.store(name, std::memory_order_relaxed);
  now.last.store(name, std::memory_order_relaxed);
  now.signs.fetch_add(1, std::memory_order_relaxed);
}

InCollective::~InCollective() {
  Record& now = record();
  now.current.store(outer_, std::memory_order_relaxed);
  now.signs.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace efface
