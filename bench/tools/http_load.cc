// Open-loop HTTP/1 load at a fixed rate, and holder of idle HTTP/1 and HTTP/2 connections. One
// thread. Prints one JSON object.
//
// The rate's requests have times on a fixed schedule. When no connection is free, a request waits
// in the generator; its latency counts from its scheduled time, so a server that stalls is charged
// for every request that should have been sent meanwhile (coordinated omission corrected).
#include <poll.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "bench/tools/net_util.h"

namespace edgemesh::bench {
namespace {

constexpr const char* kHelp =
    "http_load --to ADDR:PORT [options]\n"
    "  --rate N          requests/s of an open loop (10000)\n"
    "  --connections N   kept connections (64)\n"
    "  --seconds S       measured (2), after a warm-up of a quarter of it\n"
    "  --idle            instead: one request on each connection, then hold all\n"
    "  --h2              with --idle: HTTP/2, prior knowledge\n"
    "  --pid PID         with --idle: the process whose memory is read\n"
    "Output: {\"rate\",\"value\",\"unit\",\"errors\",\"unsent\",\"p50_us\",\"p99_us\",\"p999_us\"}";

struct Connection {
  int fd = -1;
  double scheduled = -1;  // of the request that is under way; negative: free
  std::string head;
  size_t body_left = 0;
  bool in_body = false;
};

class OpenLoop {
 public:
  OpenLoop(Address to, const std::string& name, double rate, int connections)
      : to_(to), rate_(rate), connections_(static_cast<size_t>(connections)) {
    request_ = "GET / HTTP/1.1\r\nHost: " + name + "\r\n\r\n";
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    for (auto& c : connections_) open(c);
  }

  void run(double seconds) {
    begin_ = next_ = now_s();
    measured_from_ = begin_ + seconds / 4;
    end_ = measured_from_ + seconds;
    for (double now = begin_; now < end_; now = now_s()) {
      for (; next_ <= now; next_ = begin_ + static_cast<double>(++count_) / rate_)
        waiting_.push_back(next_);
      send_waiting();
      wait_events();
    }
  }

  void print() {
    // What never got an answer is as late as the run is long: leaving it out would flatter.
    size_t unsent = 0;
    for (double at : waiting_) unsent += late(at);
    for (auto& c : connections_)
      if (c.scheduled >= 0) late(c.scheduled);
    std::sort(latencies_.begin(), latencies_.end());
    auto at = [this](double p) {
      return latencies_.empty()
                 ? 0.0
                 : 1e6 * latencies_[static_cast<size_t>(
                             p * static_cast<double>(latencies_.size() - 1))];
    };
    std::printf(
        "{\"rate\":%.0f,\"value\":%.1f,\"unit\":\"requests/s\",\"errors\":%zu,\"unsent\":%zu,"
        "\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f}\n",
        rate_, static_cast<double>(done_) / (end_ - measured_from_), errors_, unsent, at(0.5),
        at(0.99), at(0.999));
  }

 private:
  size_t late(double scheduled) {
    if (scheduled < measured_from_) return 0;
    latencies_.push_back(end_ - scheduled);
    return 1;
  }

  void open(Connection& c) {
    c.fd = socket(to_.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c.fd < 0 || connect(c.fd, to_.get(), to_.len) != 0) die("connect");
    fcntl(c.fd, F_SETFL, O_NONBLOCK);
    set_no_delay(c.fd);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &c;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, c.fd, &event);
    c.scheduled = -1;
    c.head.clear();
    c.in_body = false;
    free_.push_back(&c);
  }

  void failed(Connection& c) {
    if (c.scheduled >= 0) {
      ++errors_;
    } else {
      std::erase(free_, &c);
    }
    close(c.fd);
    open(c);
  }

  void send_waiting() {
    while (!waiting_.empty() && !free_.empty()) {
      Connection& c = *free_.front();
      free_.pop_front();
      c.scheduled = waiting_.front();
      waiting_.pop_front();
      if (send(c.fd, request_.data(), request_.size(), MSG_NOSIGNAL) !=
          static_cast<ssize_t>(request_.size()))
        failed(c);
    }
  }

  void wait_events() {
    const double gap = std::clamp(next_ - now_s(), 0.0, 0.01);
    const timespec timeout{0, static_cast<long>(gap * 1e9)};
    epoll_event events[256];
    const int n = epoll_pwait2(epoll_, events, 256, &timeout, nullptr);
    for (int i = 0; i < n; ++i) read(*static_cast<Connection*>(events[i].data.ptr));
  }

  void read(Connection& c) {
    char buffer[16384];
    const ssize_t n = recv(c.fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0 || c.scheduled < 0 || !take(c, {buffer, static_cast<size_t>(n)})) failed(c);
  }

