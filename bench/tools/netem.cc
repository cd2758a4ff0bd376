// A slow, long or lossy Ethernet cable between two network namespaces, in user space, for kernels
// without the netem queueing discipline. Makes a TAP device in each namespace and carries frames
// between them. The cable ends with the program.
//
//   netem --a NETNS-FILE:INTERFACE --b NETNS-FILE:INTERFACE
//         [--delay MS] [--rate MBIT] [--loss PERCENT] [--queue BYTES] [--seed N]
//
// delay is one way; rate, loss and queue count in each direction. A frame waits in a drop-tail queue
// for its turn at `rate`, and arrives `delay` after it left. The lines "delay MS", "rate MBIT" (0: no
// limit), "loss PERCENT" on standard input change the cable while it works; "stats" prints counters.
// Frames are single ones (a TAP without offloads), so that loss hits packets as on a real wire.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Nanos = std::chrono::nanoseconds;

constexpr size_t kFrameBytes = 2048;
constexpr size_t kSlots = 16384;  // frames in flight and queued, a power of two
constexpr int kBurst = 64;        // frames read before it is checked what has to leave

struct Settings {
  double delay_ms = 0;
  double rate_mbit = 0;  // 0: no limit
  double loss_percent = 0;
  size_t queue_bytes = 2'000'000;
};

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "netem: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

// Opens a TAP device inside a namespace; the process ends up in that namespace.
int open_tap(const std::string& where) {
  const size_t colon = where.rfind(':');
  if (colon == std::string::npos) {
    std::fprintf(stderr, "netem: '%s' is not NETNS-FILE:INTERFACE\n", where.c_str());
    std::exit(2);
  }
  const std::string ns = where.substr(0, colon);
  const std::string name = where.substr(colon + 1);
  const int ns_fd = ::open(ns.c_str(), O_RDONLY | O_CLOEXEC);
  if (ns_fd < 0 || ::setns(ns_fd, CLONE_NEWNET) != 0) die("enter " + ns);
  ::close(ns_fd);
  const int fd = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) die("open /dev/net/tun");
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  std::snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name.c_str());
  if (::ioctl(fd, TUNSETIFF, &request) != 0) die("make the TAP device " + name);
  const int sock = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (sock < 0 || ::ioctl(sock, SIOCGIFFLAGS, &request) != 0) die("look at " + name);
  request.ifr_flags |= IFF_UP;
  if (::ioctl(sock, SIOCSIFFLAGS, &request) != 0) die("bring up " + name);
  ::close(sock);
  return fd;
}

// Frames on their way in one direction.
class Lane {
 public:
  Lane(int from, int to, const Settings& settings, uint32_t seed)
      : from_(from), to_(to), settings_(settings), random_(seed), slots_(kSlots) {}

  // Reads what is there; false when more may be waiting.
  bool receive(Clock::time_point now) {
    for (int i = 0; i < kBurst; ++i) {
      if (tail_ - head_ == kSlots) return drop_one();
      Slot& slot = slots_[tail_ % kSlots];
      const ssize_t n = ::read(from_, slot.bytes, kFrameBytes);
      if (n <= 0) return true;
      ++received_;
      if (lost() || queue_full(now, static_cast<size_t>(n))) {
        ++dropped_;
        continue;
      }
      slot.size = static_cast<uint32_t>(n);
      leaves_ = std::max(leaves_, now) + transmission(static_cast<size_t>(n));
      slot.due = leaves_ + Nanos(static_cast<int64_t>(settings_.delay_ms * 1e6));
      ++tail_;
    }
    return false;
  }

  void send(Clock::time_point now) {
    while (head_ != tail_) {
      const Slot& slot = slots_[head_ % kSlots];
      if (slot.due > now) return;
      // A TAP whose queue is full drops the frame, as a switch would.
      if (::write(to_, slot.bytes, slot.size) != static_cast<ssize_t>(slot.size)) ++dropped_;
      ++head_;
    }
  }

  bool idle() const { return head_ == tail_; }
  Clock::time_point next() const { return slots_[head_ % kSlots].due; }
  int fd() const { return from_; }

  void print(const char* name) const {
    std::printf("%s received %llu dropped %llu\n", name, static_cast<unsigned long long>(received_),
                static_cast<unsigned long long>(dropped_));
  }

 private:
  struct Slot {
    Clock::time_point due;
    uint32_t size = 0;
    unsigned char bytes[kFrameBytes];
  };

  bool drop_one() {
    unsigned char scratch[kFrameBytes];
    if (::read(from_, scratch, sizeof scratch) <= 0) return true;
    ++dropped_;
    return false;
  }

