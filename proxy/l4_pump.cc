#include "proxy/l4_pump.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/obs/metrics.h"

#include "proxy/telemetry/response_flags.h"

namespace edgemesh::proxy {

namespace {
constexpr size_t kTurnBytes = 4 << 20;      // one direction moves at most this much in a turn
constexpr size_t kLargeRead = 64 * 1024;    // a read of this size hints at bulk
constexpr uint8_t kLargeReadsToSplice = 3;  // so many in a row make it bulk
constexpr size_t kSmallRun = 16 * 1024;     // a spliced run below this hints at messages
constexpr uint8_t kSmallRunsToCopy = 4;
constexpr uint32_t kMaxRead = io::Loop::kScratchBytes;
constexpr uint32_t kMinRead = 64 * 1024;
}  // namespace

std::string_view to_string(EndReason reason) {
  switch (reason) {
    case EndReason::kClosed: return "closed";
    case EndReason::kClientReset: return "client_reset";
    case EndReason::kUpstreamReset: return "upstream_reset";
    case EndReason::kIdle: return "idle";
    case EndReason::kNoService: return "no_service";
    case EndReason::kNoEndpoint: return "no_endpoint";
    case EndReason::kConnectFailed: return "connect_failed";
    case EndReason::kConnectTimeout: return "connect_timeout";
    case EndReason::kNoTunnel: return "no_tunnel";
    case EndReason::kRefused: return "refused";
    case EndReason::kTooMany: return "too_many";
    case EndReason::kShutdown: return "shutdown";
  }
  return "?";
}

uint32_t flags_of_end(EndReason reason) {
  switch (reason) {
    case EndReason::kNoService: return flag::kNoRoute;
    case EndReason::kNoEndpoint: return flag::kNoHealthyUpstream;
    case EndReason::kConnectFailed:
    case EndReason::kConnectTimeout:
    case EndReason::kNoTunnel: return flag::kUpstreamConnect;
    case EndReason::kTooMany: return flag::kUpstreamOverflow;
    case EndReason::kUpstreamReset: return flag::kUpstreamTermination;
    case EndReason::kClientReset: return flag::kDownstreamTermination;
    case EndReason::kIdle: return flag::kStreamIdle;
    default: return 0;
  }
}

std::string_view in_words(EndReason reason) {
  switch (reason) {
    case EndReason::kClosed: return "closed by both sides";
    case EndReason::kClientReset: return "the client broke the connection off";
    case EndReason::kUpstreamReset: return "the endpoint broke the connection off";
    case EndReason::kIdle: return "idle for too long";
    case EndReason::kNoService: return "no such service";
    case EndReason::kNoEndpoint: return "the service has no ready endpoint";
    case EndReason::kConnectFailed: return "no endpoint could be reached";
    case EndReason::kConnectTimeout: return "no endpoint answered in time";
    case EndReason::kNoTunnel:
      return "the endpoint is on another node and there is no tunnel to it";
    case EndReason::kRefused: return "the target is no endpoint of this node";
    case EndReason::kTooMany: return "too many connections";
    case EndReason::kShutdown: return "the agent is stopping";
  }
  return "?";
}

void PumpContext::yield(Pump* pump) {
  if (pump->yielded_) return;
  pump->yielded_ = true;
  yielded_.push_back(pump);
  if (!yield_timer.active()) yield_timer.start(Duration::zero());
}

void PumpContext::forget(Pump* pump) {
  if (pump->yielded_)
    std::replace(yielded_.begin(), yielded_.end(), pump, static_cast<Pump*>(nullptr));
}

void PumpContext::run_yielded() {
  size_t count = yielded_.size();  // those that yield again wait for the next turn
  for (size_t i = 0; i < count; ++i) {
    Pump* pump = std::exchange(yielded_[i], nullptr);
    if (pump == nullptr) continue;
    pump->yielded_ = false;
    if (pump->run_up()) pump->run_down();
  }
  yielded_.erase(yielded_.begin(), yielded_.begin() + static_cast<ptrdiff_t>(count));
  if (!yielded_.empty()) yield_timer.start(Duration::zero());
}

Pump::~Pump() {
  context_.forget(this);
  for (Direction* d : {&up_, &down_}) {
    context_.buffers.give(std::move(d->pending));
    context_.pipes.give(std::move(d->pipe));
  }
}

void Pump::set_client(std::unique_ptr<io::Stream> client) {
  client_ = std::move(client);
  client_socket_ = dynamic_cast<io::TcpStream*>(client_.get());
  client_->set_handler(&client_side_);
}

void Pump::set_upstream(std::unique_ptr<io::Stream> upstream) {
  upstream_ = std::move(upstream);
  upstream_socket_ = dynamic_cast<io::TcpStream*>(upstream_.get());
  upstream_->set_handler(&upstream_side_);
}

void Pump::drop_upstream() {
  upstream_.reset();
  upstream_socket_ = nullptr;
}

bool Pump::start_pump(std::unique_ptr<Buffer> early, bool upstream_is_silent) {
  pumping_ = true;
  if (early && early->size() > 0)
    up_.pending = std::move(early);
  else
    context_.buffers.give(std::move(early));
  return run_up() && (upstream_is_silent || run_down());
}

void Pump::ClientSide::on_readable() {
  if (pump.pumping_)
    pump.run_up();
  else
    pump.on_client_readable_early();
}
void Pump::ClientSide::on_writable() {
  if (pump.pumping_) pump.run_down();
}
void Pump::ClientSide::on_error(const Error& error) {
  pump.on_pump_end(EndReason::kClientReset, &error);
}
void Pump::UpstreamSide::on_connected() {
  if (!pump.pumping_) pump.on_upstream_connected();
}
void Pump::UpstreamSide::on_readable() {
  if (pump.pumping_) pump.run_down();
}
void Pump::UpstreamSide::on_writable() {
  if (pump.pumping_) pump.run_up();
}
void Pump::UpstreamSide::on_error(const Error& error) {
  if (pump.pumping_)
    pump.on_pump_end(EndReason::kUpstreamReset, &error);
  else
    pump.on_upstream_failed_early(error);
}

void Pump::count(const Direction& d, uint64_t before) {
  obs::Counter* counter = &d == &up_ ? context_.bytes_to_upstream : context_.bytes_to_client;
  if (counter != nullptr && d.bytes != before) counter->add(d.bytes - before);
}

void Pump::count_to_upstream(size_t n) {
  uint64_t before = up_.bytes;
  up_.bytes += n;
  count(up_, before);
}

bool Pump::run(Direction& d, io::Stream& from, io::Stream& to) {
  if (d.ended) return true;
  last_active_ = context_.loop.now();
  size_t moved = 0;
  uint64_t before = d.bytes;
  for (;;) {
    Step step = d.spliced ? splice_step(d, from, to, moved) : copy_step(d, from, to, moved);
    if (step == Step::kGone) return false;
    if (step == Step::kBlocked) break;
    if (step == Step::kEof) {
      d.ended = true;
      to.shutdown_write();
      if (!up_.ended || !down_.ended) break;
      count(d, before);
      on_pump_end(EndReason::kClosed, nullptr);
      return false;
    }
    if (moved >= kTurnBytes) {
      context_.yield(this);
      break;
    }
  }
  count(d, before);
  if (d.spliced) {
    d.small_runs = moved < kSmallRun ? static_cast<uint8_t>(d.small_runs + 1) : uint8_t{0};
    if (d.small_runs >= kSmallRunsToCopy && !d.pipe) {
      d.spliced = false;
      d.small_runs = d.large_reads = 0;
    }
  }
  return true;
}

Pump::Step Pump::flush_pending(Direction& d, io::Stream& to) {
  Buffer& buffer = *d.pending;
  auto written = to.write({buffer.data.get() + buffer.begin, buffer.size()});
  if (written.status != io::IoResult::kOk)
    return Step::kBlocked;  // on_writable or on_error follows
  d.bytes += written.n;
  buffer.begin += static_cast<uint32_t>(written.n);
  if (buffer.size() > 0) return Step::kBlocked;
  context_.buffers.give(std::move(d.pending));
  return Step::kAgain;
}

Pump::Step Pump::copy_step(Direction& d, io::Stream& from, io::Stream& to, size_t& moved) {
  if (d.pending) return flush_pending(d, to);
  uint8_t* scratch = context_.loop.scratch();
  auto got = from.read({scratch, d.read_size});
  if (got.status == io::IoResult::kEof) return Step::kEof;
  if (got.status != io::IoResult::kOk) return Step::kBlocked;
  io::TcpStream* source = socket(from);
  io::TcpStream* sink = socket(to);
  bool last = source != nullptr && sink != nullptr && source->eof_is_next();
  auto written = last ? sink->write_before_end({scratch, got.n}) : to.write({scratch, got.n});
  size_t taken = written.status == io::IoResult::kOk ? written.n : 0;
  d.bytes += taken;
  moved += got.n;
  note_read(d, got.n, taken == got.n, from, to);
  if (taken == got.n) return Step::kAgain;
  if (written.status == io::IoResult::kError) return Step::kBlocked;  // on_error follows
  d.pending = context_.buffers.take(got.n - taken);
  d.pending->end = static_cast<uint32_t>(got.n - taken);
  std::memcpy(d.pending->data.get(), scratch + taken, got.n - taken);
  return Step::kBlocked;
}

void Pump::note_read(Direction& d, size_t got, bool all_written, const io::Stream& from,
                     const io::Stream& to) {
  if (got < kLargeRead) {
    d.large_reads = 0;
    if (got < d.read_size / 4) d.read_size = kMinRead;
    return;
  }
  // A receiver that lags behind must not make us hold large buffers.
  d.read_size = all_written ? std::min(d.read_size * 2, kMaxRead) : kMinRead;
  if (++d.large_reads < kLargeReadsToSplice) return;
  d.large_reads = 0;
  d.spliced = socket(from) != nullptr && socket(to) != nullptr && from.splice_fd() >= 0 &&
              to.splice_fd() >= 0;
}

Pump::Step Pump::broken(const io::Stream& side, const char* what, int err) {
  Error error = Error::from_errno(what, err);
  on_pump_end(&side == client_.get() ? EndReason::kClientReset : EndReason::kUpstreamReset, &error);
  return Step::kGone;
}

Pump::Step Pump::splice_step(Direction& d, io::Stream& from, io::Stream& to, size_t& moved) {
  if (d.pending) return flush_pending(d, to);
  io::TcpStream& source = *socket(from);  // only sockets are promoted (note_read)
  io::TcpStream& sink = *socket(to);
  constexpr unsigned kFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
  if (from.splice_fd() < 0 || to.splice_fd() < 0) return Step::kBlocked;  // on_error follows

  if (d.pipe && d.pipe->held > 0) {
    ssize_t n =
        splice(d.pipe->read_end.get(), nullptr, to.splice_fd(), nullptr, d.pipe->held, kFlags);
    if (n > 0) {
      d.pipe->held -= static_cast<size_t>(n);
      d.bytes += static_cast<uint64_t>(n);
      return Step::kAgain;
    }
    if (n == 0 || errno == EAGAIN || errno == EINTR) {
      sink.want_writable();
      return Step::kBlocked;
    }
    return broken(to, "write", errno);
  }

  if (!d.pipe) d.pipe = context_.pipes.take();
  if (!d.pipe) {
    d.spliced = false;
    return Step::kAgain;
  }
  ssize_t n =
      splice(from.splice_fd(), nullptr, d.pipe->write_end.get(), nullptr, d.pipe->capacity, kFlags);
  if (n > 0) {
    d.pipe->held = static_cast<size_t>(n);
    moved += static_cast<size_t>(n);
    return Step::kAgain;
  }
  int err = n == 0 ? 0 : errno;
  context_.pipes.give(std::move(d.pipe));
  if (n == 0) {
    source.note_read_eof();
    return Step::kEof;
  }
  if (err == EAGAIN || err == EINTR) {
    source.want_readable();
    return Step::kBlocked;
  }
  return broken(from, "read", err);
}

}  // namespace edgemesh::proxy
