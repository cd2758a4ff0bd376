#include "p2p/peer_stream.h"

#include <algorithm>
#include <cerrno>

namespace edgemesh::p2p {

PeerStream::~PeerStream() {
  *alive_ = false;
  leave_list();
}

void PeerStream::leave_list() {
  if (list_ != nullptr) list_->remove(this);
  list_ = nullptr;
  timer_.reset();
}

void PeerStream::wait(WaitingList* list, Duration limit) {
  list_ = list;
  timer_ = std::make_unique<io::Timer>(loop_, [this] {
    fail({ErrorCode::kTimeout, "no path to the node was found in time", 0});
  });
  timer_->start(limit);
}

void PeerStream::bind(std::unique_ptr<io::Stream> below, PathKind kind) {
  list_ = nullptr;  // the list takes us out itself
  timer_.reset();
  below_ = std::move(below);
  kind_ = kind;
  below_->set_handler(this);
  push_early();
  if (!early_.empty() || !want_writable_) return;
  // All of it fitted below: the user, who was told to wait, may go on.
  loop_.defer([this, alive = alive_] {
    if (*alive && !failed_) on_writable();
  });
}

void PeerStream::push_early() {
  while (!early_.empty()) {
    auto r = below_->write(io::as_bytes(early_));
    if (r.status != io::IoResult::kOk) return;
    early_.erase(0, r.n);
  }
  early_.shrink_to_fit();
  if (shut_) below_->shutdown_write();
}

void PeerStream::fail(Error error) {
  if (failed_) return;
  failed_ = true;
  if (list_ != nullptr) list_->remove(this);
  list_ = nullptr;
  // The timer may be what is running: it goes with the rest.
  loop_.defer([this, alive = alive_, e = error.with_context("node " + node_)] {
    if (*alive && handler_ != nullptr) handler_->on_error(e);
  });
}

io::IoResult PeerStream::read(std::span<uint8_t> into) {
  if (failed_) return {io::IoResult::kError, ECONNRESET, 0};
  return below_ == nullptr ? io::kWouldBlock : below_->read(into);
}

io::IoResult PeerStream::write(std::span<const uint8_t> data) {
  if (failed_ || shut_) return {io::IoResult::kError, EPIPE, 0};
  if (below_ != nullptr && early_.empty()) return below_->write(data);
  size_t n = std::min(data.size(), kMaxEarlyBytes - std::min(kMaxEarlyBytes, early_.size()));
  if (n < data.size()) want_writable_ = true;
  if (n == 0) return io::kWouldBlock;
  early_.append(io::as_text(data.first(n)));
  return {io::IoResult::kOk, 0, n};
}

void PeerStream::shutdown_write() {
  if (shut_) return;
  shut_ = true;
  if (below_ != nullptr && early_.empty()) below_->shutdown_write();
}

void PeerStream::reset() {
  if (below_ != nullptr) below_->reset();
}

void PeerStream::on_connected() {
  if (handler_ != nullptr) handler_->on_connected();
}

void PeerStream::on_readable() {
  if (handler_ != nullptr) handler_->on_readable();
}

void PeerStream::on_writable() {
  if (!early_.empty()) {
    push_early();
    if (!early_.empty() || !want_writable_) return;
  }
  want_writable_ = false;
  if (handler_ != nullptr) handler_->on_writable();
}

void PeerStream::on_error(const Error& error) {
  failed_ = true;
  Error e = error.with_context(fmt::format("node {}, {}", node_, to_string(kind_)));
  if (handler_ != nullptr) handler_->on_error(e);
}

}  // namespace edgemesh::p2p
