// EndpointSocket: a connected UDP socket to an endpoint of this node, for one flow.
// Threads: the worker's loop.
#pragma once

#include <memory>

#include "core/io/loop.h"
#include "proxy/udp/datagram_batch.h"
#include "proxy/upstream/list.h"

namespace edgemesh::proxy {

struct UdpContext;

class EndpointSocket final : public ListNode<EndpointSocket>, private io::FdWatch::Handler {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void on_answers(std::span<const Datagram> items) = 0;
    virtual void on_refused() = 0;  // the port is unreachable; the socket may be destroyed here
  };
  static Result<std::unique_ptr<EndpointSocket>> connect(UdpContext& context, const SockAddr& to,
                                                         Owner& owner);
  // A connected one that another process made.
  static Result<std::unique_ptr<EndpointSocket>> adopt(UdpContext& context, io::Fd fd,
                                                       Owner& owner);
  ~EndpointSocket() override { watch_.stop(true); }
  // For another process; what came and was not read is for that. The object is dead afterwards.
  io::Fd release() {
    watch_.stop();
    return std::move(fd_);
  }
  SendOutcome send(std::span<const Datagram> items) {
    return send_datagrams(fd_.get(), items, nullptr);
  }

 private:
  friend class ReadyQueue;
  EndpointSocket(UdpContext& context, io::Fd fd, Owner& owner)
      : context_(context), owner_(owner), fd_(std::move(fd)) {}
  void on_fd(bool readable, bool writable) override;
  // Passes on its share of a turn. True: more may wait, and it is still there.
  bool receive_some();

  UdpContext& context_;
  Owner& owner_;
  io::Fd fd_;
  io::FdWatch watch_;
};

// Sockets that used up their share of a turn and go on in the next.
class ReadyQueue {
 public:
  explicit ReadyQueue(io::Loop& loop) : timer_(loop, [this] { run(); }) {}
  void add(EndpointSocket& socket);

 private:
  void run();
  List<EndpointSocket> sockets_;
  io::Timer timer_;
};

}  // namespace edgemesh::proxy
