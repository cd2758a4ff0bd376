#include "core/io/lingering_close.h"

#include <algorithm>

#include "core/io/loop_impl.h"

namespace edgemesh::io {

namespace {

constexpr size_t kMaxDiscarded = 1 << 20;
constexpr int kMaxRounds = 30;  // for a stream that still has something of its own to write

class Lingering final : public Stream::Handler {
 public:
  Lingering(Loop& loop, std::unique_ptr<Stream> stream)
      : loop_(loop), stream_(std::move(stream)), timer_(loop, [this] { time_up(); }) {}
  // Also when the loop ends, with the process perhaps.
  ~Lingering() override {
    if (!failed_) stream_->close_both();
  }

  void start(Duration limit) {
    limit_ = limit;
    stream_->set_handler(this);
    stream_->shutdown_write();
    timer_.start(limit);
    // The input may have ended, or hold data already: the stream tells that only when asked.
    loop_.defer([this, alive = std::weak_ptr<bool>(alive_)] {
      if (!alive.expired()) on_readable();
    });
  }

  void on_readable() override {
    while (true) {
      IoResult got = stream_->read({loop_.scratch(), Loop::kScratchBytes});
      if (got.status == IoResult::kWouldBlock) return;
      discarded_ += got.n;
      if (got.status != IoResult::kOk || discarded_ > kMaxDiscarded) return finish();
    }
  }
  void on_writable() override {}
  void on_error(const Error&) override {
    failed_ = true;
    finish();
  }

 private:
  // A peer behind a slow line may not have everything by now. The system goes on sending after the
  // close; a reset, which is how a stream ends that has not seen the peer's end, would throw it away.
  void time_up() {
    if (!stream_->close_both() && ++rounds_ < kMaxRounds) return timer_.start(limit_);
    finish();
  }

  void finish() {
    auto& kept = loop_.impl().kept;
    auto it =
        std::find_if(kept.begin(), kept.end(), [this](const auto& p) { return p.get() == this; });
    if (it == kept.end()) return;
    std::shared_ptr<void> self = std::move(*it);
    *it = std::move(kept.back());
    kept.pop_back();
    loop_.defer([self] {});  // not within the timer's or the stream's own callback
    timer_.stop();
    stream_->set_handler(nullptr);
  }

  Loop& loop_;
  std::unique_ptr<Stream> stream_;
  Timer timer_;
  size_t discarded_ = 0;
  Duration limit_{};
  int rounds_ = 0;
  bool failed_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

void lingering_close(Loop& loop, std::unique_ptr<Stream> stream, Duration limit) {
  if (!stream) return;
  auto lingering = std::make_shared<Lingering>(loop, std::move(stream));
  loop.impl().kept.push_back(lingering);
  lingering->start(limit);
}

}  // namespace edgemesh::io
