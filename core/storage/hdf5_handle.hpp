// HDF5 identifiers that close themselves, and HDF5's errors as ours.
#pragma once

#include <hdf5.h>

#include <string>
#include <utility>

#include "distributed/error.hpp"

namespace efface {

/// What HDF5 itself says went wrong: the innermost message of its error stack, or "".
inline std::string hdf5_message() {
  std::string message;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned position, const H5E_error2_t* error, void* text) -> herr_t {
        if (position == 0 && error->desc) *static_cast<std::string*>(text) = error->desc;
        return 0;
      },
      &message);
  H5Eclear2(H5E_DEFAULT);
  return message;
}

/// Throws Error(storage) "WHERE: ACTION (HDF5's message)" for a negative result; otherwise passes it through.
template <typename Result>
Result hdf5_check(Result result, const std::string& where, const char* action) {
  if (result >= 0) return result;
  const std::string message = hdf5_message();
  throw Error(ErrorClass::storage, where + ": " + action + (message.empty() ? "" : " (" + message + ")"));
}

class Hdf5Handle {
 public:
  using Closer = herr_t (*)(hid_t);
  Hdf5Handle() = default;
  Hdf5Handle(hid_t id, Closer closer) : id_(id), closer_(closer) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept
      : id_(std::exchange(other.id_, H5I_INVALID_HID)), closer_(other.closer_) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(closer_, other.closer_);
    return *this;
  }
  ~Hdf5Handle() { close(); }

  operator hid_t() const { return id_; }
  herr_t close() { return id_ < 0 ? 0 : closer_(std::exchange(id_, H5I_INVALID_HID)); }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Closer closer_ = nullptr;
};

}  // namespace efface
