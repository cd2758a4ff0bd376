// PrefixedStream: a stream of which something was read already: those bytes come first, then the
// stream's own. Threads: those of the stream.
#pragma once

#include <algorithm>
#include <memory>
#include <string>

#include "core/io/stream.h"

namespace edgemesh::proxy {

class PrefixedStream final : public io::Stream {
 public:
  PrefixedStream(std::unique_ptr<io::Stream> below, std::string prefix)
      : below_(std::move(below)), prefix_(std::move(prefix)) {}

  void set_handler(Handler* handler) override { below_->set_handler(handler); }
  io::IoResult read(std::span<uint8_t> into) override {
    if (at_ == prefix_.size()) return below_->read(into);
    const size_t n = std::min(into.size(), prefix_.size() - at_);
    std::copy_n(prefix_.begin() + static_cast<std::ptrdiff_t>(at_), n, into.begin());
    at_ += n;
    if (at_ == prefix_.size()) {
      at_ = 0;
      std::string().swap(prefix_);
    }
    return {io::IoResult::kOk, 0, n};
  }
  io::IoResult write(std::span<const uint8_t> data) override { return below_->write(data); }
  io::IoResult write_before_end(std::span<const uint8_t> data) override {
    return below_->write_before_end(data);
  }
  bool close_both() override { return below_->close_both(); }
  void shutdown_write() override { below_->shutdown_write(); }
  void reset() override { below_->reset(); }
  int splice_fd() const override { return prefix_.empty() ? below_->splice_fd() : -1; }

 private:
  std::unique_ptr<io::Stream> below_;
  std::string prefix_;
  size_t at_ = 0;  // of prefix_: what was given out
};

}  // namespace edgemesh::proxy
