// CONNECT streams of an H2Session as io::Stream, and their acceptance.
#include <algorithm>
#include <cerrno>

#include "core/http/h1_chars.h"
#include "core/http/h2_core.h"

namespace edgemesh::http {

using io::IoResult;

H2StreamImpl::~H2StreamImpl() {
  state_->handler = nullptr;
  state_->has_user = false;
  if (state_->core != nullptr) state_->core->user_gone(state_, reset_);
}

void H2StreamImpl::set_handler(io::Stream::Handler* handler) {
  state_->handler = handler;
  // Something may have come before there was anyone to tell.
  if (handler != nullptr && state_->core != nullptr) state_->core->wake(state_);
}

IoResult H2StreamImpl::read(std::span<uint8_t> into) {
  H2State& s = *state_;
  if (s.failed) return {IoResult::kError, ECONNRESET, 0};
  size_t n = s.in.read(into);
  if (n > 0) {
    if (s.core != nullptr) s.core->consumed(s, n);
    return {IoResult::kOk, 0, n};
  }
  if (s.eof_received) {
    s.eof_read = true;
    return io::kEof;
  }
  s.want_readable = true;
  return io::kWouldBlock;
}

IoResult H2StreamImpl::write(std::span<const uint8_t> data) {
  H2State& s = *state_;
  if (s.failed || s.shut || s.closed || s.core == nullptr) return {IoResult::kError, EPIPE, 0};
  size_t n = std::min(data.size(), s.core->room(s));
  if (n < data.size()) s.want_writable = true;
  if (n == 0) return io::kWouldBlock;
  s.core->append_out(s, data.first(n));
  return {IoResult::kOk, 0, n};
}

void H2StreamImpl::shutdown_write() {
  H2State& s = *state_;
  if (s.shut || s.failed) return;
  s.shut = true;
  if (s.core != nullptr && !s.closed) s.core->data_ready(s);
}

H2ConnectImpl::~H2ConnectImpl() {
  if (!state_->answered) reject(503, "no answer");
}

std::unique_ptr<io::Stream> H2ConnectImpl::accept(const Headers& extra) {
  H2State& s = *state_;
  if (s.answered || s.closed || s.failed || s.core == nullptr) return nullptr;
  if (!s.core->answer(s, 200, extra, true)) return nullptr;
  s.answered = true;
  s.connected = true;
  return std::make_unique<H2StreamImpl>(state_);
}

void H2ConnectImpl::reject(int status, std::string_view reason) {
  H2State& s = *state_;
  if (s.answered) return;
  s.answered = true;
  s.has_user = false;
  if (s.core == nullptr) return;
  if (!s.closed && !s.failed) {
    Headers extra;
    if (!reason.empty() && all_of_class(reason, kValue)) extra.add("x-edgemesh-reason", reason);
    static_cast<void>(s.core->answer(s, status, extra, false));
  }
  s.core->user_gone(state_, false);
}

}  // namespace edgemesh::http
