// api_load: writers and watchers of a Kubernetes API over HTTPS with a client certificate, for
// scripts/bench api.
//
//   api_load --to 127.0.0.1 --port 6443 --cert F --key F [--writers 32] [--watchers 0]
//            --count N [--size 700] [--prefix load] [--update 0] [--spread N]
//
// Creates N config maps (with --update: changes the first --spread of them, N times in all), each
// writer one request at a time on a kept connection, as kubectl does. Watchers see all of them.
// Prints one JSON object; the time ends with the last acknowledged write, that of the watchers with
// their last event.
#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <vector>

#include "bench/tools/net_util.h"

namespace edgemesh::bench {
namespace {

using Clock = std::chrono::steady_clock;
double now() {
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

struct Work {
  size_t count = 0, size = 700, spread = 1;
  bool update = false;
  std::string prefix;
  size_t next = 0, done = 0, failed = 0;
  uint64_t events = 0;
  double begun = 0, last_write = 0, last_event = 0;
  std::vector<double> latencies;
  std::string error;
};

class Connection {
 public:
  Connection(Work& work, SSL_CTX* tls, int epoll, const sockaddr_in& to, bool watcher)
      : work_(work), epoll_(epoll), watcher_(watcher) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int one = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) die("connect");
    ssl_ = SSL_new(tls);
    SSL_set_fd(ssl_, fd_);
    if (SSL_connect(ssl_) != 1) die("TLS");
    ::fcntl(fd_, F_SETFL, O_NONBLOCK);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = this;
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd_, &event);
    if (watcher_) {
      send(
          "GET "
          "/api/v1/namespaces/default/"
          "configmaps?watch=true&resourceVersion=0&allowWatchBookmarks=false HTTP/1.1\r\n"
          "Host: api\r\nAccept: application/json\r\n\r\n");
    }
  }
  ~Connection() {
    SSL_free(ssl_);
    ::close(fd_);
  }

  void write_next() {
    if (work_.next >= work_.count) return;
    const size_t i = work_.next++;
    const size_t object = work_.update ? i % work_.spread : i;
    const std::string body = fmt::format(
        R"({{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{}-{}","namespace":"default"}},"data":{{"n":"{}{}","text":"{}"}}}})",
        work_.prefix, object, work_.update ? "u" : "", i, std::string(work_.size, 'x'));
    const std::string path = work_.update ? fmt::format("/{}-{}", work_.prefix, object) : "";
    at_ = now();
    send(
        fmt::format("{} /api/v1/namespaces/default/configmaps{} HTTP/1.1\r\nHost: api\r\nAccept: "
                    "application/json\r\n"
                    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
                    work_.update ? "PUT" : "POST", path, body.size(), body));
  }

  void on_readable() {
    static thread_local char buffer[65536];
    for (;;) {
      ERR_clear_error();
      const int got = SSL_read(ssl_, buffer, sizeof buffer);
      if (got <= 0) {
        if (SSL_get_error(ssl_, got) == SSL_ERROR_WANT_READ) return;
        std::fprintf(stderr, "the API closed the connection\n");
        std::exit(1);
      }
      if (watcher_) {
        count_events({buffer, static_cast<size_t>(got)});
      } else {
        in_.append(buffer, static_cast<size_t>(got));
        take_answer();
      }
    }
  }

 private:
  void send(std::string_view text) {
    while (!text.empty()) {
      const int n = SSL_write(ssl_, text.data(), static_cast<int>(text.size()));
      if (n > 0)
        text.remove_prefix(static_cast<size_t>(n));
      else if (SSL_get_error(ssl_, n) != SSL_ERROR_WANT_WRITE)
        die("write");
    }
  }

  // Each event is a line; chunks end with CR LF.
  void count_events(std::string_view data) {
    uint64_t lines = 0;
    for (const char c : data) {
      if (c == '\n' && last_ != '\r') ++lines;
      last_ = c;
    }
    if (lines == 0) return;
    work_.events += lines;
    work_.last_event = now();
  }

  void take_answer() {
    const size_t head = in_.find("\r\n\r\n");
    if (head == std::string::npos) return;
    const size_t length = in_.find("Content-Length: ");
    if (length == std::string::npos || length > head) {
      std::fprintf(stderr, "answer without a length: %s\n", in_.substr(0, head).c_str());
      std::exit(1);
    }
    const size_t whole = head + 4 + std::strtoul(in_.c_str() + length + 16, nullptr, 10);
    if (in_.size() < whole) return;
    const bool good = in_.compare(9, 2, "20") == 0;
    if (!good) {
      ++work_.failed;
      work_.error = in_.substr(0, std::min<size_t>(in_.size(), 600));
    }
    ++work_.done;
    work_.last_write = now();
    work_.latencies.push_back(work_.last_write - at_);
    in_.erase(0, whole);
    write_next();
  }

  Work& work_;
  int epoll_;
  bool watcher_;
  int fd_ = -1;
  SSL* ssl_ = nullptr;
  std::string in_;
  char last_ = 0;
  double at_ = 0;
};

