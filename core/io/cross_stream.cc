#include "core/io/cross_stream.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>

namespace edgemesh::io {

namespace {

// One writes, one reads, on different threads. Positions only grow.
class Ring {
 public:
  // The reader's.
  std::span<const uint8_t> readable() const {
    const size_t from = head_.load(std::memory_order_relaxed);
    const size_t have = tail_.load(std::memory_order_acquire) - from;
    if (have == 0) return {};  // the writer may be taking its memory just now
    const size_t at = from % kCrossQueueBytes;
    return {bytes_.get() + at, std::min(have, kCrossQueueBytes - at)};
  }
  void consume(size_t n) { head_.fetch_add(n); }
  // The writer's. Its memory is taken with the first byte.
  std::span<uint8_t> writable() {
    if (bytes_ == nullptr) bytes_ = std::make_unique_for_overwrite<uint8_t[]>(kCrossQueueBytes);
    const size_t to = tail_.load(std::memory_order_relaxed);
    const size_t room = kCrossQueueBytes - (to - head_.load(std::memory_order_acquire));
    const size_t at = to % kCrossQueueBytes;
    return {bytes_.get() + at, std::min(room, kCrossQueueBytes - at)};
  }
  void commit(size_t n) { tail_.fetch_add(n, std::memory_order_release); }
  // Either's.
  size_t size() const { return tail_.load() - head_.load(); }

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  std::atomic<size_t> head_{0}, tail_{0};
};

// A writer that found the queue full is told when half of it is free again: not for each piece. It
// sets `blocked` and looks at the ring again, the reader takes and looks at `blocked`: in one total
// order, so that one of them sees the other.
struct Queue {
  Ring ring;
  std::atomic<bool> ended{false};    // by its writer
  std::atomic<bool> blocked{false};  // its writer waits for room
  bool room_to_tell() {
    return ring.size() <= kCrossQueueBytes / 2 && blocked.load() && blocked.exchange(false);
  }
};

class NearEnd;

}  // namespace

struct CrossStreams::Bridge : std::enable_shared_from_this<Bridge> {
  Bridge(std::shared_ptr<CrossStreams> of, Loop& n, Loop& f)
      : streams(std::move(of)), near(n), far(f) {}
  std::shared_ptr<CrossStreams> streams;
  Loop& near;
  Loop& far;
  Queue up, down;  // near to far, far to near
  std::atomic<bool> near_woken{false}, far_woken{false};
  // Written on `far` before near is woken.
  std::atomic<bool> connected{false}, failed{false};
  uint8_t carrier = 0;
  std::optional<Error> error;
  bool nothing_delivered = false;
  // Each touched by its own loop only.
  NearEnd* near_end = nullptr;
  std::unique_ptr<FarEnd> far_end;
};
namespace {

using Bridge = CrossStreams::Bridge;
using BridgePtr = std::shared_ptr<Bridge>;

void wake_near(const BridgePtr& bridge);
void wake_far(const BridgePtr& bridge);

}  // namespace

class FarEnd final : public Stream::Handler {
 public:
  explicit FarEnd(Bridge& bridge) : bridge_(bridge) { bridge_.streams->ends_.insert(this); }
  ~FarEnd() override { bridge_.streams->ends_.erase(this); }

  void take(Result<std::unique_ptr<Stream>> opened) {
    if (!opened) return fail_with(opened.error(), true);
    stream_ = std::move(*opened);
    stream_->set_handler(this);
    look();
  }
  // What is new from the near end: bytes, room, its end.
  void look() {
    if (stream_ == nullptr) return;
    send();
    receive();
  }
  // The near end is gone. What it had written is still sent if it ended in order. May destroy this;
  // not from within a callback of the stream.
  void close(bool graceful) {
    if (stream_ == nullptr || !graceful) return cut();
    leaving_ = true;
    kept_ = self();
    linger_ = std::make_unique<Timer>(bridge_.far, [this] {
      bridge_.far.defer([bridge = self()] {
        if (bridge->far_end != nullptr) bridge->far_end->cut();
      });
    });
    linger_->start(kCrossLinger);
    send();
  }
  void cut() {
    if (stream_ != nullptr) stream_->reset();
    stream_.reset();
    const auto kept = std::move(kept_);
    bridge_.far_end.reset();
  }

