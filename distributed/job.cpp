#include "distributed/job.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <sstream>
#include <thread>
#include <vector>

#include "distributed/activity.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kTick = milliseconds(200);
// A process that was stopped and goes on has not waited all that time.
constexpr auto kMostOfOneTick = milliseconds(1000);
constexpr auto kAfterRootNode = milliseconds(1000), kAfterRoot = milliseconds(500);
// A rank at work that has been silent too long leaves the word to those that wait for it: they name the
// collective.
constexpr double kWaitersFirst = 3;
constexpr auto kAbortPatience = std::chrono::seconds(5);

std::string host_name() {
  char host[256] = "";
  ::gethostname(host, sizeof(host) - 1);
  return host;
}

/// One number in memory that the ranks of a node share.
class NodeFlag {
 public:
  /// Collective over the node's ranks.
  explicit NodeFlag(const Communicator& node) {
    std::string name;
    int descriptor = -1;
    if (node.rank() == 0) {
      name = "/dev/shm/efface-XXXXXX";
      descriptor = ::mkstemp(name.data());
      if (descriptor < 0 || ::ftruncate(descriptor, sizeof(std::atomic<int>)) != 0) name.clear();
    }
    name = node.broadcast(name, 0);
    if (node.rank() != 0 && !name.empty()) descriptor = ::open(name.c_str(), O_RDWR | O_CLOEXEC);
    if (descriptor >= 0) {
      void* memory =
          ::mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
      if (memory != MAP_FAILED) flag_ = static_cast<std::atomic<int>*>(memory);
      ::close(descriptor);
    }
    node.barrier();
    if (node.rank() == 0 && !name.empty()) ::unlink(name.c_str());
  }
  ~NodeFlag() {
    if (flag_ != &own_) ::munmap(flag_, sizeof(std::atomic<int>));
  }
  NodeFlag(const NodeFlag&) = delete;
  NodeFlag& operator=(const NodeFlag&) = delete;

  /// True for the first caller of all.
  bool claim() { return flag_->exchange(1) == 0; }

 private:
  static_assert(std::atomic<int>::is_always_lock_free);
  std::atomic<int> own_ = 0;  // where nothing can be shared: every rank speaks
  std::atomic<int>* flag_ = &own_;
};

/// The other ranks of this node, each as a descriptor that becomes readable when its process ends.
struct Peer {
  int rank;
  int64_t pid;
  int descriptor;
};

std::vector<Peer> peers_of(const Communicator& world, const Communicator& node) {
  const auto all = node.all_gather(at::tensor({int64_t{world.rank()}, int64_t{::getpid()}}).view({1, 2}));
  std::vector<Peer> peers;
  for (int r = 0; r < node.size(); ++r) {
    const auto pid = all[r][1].item<int64_t>();
    if (r == node.rank()) continue;
    // Not in every kernel: where it is not, a lost rank is noticed by mpirun, or by the timeout.
    const auto descriptor = static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
    if (descriptor >= 0) peers.push_back({static_cast<int>(all[r][0].item<int64_t>()), pid, descriptor});
  }
  return peers;
}

}  // namespace

class Job::State {
 public:
  explicit State(const Communicator& world)
      : world_(world),
        on_root_node_(place_on_node(world).node == 0),
        node_(world.split(place_on_node(world).node, world.rank())),
        spoken_(node_),
        peers_(peers_of(world, node_)),
        wake_(::eventfd(0, EFD_CLOEXEC)),
        watch_([this] { watch(); }) {}

  ~State() {
    const uint64_t one = 1;
    if (::write(wake_, &one, sizeof(one)) != sizeof(one)) std::terminate();
    watch_.join();
    for (const Peer& peer : peers_) ::close(peer.descriptor);
    ::close(wake_);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  const Communicator& world() const { return world_; }

  [[noreturn]] void end(const std::string& what, int code) {
    if (!on_root_node_) std::this_thread::sleep_for(kAfterRootNode);
    // Whoever did not come first waits to be ended by that one, and ends itself where that does not happen.
    if (spoken_.claim()) {
      std::ostringstream line;
      line << "efface: error: [rank " << world_.rank() << " of " << world_.size() << " on " << host_name();
      const std::string doing = current_activity().text();
      if (!doing.empty()) line << ", " << doing;
      line << "] " << what << "\n";
      std::cerr << line.str() << std::flush;  // in one write: mpirun's own words may come in between
    } else {
      std::this_thread::sleep_for(kAbortPatience);
    }
    std::thread([code] {
      std::this_thread::sleep_for(kAbortPatience);
      std::_Exit(code);
    }).detach();
    MpiSession::abort(code);
  }

 private:
  void watch() {
    std::vector<pollfd> descriptors = {{wake_, POLLIN, 0}};
    for (const Peer& peer : peers_) descriptors.push_back({peer.descriptor, POLLIN, 0});
    Activity last = current_activity();
    auto before = steady_clock::now();
    steady_clock::duration quiet{};
    for (;;) {
      ::poll(descriptors.data(), descriptors.size(), kTick.count());
      if (descriptors[0].revents != 0) return;
      for (size_t i = 1; i < descriptors.size(); ++i)
        if (descriptors[i].revents != 0) lost(peers_[i - 1]);
      const auto now = steady_clock::now();
      const Activity activity = current_activity();
      quiet = activity.signs == last.signs
                  ? quiet + std::min<steady_clock::duration>(now - before, kMostOfOneTick)
                  : steady_clock::duration{};
      last = activity;
      before = now;
      const double allowed = allowed_silence(), grace = activity.in_collective ? 0 : kWaitersFirst;
      if (allowed > 0 && std::chrono::duration<double>(quiet).count() > allowed + grace)
        stalled(activity, allowed);
    }
  }

  [[noreturn]] void lost(const Peer& peer) {
    end("rank " + std::to_string(peer.rank) + " (pid " + std::to_string(peer.pid) +
            ") is gone — it may have been killed for memory; the same command goes on from the last "
            "checkpoint",
        static_cast<int>(ErrorClass::communication));
  }

  [[noreturn]] void stalled(const Activity& activity, double allowed) {
    std::ostringstream what;
    what << "no progress for " << allowed << " s";
    if (activity.collective != nullptr && !activity.in_collective) what << " after " << activity.collective;
    what << " — another rank hangs or is gone; parallel.timeout sets how long to wait";
    end(what.str(), static_cast<int>(ErrorClass::communication));
  }

  Communicator world_;
  bool on_root_node_;
  Communicator node_;
  NodeFlag spoken_;
  std::vector<Peer> peers_;
  int wake_;
  std::thread watch_;
};

Job::Job(const Communicator& world) {
  if (world.size() > 1) state_ = std::make_unique<State>(world);
}

Job::~Job() {
  if (state_ && std::uncaught_exceptions() == 0) state_->world().barrier();
}

int Job::fail(const std::string& what, int code) const {
  std::cout.flush();
  if (!state_) {
    std::cerr << "efface: error: " + what + "\n";
    return code;
  }
  if (state_->world().rank() != 0) std::this_thread::sleep_for(kAfterRoot);
  state_->end(what, code);
}

}  // namespace efface
