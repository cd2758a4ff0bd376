#include "core/http/prefix_stream.h"

#include <algorithm>

namespace edgemesh::http {

using io::IoResult;

PrefixStream::PrefixStream(io::Loop& loop, std::unique_ptr<io::Stream> below, std::string input,
                           std::string output)
    : below_(std::move(below)), input_(std::move(input)), output_(std::move(output)) {
  below_->set_handler(this);
  loop.defer([this, alive = alive_] {
    if (*alive) on_readable();
  });
}

PrefixStream::~PrefixStream() {
  *alive_ = false;
}

IoResult PrefixStream::read(std::span<uint8_t> into) {
  if (input_at_ == input_.size()) return below_->read(into);
  size_t n = std::min(into.size(), input_.size() - input_at_);
  std::copy_n(input_.data() + input_at_, n, into.data());
  input_at_ += n;
  if (input_at_ == input_.size()) {
    std::string().swap(input_);
    input_at_ = 0;
  }
  return {IoResult::kOk, 0, n};
}

bool PrefixStream::flush() {
  while (!output_.empty()) {
    IoResult r = below_->write(io::as_bytes(output_));
    if (r.status != IoResult::kOk) return false;
    output_.erase(0, r.n);
  }
  if (shut_) below_->shutdown_write();
  return true;
}

IoResult PrefixStream::write(std::span<const uint8_t> data) {
  if (!output_.empty() && !flush()) return io::kWouldBlock;
  return below_->write(data);
}

void PrefixStream::shutdown_write() {
  shut_ = true;
  flush();
}

void PrefixStream::on_readable() {
  if (handler_ != nullptr) handler_->on_readable();
}

void PrefixStream::on_writable() {
  if (flush() && !shut_ && handler_ != nullptr) handler_->on_writable();
}

void PrefixStream::on_error(const Error& error) {
  if (handler_ != nullptr) handler_->on_error(error);
}

}  // namespace edgemesh::http