  void on_connected() override {
    bridge_.carrier = stream_->carrier();
    bridge_.connected.store(true, std::memory_order_release);
    wake_near(self());
    send();
  }
  void on_readable() override { receive(); }
  void on_writable() override { send(); }
  void on_error(const Error& error) override {
    fail_with(error, stream_->nothing_delivered());
    if (leaving_) release();
  }

 private:
  BridgePtr self();
  void release();
  // Not from within its own functions.
  void drop_stream() {
    if (stream_ == nullptr) return;
    stream_->set_handler(nullptr);
    bridge_.far.defer([stream = std::move(stream_)] {});
  }
  void fail_with(const Error& error, bool nothing_delivered) {
    bridge_.error = error;
    bridge_.nothing_delivered = nothing_delivered;
    bridge_.failed.store(true, std::memory_order_release);
    drop_stream();
    wake_near(self());
  }
  void send() {
    Ring& ring = bridge_.up.ring;
    for (auto bytes = ring.readable(); !bytes.empty(); bytes = ring.readable()) {
      const IoResult done = stream_->write(bytes);
      if (done.status != IoResult::kOk) break;
      ring.consume(done.n);
    }
    if (bridge_.up.room_to_tell()) wake_near(self());
    if (!ended_ && bridge_.up.ended.load(std::memory_order_acquire) && ring.size() == 0) {
      ended_ = true;
      stream_->shutdown_write();
    }
    // The end may have been passed on before the near end left: then nothing else comes.
    if (ended_ && leaving_) release();
  }
  void receive() {
    if (bridge_.down.ended.load(std::memory_order_relaxed) || leaving_) return;
    Ring& ring = bridge_.down.ring;
    bool more = false;
    for (;;) {
      auto room = ring.writable();
      if (room.empty()) {
        bridge_.down.blocked.store(true);
        // It may have read everything just before it could see that.
        if (!bridge_.down.room_to_tell()) break;
        continue;
      }
      const IoResult got = stream_->read(room);
      if (got.status == IoResult::kEof) bridge_.down.ended.store(true, std::memory_order_release);
      more |= got.status == IoResult::kOk || got.status == IoResult::kEof;
      if (got.status != IoResult::kOk) break;
      ring.commit(got.n);
    }
    if (more) wake_near(self());
  }

  Bridge& bridge_;
  std::unique_ptr<Stream> stream_;
  bool ended_ = false;
  bool leaving_ = false;  // no near end any more
  std::unique_ptr<Timer> linger_;
  BridgePtr kept_;  // then: nobody else keeps this
};

namespace {

class NearEnd final : public Stream {
 public:
  explicit NearEnd(BridgePtr bridge) : bridge_(std::move(bridge)) { bridge_->near_end = this; }
  ~NearEnd() override {
    if (destroyed_ != nullptr) *destroyed_ = true;
    bridge_->near_end = nullptr;
    const bool graceful = !reset_ && shut_ && eof_;
    bridge_->far.post([bridge = bridge_, graceful] {
      if (bridge->far_end != nullptr) bridge->far_end->close(graceful);
    });
  }

  void set_handler(Handler* handler) override { handler_ = handler; }
  IoResult read(std::span<uint8_t> into) override {
    if (failed_) return {IoResult::kError, ECONNRESET, 0};
    // Before the bytes: after it there are no more.
    const bool ended = bridge_->down.ended.load(std::memory_order_acquire);
    const auto bytes = bridge_->down.ring.readable();
    if (bytes.empty()) {
      eof_ = ended;
      want_readable_ = !ended;
      return ended ? kEof : kWouldBlock;
    }
    const size_t n = std::min(bytes.size(), into.size());
    std::memcpy(into.data(), bytes.data(), n);
    bridge_->down.ring.consume(n);
    if (bridge_->down.room_to_tell()) wake_far(bridge_);
    return {IoResult::kOk, 0, n};
  }
  IoResult write(std::span<const uint8_t> data) override {
    if (failed_ || shut_) return {IoResult::kError, EPIPE, 0};
    size_t taken = 0;
    while (taken < data.size()) {
      const auto room = bridge_->up.ring.writable();
      if (room.empty()) break;
      const size_t n = std::min(room.size(), data.size() - taken);
      std::memcpy(room.data(), data.data() + taken, n);
      bridge_->up.ring.commit(n);
      taken += n;
    }
    if (taken < data.size()) {
      want_writable_ = true;
      bridge_->up.blocked.store(true);
      if (bridge_->up.room_to_tell()) wake_near(bridge_);
    }
    if (taken == 0) return kWouldBlock;
    wake_far(bridge_);
    return {IoResult::kOk, 0, taken};
  }
  void shutdown_write() override {
    if (std::exchange(shut_, true) || failed_) return;
    bridge_->up.ended.store(true, std::memory_order_release);
    wake_far(bridge_);
  }
  void reset() override { reset_ = true; }
  uint8_t carrier() const override { return connected_ ? bridge_->carrier : 0; }
  bool nothing_delivered() const override { return failed_ && bridge_->nothing_delivered; }

