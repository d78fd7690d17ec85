#include "core/storage/run_lock.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "distributed/error.hpp"

namespace efface {
namespace {

struct Owner {
  std::string host;
  int64_t pid = 0;
  std::string
      started;  // in clock ticks since boot, as /proc has it: tells a process from a later one of its pid

  bool alive() const {
    const bool exists = ::kill(static_cast<pid_t>(pid), 0) == 0 || errno == EPERM;
    return exists && started == start_of(pid);
  }

  /// Empty for a process that has ended, also where nobody has collected its exit status yet.
  static std::string start_of(int64_t pid) {
    std::ifstream stream("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    std::getline(stream, line);
    // The second field, the program's name, may hold spaces; after it come the state and, 19 fields on, the
    // start.
    const size_t name_end = line.rfind(')');
    if (name_end == std::string::npos) return "";
    std::istringstream fields(line.substr(name_end + 1));
    std::string state, start;
    fields >> state;
    for (int field = 0; field < 19; ++field) fields >> start;
    return state == "Z" || state == "X" ? "" : start;
  }

  static Owner self() {
    char host[256] = "";
    ::gethostname(host, sizeof(host) - 1);
    return {host, ::getpid(), start_of(::getpid())};
  }
};

Owner parse(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return {};
  try {
    return {json.value("host", ""), json.value("pid", int64_t{0}), json.value("started", "")};
  } catch (const nlohmann::json::exception&) {
    return {};
  }
}

std::string content(int descriptor) {
  char buffer[1024];
  const ssize_t bytes = ::pread(descriptor, buffer, sizeof(buffer), 0);
  return std::string(buffer, bytes > 0 ? static_cast<size_t>(bytes) : 0);
}

[[noreturn]] void refuse_held(const std::filesystem::path& file, const Owner& owner) {
  const std::string who = owner.host.empty()
                              ? "another run"
                              : "the run with pid " + std::to_string(owner.pid) + " on " + owner.host;
  throw Error(ErrorClass::storage, file.parent_path().string() + ": is in use by " + who,
              "wait for it, choose another output folder, or, if it is gone, remove " + file.string());
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& folder) : file_(folder / "run.lock") {
  for (;;) {
    descriptor_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0)
      throw Error(ErrorClass::storage, file_.string() + ": cannot be opened: " + std::strerror(errno));
    const bool locked = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
    const bool held = !locked && errno == EWOULDBLOCK;  // other errors: a file system without flock()
    struct stat mine {
    }, current{};
    // Its owner removes the file before it unlocks it: what was locked may not be the file of that name any
    // more.
    const bool same = ::fstat(descriptor_, &mine) == 0 && ::stat(file_.c_str(), &current) == 0 &&
                      mine.st_ino == current.st_ino && mine.st_dev == current.st_dev;
    const Owner owner = parse(content(descriptor_)), self = Owner::self();
    const bool elsewhere = !owner.host.empty() && owner.host != self.host;
    const bool here = !owner.host.empty() && owner.host == self.host && owner.alive();
    if (same && !held && !elsewhere && !here) {
      const std::string text =
          nlohmann::json{{"host", self.host}, {"pid", self.pid}, {"started", self.started}}.dump() + "\n";
      if (::ftruncate(descriptor_, 0) == 0 &&
          ::pwrite(descriptor_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()))
        return;
      const int error = errno;
      ::close(descriptor_);
      throw Error(ErrorClass::storage, file_.string() + ": cannot be written: " + std::strerror(error));
    }
    ::close(descriptor_);
    if (same) refuse_held(file_, owner);
  }
}

std::string lock_owner(const std::filesystem::path& folder) {
  const int descriptor = ::open((folder / "run.lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return "";
  const Owner owner = parse(content(descriptor));
  ::close(descriptor);
  const bool gone = owner.host.empty() || (owner.host == Owner::self().host && !owner.alive());
  return gone ? "" : "pid " + std::to_string(owner.pid) + " on " + owner.host;
}

RunLock::~RunLock() {
  ::unlink(file_.c_str());
  ::close(descriptor_);
}

}  // namespace efface
