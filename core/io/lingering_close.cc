#include "core/io/lingering_close.h"

#include <algorithm>

#include "core/io/loop_impl.h"

namespace edgemesh::io {

namespace {

constexpr size_t kMaxDiscarded = 1 << 20;

class Lingering final : public Stream::Handler {
 public:
  Lingering(Loop& loop, std::unique_ptr<Stream> stream)
      : loop_(loop), stream_(std::move(stream)), timer_(loop, [this] { finish(); }) {}

  void start(Duration limit) {
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
  void on_error(const Error&) override { finish(); }

 private:
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