  bool lost() {
    return settings_.loss_percent > 0 &&
           std::uniform_real_distribution<double>(0, 100)(random_) < settings_.loss_percent;
  }

  Nanos transmission(size_t bytes) const {
    if (settings_.rate_mbit <= 0) return Nanos(0);
    return Nanos(static_cast<int64_t>(static_cast<double>(bytes) * 8000.0 / settings_.rate_mbit));
  }

  bool queue_full(Clock::time_point now, size_t bytes) const {
    if (settings_.rate_mbit <= 0 || leaves_ <= now) return false;
    return leaves_ - now > transmission(settings_.queue_bytes) + transmission(bytes);
  }

  int from_, to_;
  const Settings& settings_;
  std::minstd_rand random_;
  std::vector<Slot> slots_;
  uint64_t head_ = 0, tail_ = 0;  // slot numbers; tail_ is the next to fill
  Clock::time_point leaves_{};    // when the last frame has left the queue
  uint64_t received_ = 0, dropped_ = 0;
};

void command(std::string_view line, Settings& settings, const Lane& ab, const Lane& ba) {
  const size_t space = line.find(' ');
  const std::string_view word = line.substr(0, space);
  const double value =
      space == std::string_view::npos ? 0 : std::atof(std::string(line.substr(space + 1)).c_str());
  if (word == "delay") settings.delay_ms = value;
  if (word == "rate") settings.rate_mbit = value;
  if (word == "loss") settings.loss_percent = value;
  if (word == "stats") {
    ab.print("a>b");
    ba.print("b>a");
    std::fflush(stdout);
  }
}

// False at the end of the input.
bool read_commands(std::string& pending, Settings& settings, const Lane& ab, const Lane& ba) {
  char buffer[256];
  const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
  if (n <= 0) return false;
  pending.append(buffer, static_cast<size_t>(n));
  for (size_t end; (end = pending.find('\n')) != std::string::npos; pending.erase(0, end + 1)) {
    command(std::string_view(pending).substr(0, end), settings, ab, ba);
  }
  return true;
}

void carry(Settings& settings, Lane& ab, Lane& ba) {
  bool commands = true;
  std::string pending;
  for (;;) {
    const auto now = Clock::now();
    ab.send(now);
    ba.send(now);
    timespec wait{3600, 0};
    for (const Lane* lane : {&ab, &ba}) {
      if (lane->idle()) continue;
      const int64_t ns = std::max<int64_t>(0, std::chrono::duration_cast<Nanos>(lane->next() - now).count());
      const timespec until{ns / 1'000'000'000, ns % 1'000'000'000};
      if (until.tv_sec < wait.tv_sec || (until.tv_sec == wait.tv_sec && until.tv_nsec < wait.tv_nsec)) {
        wait = until;
      }
    }
    pollfd fds[] = {{ab.fd(), POLLIN, 0}, {ba.fd(), POLLIN, 0}, {commands ? STDIN_FILENO : -1, POLLIN, 0}};
    if (::ppoll(fds, 3, &wait, nullptr) < 0 && errno != EINTR) die("poll");
    const auto after = Clock::now();
    if (fds[0].revents != 0) ab.receive(after);
    if (fds[1].revents != 0) ba.receive(after);
    if (fds[2].revents != 0) commands = read_commands(pending, settings, ab, ba);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  std::string a, b;
  uint32_t seed = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string value = argv[i + 1];
    if (name == "--a") a = value;
    if (name == "--b") b = value;
    if (name == "--delay") settings.delay_ms = std::atof(value.c_str());
    if (name == "--rate") settings.rate_mbit = std::atof(value.c_str());
    if (name == "--loss") settings.loss_percent = std::atof(value.c_str());
    if (name == "--queue") settings.queue_bytes = std::strtoul(value.c_str(), nullptr, 10);
    if (name == "--seed") seed = static_cast<uint32_t>(std::strtoul(value.c_str(), nullptr, 10));
  }
  if (a.empty() || b.empty()) {
    std::fprintf(stderr, "usage: netem --a NETNS:IF --b NETNS:IF [--delay MS] [--rate MBIT] [--loss PCT]\n");
    return 2;
  }
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  const int fd_a = open_tap(a);
  const int fd_b = open_tap(b);
  Lane ab(fd_a, fd_b, settings, seed);
  Lane ba(fd_b, fd_a, settings, seed + 1);
  std::puts("ready");
  std::fflush(stdout);
  carry(settings, ab, ba);
}
