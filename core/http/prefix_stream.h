// A stream whose first input was read already (after an upgrade), and whose first output may still
// wait. Passes everything else through. For core/http only.
#pragma once

#include <memory>
#include <string>

#include "core/io/loop.h"
#include "core/io/stream.h"

namespace edgemesh::http {

class PrefixStream final : public io::Stream, private io::Stream::Handler {
 public:
  // `input` is given to the reader before what the stream has; `output` is written before anything
  // else. on_readable() comes in a deferred task, so that an input seen earlier is not waited for.
  PrefixStream(io::Loop& loop, std::unique_ptr<io::Stream> below, std::string input,
               std::string output);
  ~PrefixStream() override;

  void set_handler(io::Stream::Handler* handler) override { handler_ = handler; }
  io::IoResult read(std::span<uint8_t> into) override;
  io::IoResult write(std::span<const uint8_t> data) override;
  void shutdown_write() override;
  void reset() override { below_->reset(); }

 private:
  void on_readable() override;
  void on_writable() override;
  void on_error(const Error& error) override;
  bool flush();

  std::unique_ptr<io::Stream> below_;
  io::Stream::Handler* handler_ = nullptr;
  std::string input_;
  std::string output_;
  size_t input_at_ = 0;
  bool shut_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::http
