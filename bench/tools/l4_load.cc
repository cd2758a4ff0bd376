// Load generator of the L4 tables: one thread, epoll. Prints one JSON object.
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "bench/tools/net_util.h"

namespace edgemesh::bench {
namespace {

constexpr const char* kHelp =
    "l4_load --to ADDR:PORT --work WORK [options]     (server: l4_backend)\n"
    "  --work messages   request and reply in turn on kept connections      [messages/s]\n"
    "         short      connect, one request, the server closes            [connections/s]\n"
    "         up, down   bulk to or from the server                         [Gbit/s]\n"
    "         idle       opens connections, one message each, holds them    [user "
    "bytes/connection]\n"
    "         connect    blocking connect, one after the other              [us, p50]\n"
    "  --connections N   at a time (64; up, down: 1; idle: 9000)\n"
    "  --seconds S       measured (2), after a warm-up of a quarter of it\n"
    "  --request BYTES   of a message (90)        --reply BYTES (220)\n"
    "  --pid PID         the proxy: its CPU time per unit of work, its memory for idle\n"
    "Output: "
    "{\"work\",\"value\",\"unit\",\"errors\",\"cpu_ns_per_op\"|\"cpu_ns_per_byte\",\"p50_us\","
    "\"p99_us\"}";

struct Options {
  Address to;
  std::string work;
  int connections = 64;
  double seconds = 2;
  uint32_t request = 90;
  uint32_t reply = 220;
  int pid = 0;
};

struct Connection {
  int fd = -1;
  uint32_t have = 0;
  bool sent = false;
  double started = 0;
};

class Load {
 public:
  explicit Load(Options options) : options_(std::move(options)) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    buffer_.resize(1 << 20);
    hello_.request = options_.request;
    hello_.reply = options_.reply;
    hello_.work = options_.work == "short"  ? 's'
                  : options_.work == "up"   ? 'u'
                  : options_.work == "down" ? 'd'
                                            : 'm';
    request_.assign(std::max<size_t>(options_.request, sizeof hello_), 'x');
    std::memcpy(request_.data(), &hello_, sizeof hello_);
    memory_ = memfd_create("bulk", MFD_CLOEXEC);
    if (memory_ < 0 || ftruncate(memory_, 1 << 20) != 0) die("memfd");
  }

  int run() {
    if (options_.work == "idle") return idle();
    if (options_.work == "connect") return connects();
    for (int i = 0; i < options_.connections; ++i) open_connection(new Connection);
    loop_until(now_s() + options_.seconds / 4);
    done_ = 0;
    errors_ = 0;
    latencies_.clear();
    uint64_t cpu = options_.pid != 0 ? cpu_ns(options_.pid) : 0;
    double start = now_s();
    loop_until(start + options_.seconds);
    double took = now_s() - start;
    cpu = options_.pid != 0 ? cpu_ns(options_.pid) - cpu : 0;
    bool bulk = hello_.work == 'u' || hello_.work == 'd';
    double value = static_cast<double>(done_) / took;
    print(bulk ? value * 8 / 1e9 : value,
          bulk                 ? "Gbit/s"
          : hello_.work == 's' ? "connections/s"
                               : "messages/s",
          bulk ? "cpu_ns_per_byte" : "cpu_ns_per_op",
          done_ != 0 ? static_cast<double>(cpu) / static_cast<double>(done_) : 0);
    return done_ > 0 ? 0 : 1;
  }

 private:
  void print(double value, const char* unit, const char* cost_name, double cost) {
    std::sort(latencies_.begin(), latencies_.end());
    auto percentile = [this](double p) {
      return latencies_.empty()
                 ? 0.0
                 : latencies_[static_cast<size_t>(p * static_cast<double>(latencies_.size() - 1))] *
                       1e6;
    };
    std::printf(
        "{\"work\":\"%s\",\"value\":%.3f,\"unit\":\"%s\",\"errors\":%llu,\"%s\":%.4f,"
        "\"p50_us\":%.1f,\"p99_us\":%.1f}\n",
        options_.work.c_str(), value, unit, static_cast<unsigned long long>(errors_), cost_name,
        cost, percentile(0.5), percentile(0.99));
  }

  void open_connection(Connection* c) {
    c->fd = socket(options_.to.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    set_no_delay(c->fd);
    c->have = 0;
    c->sent = false;
    c->started = now_s();
    if (connect(c->fd, options_.to.get(), options_.to.len) != 0 && errno != EINPROGRESS) {
      ++errors_;
      close(c->fd);
      // A port shortage passes; do not spin.
      usleep(1000);
      return open_connection(c);
    }
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.ptr = c;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, c->fd, &event);
  }

  void again(Connection* c, bool failed) {
    if (failed) ++errors_;
    close(c->fd);
    open_connection(c);
  }

  void loop_until(double end) {
    while (now_s() < end) {
      epoll_event events[256];
      int n = epoll_wait(epoll_, events, 256, 10);
      for (int i = 0; i < n; ++i)
        serve(static_cast<Connection*>(events[i].data.ptr), events[i].events);
    }
  }

  void send_request(Connection* c) {
    if (send(c->fd, request_.data(), request_.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request_.size())) {
      if (errno != EAGAIN || c->sent) again(c, true);
      return;
    }
    c->sent = true;
    c->started = hello_.work == 's' ? c->started : now_s();
  }

  void serve(Connection* c, uint32_t events) {
    if (!c->sent && (events & (EPOLLERR | EPOLLHUP)) != 0) return again(c, true);
    if (!c->sent && (events & EPOLLOUT) != 0) send_request(c);
    if (!c->sent) return;
    if (hello_.work == 'u') return send_bulk(c);
    if (hello_.work == 'd') return receive_bulk(c);
    if ((events & EPOLLIN) != 0 || (events & EPOLLHUP) != 0) receive(c);
  }

