// The server's state that its connections use. For core/http only.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_map>

#include "core/http/h1_parser.h"
#include "core/http/server.h"
#include "core/io/tcp.h"

namespace edgemesh::http {

class ServerConn;

class ServerImpl final : public Server {
 public:
  ServerImpl(io::Loop& l, ServerOptions o, Handler h);
  ~ServerImpl() override;
  Result<> listen();

  SockAddr local_addr() const override { return local_; }
  int listening_fd() const override { return listener_ != nullptr ? listener_->fd() : -1; }
  void adopt(std::unique_ptr<io::Stream> stream, const SockAddr& peer) override;
  void stop_accepting() override;
  void drain(bool streams_too) override;
  size_t connections() const override { return conns_.size(); }

  void remove(ServerConn* conn);
  void handshake_over();
  std::string_view date();  // "Date: ...\r\n", made once a second
  bool draining() const { return draining_; }
  H1Limits limits() const;

  io::Loop& loop;
  ServerOptions options;
  Handler handler;
  // Heads are handled one at a time, so their fields share one storage.
  std::array<FieldView, 512> fields;

 private:
  void accept(io::Fd fd, const SockAddr& peer);
  void handshake_begins();

  SockAddr local_;
  std::unique_ptr<io::TcpListener> listener_;
  std::unordered_map<ServerConn*, std::unique_ptr<ServerConn>> conns_;
  bool draining_ = false;
  size_t handshakes_ = 0;
  size_t handshake_room_;  // beyond max_handshakes for a while when they stand still
  bool waiting_ = false;   // the listener is paused
  io::Timer patience_;
  int64_t date_second_ = 0;
  std::string date_;
};

}  // namespace edgemesh::http
