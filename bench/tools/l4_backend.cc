// The server behind the proxies in the L4 tables: one thread, edge-free epoll, no work of its own.
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#include <memory>
#include <vector>

#include "bench/tools/net_util.h"

namespace edgemesh::bench {
namespace {

constexpr size_t kChunk = 1 << 20;

struct Connection {
  int fd = -1;
  bool begun = false;
  Hello hello;
  uint64_t have = 0;     // bytes of the request that is being read
  uint64_t pending = 0;  // reply bytes to send
  std::vector<char> echo;
};

class Backend {
 public:
  explicit Backend(const Address& listen_addr) {
    listener_ =
        socket(listen_addr.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    set_no_delay(listener_);
    if (bind(listener_, listen_addr.get(), listen_addr.len) != 0) die("bind");
    if (listen(listener_, 4096) != 0) die("listen");
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    watch(listener_, nullptr, EPOLL_CTL_ADD, EPOLLIN);
    memory_ = memfd_create("bulk", MFD_CLOEXEC);
    if (memory_ < 0 || ftruncate(memory_, kChunk) != 0) die("memfd");
    buffer_.resize(kChunk);
  }

  [[noreturn]] void run() {
    for (;;) {
      epoll_event events[256];
      int n = epoll_wait(epoll_, events, 256, -1);
      for (int i = 0; i < n; ++i) {
        if (events[i].data.ptr == nullptr)
          accept_all();
        else
          serve(static_cast<Connection*>(events[i].data.ptr), events[i].events);
      }
    }
  }

 private:
  void watch(int fd, Connection* c, int op, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = c;
    epoll_ctl(epoll_, op, fd, &event);
  }

  void accept_all() {
    for (;;) {
      int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) return;
      auto* c = new Connection;
      c->fd = fd;
      watch(fd, c, EPOLL_CTL_ADD, EPOLLIN);
    }
  }

  void drop(Connection* c) {
    close(c->fd);
    delete c;
  }

  void serve(Connection* c, uint32_t events) {
    bool alive = true;
    if (c->begun && (events & EPOLLOUT) != 0) alive = send_pending(c);
    if (alive && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) alive = receive(c);
    if (!alive) drop(c);
  }

  bool begin(Connection* c) {
    ssize_t n = recv(c->fd, buffer_.data(), buffer_.size(), 0);
    if (n < 0) return errno == EAGAIN;
    if (static_cast<size_t>(n) < sizeof(Hello)) return false;  // tools send it whole
    std::memcpy(&c->hello, buffer_.data(), sizeof(Hello));
    if (std::memcmp(c->hello.magic, "EMB1", 4) != 0) return false;
    c->begun = true;
    c->have = static_cast<uint64_t>(n);
    if (c->hello.work == 'd') {
      watch(c->fd, c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
      return true;
    }
    if (c->hello.work == 'e') return echo(c, buffer_.data() + sizeof(Hello), n - sizeof(Hello));
    return c->hello.work == 'u' || answer(c);
  }

  bool receive(Connection* c) {
    if (!c->begun) return begin(c);
    if (c->hello.work == 'u') {
      // MSG_TRUNC drops the bytes in the kernel.
      ssize_t n = recv(c->fd, buffer_.data(), 16 << 20, MSG_TRUNC | MSG_DONTWAIT);
      return n > 0 || (n < 0 && errno == EAGAIN);
    }
    if (c->hello.work == 'e' && !c->echo.empty()) return true;
    ssize_t n = recv(c->fd, buffer_.data(), buffer_.size(), 0);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    if (c->hello.work == 'e') return echo(c, buffer_.data(), static_cast<size_t>(n));
    c->have += static_cast<uint64_t>(n);
    return answer(c);
  }

  bool echo(Connection* c, const char* data, size_t size) {
    ssize_t n = size == 0 ? 0 : send(c->fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return false;
    size_t sent = n > 0 ? static_cast<size_t>(n) : 0;
    if (sent == size) return true;
    c->echo.assign(data + sent, data + size);
    watch(c->fd, c, EPOLL_CTL_MOD, EPOLLOUT);
    return true;
  }

  bool answer(Connection* c) {
    while (c->have >= c->hello.request) {
      c->have -= c->hello.request;
      c->pending += c->hello.reply;
      if (!send_pending(c)) return false;
      if (c->hello.work == 's') return false;  // closes: all was sent
    }
    return true;
  }

  bool send_pending(Connection* c) {
    if (c->hello.work == 'd') {
      for (int i = 0; i < 4; ++i) {
        off_t offset = 0;
        ssize_t n = sendfile(c->fd, memory_, &offset, kChunk);
        if (n < 0) return errno == EAGAIN;
      }
      return true;
    }
    if (c->hello.work == 'e') {
      ssize_t n = send(c->fd, c->echo.data(), c->echo.size(), MSG_NOSIGNAL);
      if (n < 0) return errno == EAGAIN;
      c->echo.erase(c->echo.begin(), c->echo.begin() + n);
      if (c->echo.empty()) watch(c->fd, c, EPOLL_CTL_MOD, EPOLLIN);
      return true;
    }
    while (c->pending > 0) {
      ssize_t n = send(c->fd, buffer_.data(), std::min<uint64_t>(c->pending, kChunk), MSG_NOSIGNAL);
      if (n < 0) {
        if (errno != EAGAIN) return false;
        watch(c->fd, c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
        return true;
      }
      c->pending -= static_cast<uint64_t>(n);
    }
    return true;
  }

  int listener_, epoll_, memory_;
  std::vector<char> buffer_;
};

}  // namespace
}  // namespace edgemesh::bench

int main(int argc, char** argv) {
  auto args = edgemesh::bench::parse_args(argc, argv);
  if (args.contains("help") || !args.contains("listen")) {
    std::puts(
        "l4_backend --listen ADDR:PORT\n"
        "  The server for l4_load. It does what the first bytes of a connection ask for: answers\n"
        "  messages, answers one and closes, takes bytes, sends bytes, or echoes.");
    return args.contains("help") ? 0 : 2;
  }
  signal(SIGPIPE, SIG_IGN);
  edgemesh::bench::Backend(edgemesh::bench::Address::parse(args["listen"])).run();
}