  // What is new from the far end.
  void look() {
    bool destroyed = false;
    destroyed_ = &destroyed;
    tell();
    if (!destroyed) destroyed_ = nullptr;
  }

 private:
  void tell() {
    const bool* destroyed = destroyed_;
    if (failed_) return;
    if (!connected_ && bridge_->connected.load(std::memory_order_acquire)) {
      connected_ = true;
      if (handler_ != nullptr) handler_->on_connected();
      if (*destroyed) return;
    }
    const bool failed = bridge_->failed.load(std::memory_order_acquire);
    const bool data =
        bridge_->down.ring.size() > 0 || bridge_->down.ended.load(std::memory_order_acquire);
    if (data && want_readable_) {
      want_readable_ = false;
      if (handler_ != nullptr) handler_->on_readable();
      if (*destroyed) return;
    }
    if (failed) {
      failed_ = true;
      if (handler_ != nullptr) handler_->on_error(*bridge_->error);
      return;
    }
    if (!want_writable_ || bridge_->up.ring.size() == kCrossQueueBytes) return;
    want_writable_ = false;
    if (handler_ != nullptr) handler_->on_writable();
  }

  BridgePtr bridge_;
  Handler* handler_ = nullptr;
  bool* destroyed_ = nullptr;
  bool connected_ = false;
  bool want_readable_ = true;
  bool want_writable_ = false;
  bool failed_ = false;
  bool shut_ = false;
  bool eof_ = false;
  bool reset_ = false;
};

}  // namespace

BridgePtr FarEnd::self() {
  return bridge_.shared_from_this();
}

void FarEnd::release() {
  bridge_.streams->ends_.erase(this);  // close_all() has nothing to cut here any more
  drop_stream();
  bridge_.far.defer([end = std::move(bridge_.far_end)] {});
}

namespace {

void wake_near(const BridgePtr& bridge) {
  if (bridge->near_woken.exchange(true, std::memory_order_acq_rel)) return;
  bridge->near.post([bridge] {
    bridge->near_woken.exchange(false, std::memory_order_acq_rel);  // sees what the waker wrote
    if (bridge->near_end != nullptr) bridge->near_end->look();
  });
}

void wake_far(const BridgePtr& bridge) {
  if (bridge->far_woken.exchange(true, std::memory_order_acq_rel)) return;
  bridge->far.post([bridge] {
    bridge->far_woken.exchange(false, std::memory_order_acq_rel);
    if (bridge->far_end != nullptr) bridge->far_end->look();
  });
}

}  // namespace

CrossStreams::CrossStreams(Loop& far) : far_(far) {}
CrossStreams::~CrossStreams() = default;

std::unique_ptr<Stream> CrossStreams::open(const std::shared_ptr<CrossStreams>& streams, Loop& near,
                                           Open how) {
  auto bridge = std::make_shared<Bridge>(streams, near, streams->far_);
  auto end = std::make_unique<NearEnd>(bridge);
  streams->far_.post([bridge, how = std::move(how)]() mutable {
    bridge->far_end = std::make_unique<FarEnd>(*bridge);
    if (bridge->streams->closed_)
      bridge->far_end->take(fail(ErrorCode::kUnavailable, "it ends"));
    else
      bridge->far_end->take(how());
  });
  return end;
}

void CrossStreams::close_all() {
  closed_ = true;
  while (!ends_.empty()) (*ends_.begin())->cut();
}

}  // namespace edgemesh::io
