// DatagramTunnel: datagrams of one flow through a stream of the mesh (CONNECT-UDP, RFC 9298). Where
// the stream has datagrams of its own (io::DatagramSide), those that fit travel so: none waits for
// another that was lost, and none is sent twice. The others travel as capsules, in order. Where no
// more are taken they are dropped, as a full queue drops them; a datagram is sent whole or not at
// all.
// Threads: the loop of the stream.
#pragma once

#include <memory>
#include <string>

#include "core/io/loop.h"
#include "core/io/stream.h"
#include "proxy/udp/capsule.h"
#include "proxy/udp/datagram_batch.h"
#include "proxy/upstream/list.h"

namespace edgemesh::proxy {

class DatagramTunnel final : private io::Stream::Handler {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void on_tunnel_datagrams(std::span<const Datagram> items) = 0;
    // So many were lost in the queues of this side of the tunnel.
    virtual void on_tunnel_lost(size_t /*datagrams*/) {}
    // The far side ended it (null) or it broke. The tunnel may be destroyed here.
    virtual void on_tunnel_end(const Error* error) = 0;
  };
  DatagramTunnel(io::Loop& loop, std::unique_ptr<io::Stream> stream, Owner& owner);

  // Also before the far side has answered: a little is kept until then.
  SendOutcome send(std::span<const Datagram> items);
  // No more will be sent; the far side is told. What it still sends is for the owner.
  void finish() { stream_->shutdown_write(); }
  void set_owner(Owner& owner) { owner_ = &owner; }

 private:
  static constexpr size_t kBatch = 64;
  void on_readable() override;
  Result<> read_datagrams(io::DatagramSide& side);
  void on_writable() override;
  void on_error(const Error& error) override { owner_->on_tunnel_end(&error); }
  // Writes the capsules in the scratch buffer, whose ends are in `ends`.
  void write(std::span<const size_t> ends, SendOutcome* out);

  io::Loop& loop_;
  Owner* owner_;
  std::unique_ptr<io::Stream> stream_;
  CapsuleReader reader_;
  std::string rest_;  // of a capsule that the stream took in part
};

// Tunnels that were ended in order, until the far side has ended them too: cutting each off would
// look like a flood of resets.
class ClosingTunnels {
 public:
  explicit ClosingTunnels(io::Loop& loop);
  ~ClosingTunnels();
  void add(std::unique_ptr<DatagramTunnel> tunnel);
  size_t size() const { return size_; }

 private:
  struct Entry;
  void sweep();

  static constexpr size_t kMax = 4096;
  io::Loop& loop_;
  std::unique_ptr<List<Entry>> entries_;  // the oldest first
  size_t size_ = 0;
  io::Timer timer_;
};

}  // namespace edgemesh::proxy