  void send_bulk(Connection* c) {
    for (int i = 0; i < 8; ++i) {
      off_t offset = 0;
      ssize_t n = sendfile(c->fd, memory_, &offset, 1 << 20);
      if (n < 0) {
        if (errno != EAGAIN) again(c, true);
        return;
      }
      done_ += static_cast<uint64_t>(n);
    }
    // Edge-triggered: ask for another event.
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.ptr = c;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, c->fd, &event);
  }

  void receive_bulk(Connection* c) {
    for (int i = 0; i < 64; ++i) {
      ssize_t n = recv(c->fd, buffer_.data(), 16 << 20, MSG_TRUNC | MSG_DONTWAIT);
      if (n == 0 || (n < 0 && errno != EAGAIN)) return again(c, true);
      if (n < 0) return;
      done_ += static_cast<uint64_t>(n);
    }
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.ptr = c;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, c->fd, &event);
  }

  void finished(const Connection* c) {
    ++done_;
    if (latencies_.size() < 2'000'000)
      latencies_.push_back(static_cast<float>(now_s() - c->started));
  }

  void receive(Connection* c) {
    for (;;) {
      ssize_t n = recv(c->fd, buffer_.data(), buffer_.size(), 0);
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) {
        bool whole = hello_.work == 's' && n == 0 && c->have == options_.reply;
        if (whole) finished(c);
        return again(c, !whole);
      }
      c->have += static_cast<uint32_t>(n);
      if (hello_.work == 's') continue;
      if (c->have >= options_.reply) {
        finished(c);
        c->have = 0;
        send_request(c);
        return;  // the reply cannot be there yet
      }
    }
  }

  int idle() {
    uint64_t before = options_.pid != 0 ? private_bytes(options_.pid) : 0;
    std::vector<std::unique_ptr<Connection>> all;
    int held = 0;
    for (int i = 0; i < options_.connections; ++i) {
      int fd = socket(options_.to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
      timeval limit{5, 0};
      if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      uint32_t have = 0;
      if (fd < 0 || connect(fd, options_.to.get(), options_.to.len) != 0 ||
          send(fd, request_.data(), request_.size(), MSG_NOSIGNAL) < 0) {
        ++errors_;
        if (errors_ > 100) break;
        continue;
      }
      while (have < options_.reply) {
        ssize_t n = recv(fd, buffer_.data(), buffer_.size(), 0);
        if (n <= 0) break;
        have += static_cast<uint32_t>(n);
      }
      if (have < options_.reply) ++errors_;
      ++held;
    }
    usleep(200'000);
    uint64_t after = options_.pid != 0 ? private_bytes(options_.pid) : 0;
    double each = held > 0 ? (static_cast<double>(after) - static_cast<double>(before)) / held : 0;
    std::printf(
        "{\"work\":\"idle\",\"value\":%.1f,\"unit\":\"user bytes/connection\",\"errors\":%llu,"
        "\"connections\":%d,\"before_bytes\":%llu,\"after_bytes\":%llu}\n",
        each, static_cast<unsigned long long>(errors_), held,
        static_cast<unsigned long long>(before), static_cast<unsigned long long>(after));
    std::fflush(stdout);
    if (options_.seconds > 0) usleep(static_cast<useconds_t>(options_.seconds * 1e6));
    return errors_ == 0 ? 0 : 1;
  }

  int connects() {
    double end = now_s() + options_.seconds;
    while (now_s() < end) {
      int fd = socket(options_.to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
      double start = now_s();
      bool ok = fd >= 0 && connect(fd, options_.to.get(), options_.to.len) == 0;
      if (ok)
        latencies_.push_back(static_cast<float>(now_s() - start));
      else
        ++errors_;
      linger hard{1, 0};
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
      close(fd);
    }
    std::sort(latencies_.begin(), latencies_.end());
    print(latencies_.empty() ? 0 : latencies_[latencies_.size() / 2] * 1e6, "us", "cpu_ns_per_op",
          0);
    return latencies_.empty() ? 1 : 0;
  }

  Options options_;
  Hello hello_;
  int epoll_ = -1;
  int memory_ = -1;
  std::vector<char> buffer_;
  std::string request_;
  uint64_t done_ = 0;
  uint64_t errors_ = 0;
  std::vector<float> latencies_;
};

}  // namespace
}  // namespace edgemesh::bench

int main(int argc, char** argv) {
  using namespace edgemesh::bench;
  auto args = parse_args(argc, argv);
  if (args.contains("help") || !args.contains("to") || !args.contains("work")) {
    std::puts(kHelp);
    return args.contains("help") ? 0 : 2;
  }
  signal(SIGPIPE, SIG_IGN);
  Options options;
  options.to = Address::parse(args["to"]);
  options.work = args["work"];
  if (options.work == "up" || options.work == "down") options.connections = 1;
  if (options.work == "idle") options.connections = 9000;
  if (args.contains("connections")) options.connections = std::atoi(args["connections"].c_str());
  if (args.contains("seconds")) options.seconds = std::atof(args["seconds"].c_str());
  if (args.contains("request"))
    options.request = static_cast<uint32_t>(std::atoi(args["request"].c_str()));
  if (args.contains("reply"))
    options.reply = static_cast<uint32_t>(std::atoi(args["reply"].c_str()));
  if (args.contains("pid")) options.pid = std::atoi(args["pid"].c_str());
  if (options.request < sizeof(Hello)) options.request = sizeof(Hello);
  return Load(options).run();
}