  // False: not the answer that was asked for.
  bool take(Connection& c, std::string_view data) {
    if (!c.in_body) {
      c.head.append(data);
      const size_t end = c.head.find("\r\n\r\n");
      if (end == std::string::npos) return c.head.size() < 65536;
      if (!c.head.starts_with("HTTP/1.1 200")) return false;
      for (auto& ch : c.head) ch = static_cast<char>(std::tolower(static_cast<unsigned char>(ch)));
      const size_t length = c.head.find("\r\ncontent-length:");
      if (length == std::string::npos || length > end) return false;
      c.body_left = std::strtoul(c.head.c_str() + length + 17, nullptr, 10);
      data = data.substr(data.size() - (c.head.size() - end - 4));
      c.in_body = true;
    }
    if (data.size() > c.body_left) return false;
    c.body_left -= data.size();
    if (c.body_left == 0) answered(c);
    return true;
  }

  void answered(Connection& c) {
    const double now = now_s();
    if (c.scheduled >= measured_from_ && now <= end_) {
      latencies_.push_back(now - c.scheduled);
      ++done_;
    }
    c.scheduled = -1;
    c.in_body = false;
    c.head.clear();
    free_.push_back(&c);
  }

  Address to_;
  double rate_;
  std::vector<Connection> connections_;
  std::string request_;
  int epoll_ = -1;
  double begin_ = 0, measured_from_ = 0, end_ = 0, next_ = 0;
  uint64_t count_ = 0;
  size_t done_ = 0, errors_ = 0;
  std::deque<double> waiting_;
  std::deque<Connection*> free_;
  std::vector<double> latencies_;
};

std::string frame(uint8_t type, uint8_t flags, uint8_t stream, const std::string& payload) {
  std::string out(9, '\0');
  out[1] = static_cast<char>(payload.size() >> 8);
  out[2] = static_cast<char>(payload.size());
  out[3] = static_cast<char>(type);
  out[4] = static_cast<char>(flags);
  out[8] = static_cast<char>(stream);
  return out + payload;
}

// GET / with indexed fields of HPACK's static table; the authority is a literal.
std::string http2_request(const std::string& name) {
  std::string block = "\x82\x86\x84\x41";
  block += static_cast<char>(name.size());
  block += name;
  return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, "") + frame(4, 1, 0, "") +
         frame(1, 5, 1, block);
}

bool receive(int fd, std::string& data) {
  pollfd wait{fd, POLLIN, 0};
  char buffer[16384];
  if (poll(&wait, 1, 5000) != 1) return false;
  const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
  if (n <= 0) return false;
  data.append(buffer, static_cast<size_t>(n));
  return true;
}

bool http1_answered(const std::string& data) {
  const size_t end = data.find("\r\n\r\n");
  return end != std::string::npos && data.size() > end + 4;
}

bool http2_answered(const std::string& data) {
  for (size_t at = 0; at + 9 <= data.size();) {
    auto byte = [&](size_t i) { return static_cast<uint8_t>(data[at + i]); };
    const size_t size = size_t{byte(0)} << 16 | size_t{byte(1)} << 8 | byte(2);
    if (at + 9 + size > data.size()) return false;
    const bool of_answer = byte(3) <= 1 && byte(8) == 1;
    if (of_answer && (byte(4) & 1) != 0) return true;
    at += 9 + size;
  }
  return false;
}

int idle(const Address& to, const std::string& name, int connections, bool http2, int pid) {
  const std::string request =
      http2 ? http2_request(name) : "GET / HTTP/1.1\r\nHost: " + name + "\r\n\r\n";
  std::vector<int> held;
  size_t errors = 0;
  uint64_t before = 0;
  // The first ones fill the process's own pools and are not counted.
  const int first = 100;
  for (int i = 0; i < connections + first; ++i) {
    if (i == first) before = private_bytes(pid);
    const int fd = socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, to.get(), to.len) != 0) die("connect");
    held.push_back(fd);
    std::string answer;
    bool done = send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0;
    while (done && !(http2 ? http2_answered(answer) : http1_answered(answer)))
      done = receive(fd, answer);
    errors += done ? 0 : 1;
  }
  sleep(3);  // what is given back on a timer
  const uint64_t after = private_bytes(pid);
  const double each = (static_cast<double>(after) - static_cast<double>(before)) / connections;
  std::printf("{\"value\":%.1f,\"unit\":\"user bytes\",\"errors\":%zu}\n", each, errors);
  for (int fd : held) close(fd);
  return errors == 0 ? 0 : 1;
}

}  // namespace
}  // namespace edgemesh::bench

int main(int argc, char** argv) {
  namespace bench = edgemesh::bench;
  auto args = bench::parse_args(argc, argv);
  if (args.contains("help") || !args.contains("to")) {
    std::puts(bench::kHelp);
    return args.contains("help") ? 0 : 2;
  }
  auto number = [&](const char* name, double otherwise) {
    return args.contains(name) ? std::stod(args[name]) : otherwise;
  };
  const auto to = bench::Address::parse(args["to"]);
  const int connections = static_cast<int>(number("connections", 64));
  if (args.contains("idle"))
    return bench::idle(to, args["to"], connections, args.contains("h2"),
                       static_cast<int>(number("pid", 0)));
  bench::OpenLoop loop(to, args["to"], number("rate", 10000), connections);
  loop.run(number("seconds", 2));
  loop.print();
  return 0;
}
