// Datagrams for benchmarks: many flows (a socket each), each datagram answered by an echo server.
//   --echo ADDR                  the server
//   --to ADDR --flows N ...      the load; prints one JSON object
// Without --rate the number of datagrams on their way is bounded (closed loop); with it they leave at
// fixed times, whether answers come or not. An answer that is later than kGrace counts as lost.
#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <vector>

#include "bench/tools/net_util.h"

namespace {

using namespace edgemesh::bench;

constexpr const char* kHelp =
    "udp_load --echo ADDR | --to ADDR [options]\n"
    "  --flows N      sockets (100)\n"
    "  --seconds S    (2)\n"
    "  --rate R       datagrams/s at fixed times; 0: as many as are answered (0)\n"
    "  --window N     datagrams on their way, without --rate (128)\n"
    "  --size N       bytes of each (64)\n"
    "  --pid P        process whose CPU and memory are measured";
constexpr int kBatch = 64;
constexpr int kBurst = 8;  // on one flow at a time, without --rate
constexpr double kGrace = 0.2;
constexpr double kTick = 0.001;

// Buffers of one sendmmsg() or recvmmsg().
struct Batch {
  explicit Batch(size_t size) : bytes(kBatch * size, 'x') {
    for (int i = 0; i < kBatch; ++i) {
      parts[i] = {bytes.data() + static_cast<size_t>(i) * size, size};
      messages[i] = {};
      messages[i].msg_hdr.msg_iov = &parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
  }
  std::vector<char> bytes;
  iovec parts[kBatch]{};
  mmsghdr messages[kBatch]{};
};

int udp_socket(int family) {
  int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  int bytes = 8 << 20;
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  return fd;
}

[[noreturn]] void echo(const Address& at) {
  constexpr size_t kLargest = 2048;
  int fd = udp_socket(at.storage.ss_family);
  if (bind(fd, at.get(), at.len) != 0) die("bind");
  Batch batch(kLargest);
  sockaddr_storage from[kBatch];
  pollfd waiting{fd, POLLIN, 0};
  for (;;) {
    poll(&waiting, 1, -1);
    for (int i = 0; i < kBatch; ++i) {
      batch.messages[i].msg_hdr.msg_name = &from[i];
      batch.messages[i].msg_hdr.msg_namelen = sizeof from[i];
      batch.parts[i].iov_len = kLargest;
    }
    int n = recvmmsg(fd, batch.messages, kBatch, 0, nullptr);
    for (int i = 0; i < n; ++i) batch.parts[i].iov_len = batch.messages[i].msg_len;
    for (int sent = 0; sent < n;) {
      int k = sendmmsg(fd, batch.messages + sent, static_cast<unsigned>(n - sent), 0);
      sent += k > 0 ? k : 1;
    }
  }
}

class Load {
 public:
  Load(const Address& to, int flows, size_t size) : out_(size), in_(size) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < flows; ++i) {
      int fd = udp_socket(to.storage.ss_family);
      if (connect(fd, to.get(), to.len) != 0) die("connect");
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.fd = fd;
      if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
      sockets_.push_back(fd);
    }
  }

  // `n` datagrams on the next flow.
  void send(int n) {
    int fd = sockets_[at_++ % sockets_.size()];
    int left = sendmmsg(fd, out_.messages, static_cast<unsigned>(n), 0);
    sent += static_cast<uint64_t>(n);
    if (left < n) unsent += static_cast<uint64_t>(n - std::max(left, 0));
  }

  // Takes what has come; waits at most `seconds` for the first.
  void collect(double seconds) {
    epoll_event events[256];
    timespec wait{0, static_cast<long>(std::max(seconds, 0.0) * 1e9)};
    int ready = epoll_pwait2(epoll_, events, 256, &wait, nullptr);
    for (int i = 0; i < ready; ++i) {
      int n = recvmmsg(events[i].data.fd, in_.messages, kBatch, 0, nullptr);
      if (n > 0) answered += static_cast<uint64_t>(n);
    }
  }

