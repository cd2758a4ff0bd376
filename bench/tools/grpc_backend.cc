// Server of the gRPC table: HTTP/2 without TLS, one thread; every request is answered, once it has
// ended, with one empty message (5 bytes) and the trailer grpc-status: 0.
#include <nghttp2/nghttp2.h>

#include <memory>

#include "bench/tools/net_util.h"

namespace edgemesh::bench {
namespace {

constexpr size_t kWriteAtOnce = 64 * 1024;

nghttp2_nv field(std::string_view name, std::string_view value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

ssize_t read_body(nghttp2_session* session, int32_t stream, uint8_t* out, size_t, uint32_t* flags,
                  nghttp2_data_source*, void*) {
  std::memset(out, 0, 5);
  *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
  const nghttp2_nv trailer = field("grpc-status", "0");
  nghttp2_submit_trailer(session, stream, &trailer, 1);
  return 5;
}

int on_frame(nghttp2_session* session, const nghttp2_frame* frame, void*) {
  const bool request = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
  if (!request || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  const nghttp2_nv fields[] = {field(":status", "200"), field("content-type", "application/grpc")};
  nghttp2_data_provider body{};
  body.read_callback = read_body;
  nghttp2_submit_response(session, frame->hd.stream_id, fields, 2, &body);
  return 0;
}

struct Connection {
  int fd = -1;
  nghttp2_session* session = nullptr;
  std::string out;

  Connection(int socket, nghttp2_session_callbacks* callbacks) : fd(socket) {
    nghttp2_session_server_new(&session, callbacks, this);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1000}};
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, 1);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    nghttp2_session_del(session);
    close(fd);
  }

  bool flush() {
    for (;;) {
      while (out.size() < kWriteAtOnce) {
        const uint8_t* data = nullptr;
        const ssize_t n = nghttp2_session_mem_send(session, &data);
        if (n < 0) return false;
        if (n == 0) break;
        out.append(reinterpret_cast<const char*>(data), static_cast<size_t>(n));
      }
      if (out.empty()) return true;
      const ssize_t n = send(fd, out.data(), out.size(), MSG_NOSIGNAL);
      if (n < 0) return errno == EAGAIN;
      out.erase(0, static_cast<size_t>(n));
    }
  }

  // False: the connection is over.
  bool serve(uint32_t events) {
    if ((events & EPOLLIN) != 0) {
      uint8_t buffer[kWriteAtOnce];
      const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n == 0 || (n < 0 && errno != EAGAIN)) return false;
      if (n > 0 && nghttp2_session_mem_recv(session, buffer, static_cast<size_t>(n)) < 0)
        return false;
    } else if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
      return false;
    }
    return flush();
  }
};

int run(const std::string& listen_on) {
  const Address address = Address::parse(listen_on);
  const int listener = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, address.get(), address.len) != 0 || listen(listener, 4096) != 0) die("listen");
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    epoll_event events[64];
    const int n = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < n; ++i) {
      if (auto* c = static_cast<Connection*>(events[i].data.ptr)) {
        if (!c->serve(events[i].events)) delete c;
        continue;
      }
      const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) continue;
      set_no_delay(fd);
      // A write that would block goes on with the client's next frames: it always has some to send
      // (the next requests, WINDOW_UPDATE), and the answers are small beside the socket's buffer.
      event.events = EPOLLIN;
      auto* c = new Connection(fd, callbacks);
      event.data.ptr = c;
      epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
      if (!c->flush()) delete c;
    }
  }
}

}  // namespace
}  // namespace edgemesh::bench

int main(int argc, char** argv) {
  auto args = edgemesh::bench::parse_args(argc, argv);
  if (!args.contains("listen")) {
    std::puts("grpc_backend --listen ADDR:PORT");
    return args.contains("help") ? 0 : 2;
  }
  return edgemesh::bench::run(args["listen"]);
}
