// TCP sockets on a Loop. See stream.h for the contract of TcpStream.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/base/net_addr.h"
#include "core/io/fd.h"
#include "core/io/loop.h"
#include "core/io/stream.h"

namespace edgemesh::io {

struct ConnectOptions {
  uint32_t mark = 0;                    // SO_MARK, 0: none. The agent's own traffic is marked.
  std::optional<SockAddr> source;       // bind before connecting
  bool transparent = false;             // IP_TRANSPARENT, for a foreign source address
  Duration timeout = std::chrono::seconds(5);  // 0: the caller keeps the time
  std::string congestion;               // TCP_CONGESTION; ignored where the kernel lacks it
  Duration silence_limit{};             // as limit_silence(); 0: none
};

// Ends the connection (ETIMEDOUT) when what was sent is not acknowledged for so long, or a probe of a
// connection that is silent is not: else a peer that lost its power holds it for a quarter of an hour.
void limit_silence(int fd, Duration limit);

class TcpStream final : public Stream, private FdWatch::Handler {
 public:
  // A connected, non-blocking socket (from accept). TCP_NODELAY is set, unless it is already.
  static Result<std::unique_ptr<TcpStream>> adopt(Loop& loop, Fd fd, bool has_no_delay = false);
  // Starts connecting. Errors that come later go to on_error. write() may succeed before
  // on_connected(): over loopback the handshake is over when connect(2) returns.
  static Result<std::unique_ptr<TcpStream>> connect(Loop& loop, const SockAddr& to,
                                                    const ConnectOptions& options = {});
  ~TcpStream() override;

  void set_handler(Stream::Handler* handler) override { handler_ = handler; }
  IoResult read(std::span<uint8_t> into) override;
  IoResult write(std::span<const uint8_t> data) override;
  IoResult write_before_end(std::span<const uint8_t> data) override;
  bool close_both() override;
  void shutdown_write() override;
  void reset() override { reset_ = true; }
  int splice_fd() const override { return connected_ ? fd_.get() : -1; }

  // The last read() emptied the socket and the peer has ended its direction: kEof is next.
  bool eof_is_next() const { return eof_next_; }

  // For code that moves bytes by splice(2) on splice_fd(): tells the stream what it saw, so that
  // graceful close and readiness stay right.
  void note_read_eof() { read_eof_ = true; }
  void want_writable() { want_writable_ = true; }  // call on_writable at the next edge
  void want_readable() { want_readable_ = true; }

  Result<SockAddr> local_addr() const;
  Result<SockAddr> peer_addr() const;
  // Takes the socket out (to hand it to another loop). The stream is dead afterwards.
  Fd release();

 private:
  TcpStream(Loop& loop, Fd fd, bool connected);
  void on_fd(bool readable, bool writable) override;
  IoResult send_some(std::span<const uint8_t> data, int flags);
  IoResult ended();
  void fail_later(Error error);  // on_error in this turn's deferred tasks
  void finish_connect();
  void close_fd();

  Loop& loop_;
  Fd fd_;
  FdWatch watch_;
  Stream::Handler* handler_ = nullptr;
  std::unique_ptr<Timer> connect_timer_;  // only while connecting
  bool connected_;
  bool took_bytes_ = false;  // a write went through before the event told that it is connected
  bool want_readable_ = true;
  bool drained_ = false;  // the last read emptied the socket: no use in asking before the next edge
  bool want_writable_ = false;
  bool eof_next_ = false;
  bool read_eof_ = false;
  bool write_shut_ = false;
  bool reset_ = false;
  bool failed_ = false;
  bool* destroyed_ = nullptr;     // set while a callback runs: the destructor reports there
  std::shared_ptr<bool> alive_;  // made when a task that refers to this stream is deferred
};

struct ListenOptions {
  int backlog = 4096;
  bool reuse_port = false;
  bool transparent = false;  // IP_TRANSPARENT: accept connections to foreign addresses (TPROXY)
  bool v6_only = true;
  // Given to the accepted sockets by the kernel, without a call a connection.
  bool no_delay = false;
  std::string congestion;  // TCP_CONGESTION; ignored where the kernel lacks it
};

// A listening socket that no loop watches yet: any thread may make one.
Result<Fd> open_tcp_listener(const SockAddr& addr, const ListenOptions& options = {});

// One that listens already, from another process: with these options from now on.
Result<> reuse_tcp_listener(int fd, const ListenOptions& options);

class TcpListener final : private FdWatch::Handler {
 public:
  using OnAccept = std::function<void(Fd fd, const SockAddr& peer)>;
  // The error says who holds the port where that can be told.
  static Result<std::unique_ptr<TcpListener>> listen(Loop& loop, const SockAddr& addr,
                                                     OnAccept on_accept,
                                                     const ListenOptions& options = {});
  // A socket that is bound and listens already: open_tcp_listener(), or one that another process
  // handed over.
  static Result<std::unique_ptr<TcpListener>> adopt(Loop& loop, Fd socket, OnAccept on_accept);
  ~TcpListener() override;
  SockAddr local_addr() const { return local_; }
  int fd() const { return fd_.get(); }
  // Stops and starts taking new connections (they wait in the backlog).
  void pause();
  void resume();
  // Takes all that have come, in this call: before the socket is closed, which resets them.
  void accept_waiting();

 private:
  TcpListener(Loop& loop, Fd fd, OnAccept on_accept, SockAddr local);
  void on_fd(bool readable, bool writable) override;
  void accept_some();
  bool accept_up_to(int limit);
  void pause_exhausted(int error);

  Loop& loop_;
  Fd fd_;
  OnAccept on_accept_;
  SockAddr local_;
  FdWatch watch_;
  bool paused_ = false;
  bool exhausted_ = false;  // out of descriptors: arrivals wait until retry_ is due
  Timer retry_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// True where the sockets that it accepts have TCP_NODELAY from it.
bool gives_no_delay(int listening_fd);
// The local address of every socket that it accepts; none where connections to several come in.
std::optional<SockAddr> only_local_addr(int listening_fd);

// Address that a connection was sent to before it was captured: getsockname for TPROXY,
// SO_ORIGINAL_DST for REDIRECT.
Result<SockAddr> original_dst(int fd, bool redirected);

}  // namespace edgemesh::io
