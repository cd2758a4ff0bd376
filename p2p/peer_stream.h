// PeerStream: what Dialer::open() gives. It may exist before there is a path: then it holds what is
// written (bounded) until bind() puts the real stream below, or until its time is up. Errors get
// the node and the path in front. Threads: the worker loop.
#pragma once

#include <string>

#include "core/base/net_addr.h"
#include "core/io/stream.h"
#include "p2p/mesh.h"

namespace edgemesh::p2p {

class PeerStream;

// The list of streams that wait; outlived by none of them.
class WaitingList {
 public:
  virtual ~WaitingList() = default;
  virtual void remove(PeerStream* stream) = 0;  // it was destroyed or failed
};

class PeerStream final : public io::Stream, private io::Stream::Handler {
 public:
  static constexpr size_t kMaxEarlyBytes = 64 * 1024;

  PeerStream(io::Loop& loop, std::string node, const SockAddr& target, bool udp = false)
      : loop_(loop), node_(std::move(node)), target_(target), udp_(udp) {}
  ~PeerStream() override;

  // Waits in `list`, at most `limit`.
  void wait(WaitingList* list, Duration limit);
  void bind(std::unique_ptr<io::Stream> below, PathKind kind);
  void fail(Error error);  // on_error follows in this turn
  const SockAddr& target() const { return target_; }
  bool udp() const { return udp_; }

  void set_handler(io::Stream::Handler* handler) override { handler_ = handler; }
  io::IoResult read(std::span<uint8_t> into) override;
  io::IoResult write(std::span<const uint8_t> data) override;
  void shutdown_write() override;
  void reset() override;
  io::DatagramSide* datagrams() override {
    return below_ == nullptr || !early_.empty() || failed_ ? nullptr : below_->datagrams();
  }
  uint8_t carrier() const override { return static_cast<uint8_t>(kind_); }
  bool nothing_delivered() const override {
    return below_ == nullptr || below_->nothing_delivered();
  }

 private:
  void on_connected() override;
  void on_readable() override;
  void on_writable() override;
  void on_error(const Error& error) override;
  void push_early();
  void leave_list();

  io::Loop& loop_;
  std::string node_;
  SockAddr target_;
  bool udp_;
  io::Stream::Handler* handler_ = nullptr;
  std::unique_ptr<io::Stream> below_;
  PathKind kind_ = PathKind::kNone;
  WaitingList* list_ = nullptr;
  std::unique_ptr<io::Timer> timer_;
  std::string early_;
  bool shut_ = false;
  bool want_writable_ = false;
  bool failed_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::p2p
