// Server of the HTTP/1 tables: one thread, epoll; every request head gets the same answer of a
// fixed size on the kept connection. Requests have no bodies.
#include <csignal>
#include <memory>

#include "bench/tools/net_util.h"

namespace edgemesh::bench {
namespace {

struct Connection {
  int fd = -1;
  int matched = 0;  // bytes of "\r\n\r\n" seen at the end of what was read
};

std::string make_answer(size_t body) {
  return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(body) +
         "\r\n\r\n" + std::string(body, 'x');
}

int heads_in(Connection& c, const char* data, size_t size) {
  int heads = 0;
  for (size_t i = 0; i < size; ++i) {
    const char want = c.matched % 2 == 0 ? '\r' : '\n';
    c.matched = data[i] == want ? c.matched + 1 : data[i] == '\r' ? 1 : 0;
    if (c.matched == 4) {
      ++heads;
      c.matched = 0;
    }
  }
  return heads;
}

// False: the connection is over. Answers are small beside a socket buffer, so a short write means
// a client that does not read, which no table has.
bool serve(Connection& c, const std::string& answer) {
  char buffer[16384];
  const ssize_t n = recv(c.fd, buffer, sizeof buffer, 0);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  for (int heads = heads_in(c, buffer, static_cast<size_t>(n)); heads > 0; --heads)
    if (send(c.fd, answer.data(), answer.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(answer.size()))
      return false;
  return true;
}

void accept_all(int listener, int epoll) {
  for (;;) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    set_no_delay(fd);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = new Connection{fd, 0};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  }
}

int run(const std::string& listen_on, size_t body) {
  const Address address = Address::parse(listen_on);
  const int listener =
      socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, address.get(), address.len) != 0 || listen(listener, 4096) != 0) die("listen");
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  const std::string answer = make_answer(body);
  for (;;) {
    epoll_event events[256];
    const int n = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < n; ++i) {
      auto* c = static_cast<Connection*>(events[i].data.ptr);
      if (c == nullptr) {
        accept_all(listener, epoll);
      } else if (!serve(*c, answer)) {
        close(c->fd);
        delete c;
      }
    }
  }
}

}  // namespace
}  // namespace edgemesh::bench

int main(int argc, char** argv) {
  auto args = edgemesh::bench::parse_args(argc, argv);
  if (!args.contains("listen")) {
    std::puts("http_backend --listen ADDR:PORT [--body BYTES (128)]");
    return args.contains("help") ? 0 : 2;
  }
  const size_t body = args.contains("body") ? std::stoul(args["body"]) : 128;
  return edgemesh::bench::run(args["listen"], body);
}
