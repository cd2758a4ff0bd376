// DNS over TCP (RFC 7766): messages with a length of two bytes in front, several under way at once,
// answered in any order. A client that does not read its answers is not read from.
// Threads: one loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/io/tcp.h"

namespace edgemesh::discovery::dns {

class TcpSession;

class TcpServer {
 public:
  struct Options {
    size_t max_connections = 128;
    Duration idle_timeout = std::chrono::seconds(10);
  };
  // Calls session->answer() now or later, once; or session->close().
  using OnQuery = std::function<void(std::span<const uint8_t>, const std::shared_ptr<TcpSession>&)>;

  TcpServer(io::Loop& loop, Options options, OnQuery on_query);
  ~TcpServer();

  Result<> listen(const SockAddr& addr);
  size_t connections() const { return sessions_.size(); }

 private:
  friend class TcpSession;
  void on_accept(io::Fd fd);
  void remove(TcpSession* session);

  io::Loop& loop_;
  Options options_;
  OnQuery on_query_;
  std::vector<std::unique_ptr<io::TcpListener>> listeners_;
  std::unordered_map<TcpSession*, std::shared_ptr<TcpSession>> sessions_;
};

class TcpSession final : public io::Stream::Handler, public std::enable_shared_from_this<TcpSession> {
 public:
  TcpSession(TcpServer& server, std::unique_ptr<io::Stream> stream);

  // One answer, without its length. After the client is gone it does nothing.
  void answer(std::span<const uint8_t> message);
  void close();

 private:
  friend class TcpServer;
  void on_readable() override { pump(); }
  void on_writable() override { pump(); }
  void on_error(const Error&) override { close(); }
  void pump();
  bool flush();  // false: closed
  bool handle_messages();
  bool may_read() const;

  TcpServer* server_;  // null: closed
  std::unique_ptr<io::Stream> stream_;
  io::Timer idle_;
  std::vector<uint8_t> in_, out_;
  size_t sent_ = 0;  // of out_
  size_t pending_ = 0;
  bool ended_ = false;
  bool pumping_ = false;
};

}  // namespace edgemesh::discovery::dns