SSL_CTX* make_tls(const std::string& cert, const std::string& key) {
  SSL_CTX* tls = SSL_CTX_new(TLS_client_method());
  if (SSL_CTX_use_certificate_file(tls, cert.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_use_PrivateKey_file(tls, key.c_str(), SSL_FILETYPE_PEM) != 1)
    die("certificate");
  SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, nullptr);
  return tls;
}

int run(std::map<std::string, std::string> args) {
  const auto number = [&](const char* name, size_t otherwise) {
    return args.contains(name) ? std::stoul(args[name]) : otherwise;
  };
  Work work;
  work.count = number("count", 1000);
  work.size = number("size", 700);
  work.update = number("update", 0) != 0;
  work.spread = number("spread", work.count);
  work.prefix = args.contains("prefix") ? args["prefix"] : "load";
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(number("port", 6443)));
  ::inet_pton(AF_INET, args.contains("to") ? args["to"].c_str() : "127.0.0.1", &to.sin_addr);
  SSL_CTX* tls = make_tls(args["cert"], args["key"]);
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  std::vector<std::unique_ptr<Connection>> connections;
  const size_t watchers = number("watchers", 0);
  for (size_t i = 0; i < watchers; ++i)
    connections.push_back(std::make_unique<Connection>(work, tls, epoll, to, true));
  const auto turn = [&](int wait_ms) {
    epoll_event events[256];
    const int n = ::epoll_wait(epoll, events, 256, wait_ms);
    for (int i = 0; i < n; ++i) static_cast<Connection*>(events[i].data.ptr)->on_readable();
    return n;
  };
  // What exists comes to the watchers first.
  for (double quiet = now(); now() - quiet < 0.5;)
    if (turn(50) > 0) quiet = now();
  const uint64_t before = work.events;
  for (size_t i = 0; i < number("writers", 32); ++i)
    connections.push_back(std::make_unique<Connection>(work, tls, epoll, to, false));
  work.begun = now();
  for (size_t i = watchers; i < connections.size(); ++i) connections[i]->write_next();
  const uint64_t wanted = before + watchers * work.count;
  while (work.done < work.count ||
         (watchers > 0 && work.events < wanted && now() - work.last_write < 20))
    turn(50);
  std::sort(work.latencies.begin(), work.latencies.end());
  const auto at = [&](double p) {
    return work.latencies.empty() ? -1
                                  : work.latencies[static_cast<size_t>(
                                        p * static_cast<double>(work.latencies.size() - 1))] *
                                        1e3;
  };
  const double seconds = work.last_write - work.begun;
  fmt::print(
      R"({{"writes":{},"failed":{},"seconds":{:.3f},"rate":{:.0f},"p50":{:.3f},"p99":{:.3f},"events":{},"lost":{},"event_seconds":{:.3f},"event_rate":{:.0f}}})"
      "\n",
      work.done, work.failed, seconds, static_cast<double>(work.done - work.failed) / seconds,
      at(0.5), at(0.99), work.events - before, wanted - std::min(wanted, work.events),
      work.last_event - work.begun,
      work.last_event > work.begun
          ? static_cast<double>(work.events - before) / (work.last_event - work.begun)
          : 0.0);
  if (work.failed > 0) std::fprintf(stderr, "%s\n", work.error.c_str());
  return work.failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace edgemesh::bench

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  return edgemesh::bench::run(edgemesh::bench::parse_args(argc, argv));
}