  void settle() {
    double quiet = now_s();
    uint64_t before = answered;
    while (answered < sent && now_s() - quiet < kGrace) {
      collect(kTick);
      if (answered != before) quiet = now_s();
      before = answered;
    }
  }

  void closed_loop(double until, uint64_t window) {
    double progress = now_s();
    uint64_t given_up = 0;
    while (now_s() < until) {
      uint64_t before = answered;
      while (sent - answered - given_up + kBurst <= window) send(kBurst);
      collect(kTick);
      if (answered != before) progress = now_s();
      if (now_s() - progress > kGrace) {
        given_up = sent - answered;
        progress = now_s();
      }
      if (sent < answered + given_up) given_up = sent - answered;  // they came after all
    }
  }

  void open_loop(double until, double rate) {
    const double start = now_s();
    const uint64_t first = sent;
    for (double now = start; now < until; now = now_s()) {
      auto due = static_cast<uint64_t>((now - start) * rate);
      for (int n = 0; sent - first < due && n < 256; ++n) send(1);
      double next = start + static_cast<double>(sent - first + 1) / rate;
      collect(sent - first < due ? 0 : std::min(next - now_s(), kTick));
    }
  }

  uint64_t sent = 0, answered = 0, unsent = 0;

 private:
  int epoll_;
  std::vector<int> sockets_;
  size_t at_ = 0;
  Batch out_, in_;
};

}  // namespace

int main(int argc, char** argv) {
  auto args = parse_args(argc, argv);
  if (args.contains("echo")) echo(Address::parse(args["echo"]));
  if (args.contains("help") || !args.contains("to")) {
    std::puts(kHelp);
    return args.contains("help") ? 0 : 2;
  }
  auto number = [&](const char* name, double otherwise) {
    return args.contains(name) ? std::atof(args[name].c_str()) : otherwise;
  };
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const int flows = static_cast<int>(number("flows", 100));
  const int pid = static_cast<int>(number("pid", 0));
  const double rate = number("rate", 0);
  const uint64_t memory_before = pid > 0 ? private_bytes(pid) : 0;
  Load load(Address::parse(args["to"]), flows, static_cast<size_t>(number("size", 64)));
  // Every flow has carried a datagram before the time counts.
  for (int i = 0; i < flows; ++i) {
    load.send(1);
    if (i % 32 == 31) load.settle();
  }
  load.settle();
  const uint64_t opened = load.answered;
  const uint64_t memory = pid > 0 ? private_bytes(pid) - memory_before : 0;
  load.sent = load.answered = load.unsent = 0;
  const uint64_t cpu_before = pid > 0 ? cpu_ns(pid) : 0;
  const double start = now_s(), until = start + number("seconds", 2);
  if (rate > 0)
    load.open_loop(until, rate);
  else
    load.closed_loop(until, static_cast<uint64_t>(number("window", 128)));
  const double took = now_s() - start;
  load.settle();
  const double done = static_cast<double>(std::max<uint64_t>(load.answered, 1));
  std::printf(
      "{\"sent\": %llu, \"answered\": %llu, \"lost\": %llu, \"unsent\": %llu, \"per_second\": %.1f, "
      "\"cpu_us\": %.4f, \"flows\": %llu, \"bytes_per_flow\": %.1f}\n",
      static_cast<unsigned long long>(load.sent), static_cast<unsigned long long>(load.answered),
      static_cast<unsigned long long>(load.sent - std::min(load.answered, load.sent)),
      static_cast<unsigned long long>(load.unsent), static_cast<double>(load.answered) / took,
      pid > 0 ? static_cast<double>(cpu_ns(pid) - cpu_before) / done / 1e3 : 0,
      static_cast<unsigned long long>(opened), static_cast<double>(memory) / flows);
  return 0;
}
