// StreamPair: two streams that are each other's far end: what one gives is written to the other, in
// both directions, until both have ended. For connections that are handed over after an upgrade;
// the proxy's data path has a faster pump of its own.
//
// What one side does not take is held (at most kMaxHeld bytes a direction) and nothing more is
// read: back-pressure goes through. Ends of input are passed on one by one. Threads: the loop
// given.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "core/base/function.h"
#include "core/io/loop.h"
#include "core/io/stream.h"

namespace edgemesh::io {

class StreamPair {
 public:
  struct Options {
    Duration idle{};    // nothing moved for so long: both are cut; 0: no limit
    Duration linger{};  // one direction ended and the other does not follow; 0: no limit
  };
  static constexpr size_t kMaxHeld = 64 << 10;
  // Once, from an event of the loop: ok when both directions ended in order. The pair may be
  // destroyed in it; its streams are closed with it.
  using Done = UniqueFunction<void(const Result<>& result)>;

  StreamPair(Loop& loop, std::unique_ptr<Stream> first, std::unique_ptr<Stream> second,
             Options options, Done done);
  ~StreamPair();
  StreamPair(const StreamPair&) = delete;
  StreamPair& operator=(const StreamPair&) = delete;

  uint64_t bytes_moved() const { return bytes_; }

 private:
  struct Side final : Stream::Handler {
    void on_readable() override { pair->move(index); }
    void on_writable() override { pair->move(1 - index); }
    void on_error(const Error& error) override { pair->end(fail(error)); }
    StreamPair* pair = nullptr;
    size_t index = 0;
    std::unique_ptr<Stream> stream;
    // Of the direction that begins here.
    std::string held;
    bool ended = false;
  };

  void move(size_t from);
  // False: nothing more now.
  bool step(Side& from, Side& to);
  void direction_ended(Side& from, Side& to);
  void check_time();
  void end(Result<> result);

  Loop& loop_;
  Options options_;
  Done done_;
  std::array<Side, 2> sides_;
  TimePoint last_moved_;
  Timer timer_;
  uint64_t bytes_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::io
