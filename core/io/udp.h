// Datagram sockets on a Loop: for the DNS server and for the tunnel's data socket (GSO and GRO).
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "core/base/net_addr.h"
#include "core/io/fd.h"
#include "core/io/loop.h"

namespace edgemesh::io {

class UdpSocket final : private FdWatch::Handler {
 public:
  // `segment`: with GRO the datagram may be a train of datagrams of `segment` bytes each (the last may
  // be shorter); 0 when it is one datagram. `data` is valid until the callback returns.
  using OnDatagram =
      std::function<void(std::span<const uint8_t> data, size_t segment, const SockAddr& from)>;

  struct Options {
    bool reuse_addr = false;
    bool reuse_port = false;
    bool gro = false;
    uint32_t mark = 0;
    int buffer_bytes = 0;  // SO_RCVBUF and SO_SNDBUF, 0: the system's
  };
  static Result<std::unique_ptr<UdpSocket>> bind(Loop& loop, const SockAddr& addr,
                                                 OnDatagram on_datagram, const Options& options);
  // A bound socket made elsewhere.
  static Result<std::unique_ptr<UdpSocket>> adopt(Loop& loop, Fd fd, OnDatagram on_datagram, bool gro);
  ~UdpSocket() override;

  // One datagram. False: there is no room (drop it, or wait for on_writable).
  Result<bool> send_to(std::span<const uint8_t> data, const SockAddr& to);  // false: would block
  // A train of datagrams of `segment` bytes (UDP_SEGMENT); at most 64 segments and 65507 bytes. Where
  // the kernel refuses GSO the datagrams are sent one by one. Returns bytes taken.
  Result<size_t> send_train(std::span<const uint8_t> data, size_t segment, const SockAddr& to);
  // Called once after a send that took less than it was given: when the socket has room again, or after
  // a moment when the device had none (ENOBUFS), of which the kernel does not tell.
  void set_on_writable(std::function<void()> callback) { on_writable_ = std::move(callback); }

  SockAddr local_addr() const { return local_; }
  int fd() const { return fd_.get(); }

 private:
  UdpSocket(Loop& loop, Fd fd, OnDatagram on_datagram, bool gro, SockAddr local);
  void on_fd(bool readable, bool writable) override;
  void no_room(int error);
  void tell_writable();

  Loop& loop_;
  Fd fd_;
  OnDatagram on_datagram_;
  bool gro_;
  bool gso_works_ = true;
  SockAddr local_;
  std::function<void()> on_writable_;
  FdWatch watch_;
  bool* destroyed_ = nullptr;
  bool blocked_ = false;  // on_writable_ is owed
  Timer room_;            // after ENOBUFS
  Timer again_;  // reads go on in the next turn
};

}  // namespace edgemesh::io
