// A stream that another loop's thread carries: what is at hand here is a pair of byte queues, and
// the real stream lives, is opened and is closed on the other loop. For what belongs to one loop (a
// tunnel) and is needed on others.
//
// The queues are single-producer, single-consumer rings (no lock); a loop is woken once until it
// has looked. A full queue pushes back like a socket's buffer, so memory is bounded: 64 KiB each
// way. Contract of io::Stream, but that nothing_delivered() is known only after on_error(), and
// datagrams() is null. Both loops outlive the stream. One that ended in order before its peer took
// everything lives on over there, for kCrossLinger at most: close_all() ends them before who made
// the real ones goes.
#pragma once

#include <memory>
#include <set>

#include "core/base/function.h"
#include "core/base/result.h"
#include "core/io/loop.h"
#include "core/io/stream.h"

namespace edgemesh::io {

class FarEnd;

inline constexpr size_t kCrossQueueBytes = 64 * 1024;
inline constexpr Duration kCrossLinger = std::chrono::seconds(30);

// The real streams on one loop. Threads: that loop's, but open(), and the destructor once nothing
// is left.
class CrossStreams {
 public:
  explicit CrossStreams(Loop& far);
  ~CrossStreams();
  CrossStreams(const CrossStreams&) = delete;
  CrossStreams& operator=(const CrossStreams&) = delete;

  // On `near`'s thread. `how` runs on the streams' loop; its failure is on_error() here.
  using Open = UniqueFunction<Result<std::unique_ptr<Stream>>()>;
  static std::unique_ptr<Stream> open(const std::shared_ptr<CrossStreams>& streams, Loop& near,
                                      Open how);
  // Cuts what there is, at once. New ones fail from now on.
  void close_all();
  size_t size() const { return ends_.size(); }

  struct Bridge;  // private to the implementation

 private:
  friend class FarEnd;
  Loop& far_;
  std::set<FarEnd*> ends_;
  bool closed_ = false;
};

}  // namespace edgemesh::io
