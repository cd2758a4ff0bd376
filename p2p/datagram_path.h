// DatagramPath: one way for datagrams to the peer. Under the tunnel lies one that is in use and maybe
// others that still deliver; QUIC above does not know that they change.
// Threads: the worker loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/base/net_addr.h"
#include "core/io/loop.h"
#include "core/io/udp.h"
#include "p2p/mesh.h"

namespace edgemesh::p2p {

class DatagramPath {
 public:
  class Receiver {
   public:
    virtual ~Receiver() = default;
    // `train` holds datagrams of `segment` bytes each, the last may be shorter; segment 0: one
    // datagram. Valid until the call returns. The path must not be destroyed in it.
    virtual void on_datagrams(DatagramPath& path, std::span<const uint8_t> train, size_t segment) = 0;
    // After send() took less than it was given.
    virtual void on_path_writable(DatagramPath& path) = 0;
  };

  virtual ~DatagramPath() = default;
  void set_receiver(Receiver* receiver) { receiver_ = receiver; }

  // A train of datagrams as above, at most 64 of them. Returns the bytes taken, whole datagrams; less
  // than given means that the path would block. What cannot be sent (no route) counts as taken: it is
  // lost, as datagrams are.
  virtual size_t send(std::span<const uint8_t> train, size_t segment) = 0;
  virtual PathKind kind() const = 0;
  virtual std::string local_text() const { return {}; }
  virtual std::string remote_text() const { return {}; }

 protected:
  Receiver* receiver() const { return receiver_; }

 private:
  Receiver* receiver_ = nullptr;
};

// A UDP socket of its own and one remote address; what others send to the socket is dropped. For tests
// and tools.
class UdpPath final : public DatagramPath {
 public:
  static Result<std::unique_ptr<UdpPath>> bind(io::Loop& loop, const SockAddr& local);
  void connect(const SockAddr& remote) { remote_ = remote; }
  SockAddr local_addr() const { return socket_->local_addr(); }

  size_t send(std::span<const uint8_t> train, size_t segment) override;
  PathKind kind() const override { return PathKind::kPunched; }

 private:
  UdpPath() = default;
  std::unique_ptr<io::UdpSocket> socket_;
  SockAddr remote_;
};

}  // namespace edgemesh::p2p
