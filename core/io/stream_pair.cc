#include "core/io/stream_pair.h"

#include <algorithm>

namespace edgemesh::io {
namespace {

// One direction moves so much before others on the loop have their turn.
constexpr int kStepsATurn = 16;
constexpr Duration kNone = Duration::zero();

}  // namespace

StreamPair::StreamPair(Loop& loop, std::unique_ptr<Stream> first, std::unique_ptr<Stream> second,
                       Options options, Done done)
    : loop_(loop),
      options_(options),
      done_(std::move(done)),
      last_moved_(loop.now()),
      timer_(loop, [this] { check_time(); }) {
  sides_[0].stream = std::move(first);
  sides_[1].stream = std::move(second);
  for (size_t i = 0; i < sides_.size(); ++i) {
    sides_[i].pair = this;
    sides_[i].index = i;
    sides_[i].stream->set_handler(&sides_[i]);
  }
  loop_.defer([this, alive = alive_] {
    if (*alive) move(0);
    if (*alive) move(1);
  });
  if (options_.idle > kNone) timer_.start(options_.idle);
}

StreamPair::~StreamPair() {
  *alive_ = false;
}

void StreamPair::move(size_t from) {
  Side& source = sides_[from];
  if (source.ended || !done_) return;
  const auto alive = alive_;
  for (int i = 0; i < kStepsATurn; ++i) {
    if (!step(source, sides_[1 - from]) || !*alive) return;
  }
  loop_.post([this, alive, from] {
    if (*alive) move(from);
  });
}

bool StreamPair::step(Side& from, Side& to) {
  while (!from.held.empty()) {
    const IoResult written = to.stream->write(as_bytes(from.held));
    if (written.status != IoResult::kOk) return false;
    from.held.erase(0, written.n);
    last_moved_ = loop_.now();
  }
  const IoResult got = from.stream->read({loop_.scratch(), kMaxHeld});
  if (got.status == IoResult::kEof) {
    direction_ended(from, to);
    return false;
  }
  if (got.status != IoResult::kOk) return false;  // an error is told by on_error
  bytes_ += got.n;
  last_moved_ = loop_.now();
  std::span<const uint8_t> data(loop_.scratch(), got.n);
  const IoResult written = to.stream->write(data);
  if (written.status == IoResult::kOk) data = data.subspan(written.n);
  from.held.assign(as_text(data));
  return written.status != IoResult::kError;
}

void StreamPair::direction_ended(Side& from, Side& to) {
  from.ended = true;
  to.stream->shutdown_write();
  if (to.ended) return end({});
  if (options_.linger > kNone) timer_.start(options_.linger);
}

void StreamPair::check_time() {
  const bool half = sides_[0].ended || sides_[1].ended;
  if (half && options_.linger > kNone)
    return end(fail(ErrorCode::kTimeout, "one side ended and the other did not"));
  const Duration quiet = loop_.now() - last_moved_;
  if (quiet >= options_.idle) return end(fail(ErrorCode::kTimeout, "idle for too long"));
  timer_.start(options_.idle - quiet);
}

void StreamPair::end(Result<> result) {
  if (!done_) return;
  timer_.stop();
  if (!result)
    for (Side& side : sides_) side.stream->reset();
  const Done done = std::move(done_);
  done_ = nullptr;
  done(result);
}

}  // namespace edgemesh::io
