// LogStream: a container's log as the answer to a request: read on the loop's pool, written as fast
// as the client takes it, and, when it is to be followed, until the container has ended.
// Threads: the loop given.
#pragma once

#include <memory>
#include <string>

#include "agent/streams/log_file.h"
#include "core/base/function.h"
#include "core/http/server.h"
#include "core/io/loop.h"

namespace edgemesh::streams {

class LogStream {
 public:
  struct Options {
    LogOptions log;
    bool follow = false;
    Duration poll = std::chrono::milliseconds(100);  // between looks at a log that is followed
    Duration ask = std::chrono::seconds(1);  // after which a silent container is asked after
  };
  // Whether the container still runs; answers once, in a later turn.
  using Runs = UniqueFunction<void(UniqueFunction<void(bool)>)>;
  using Failure = UniqueFunction<http::Response(const Error&)>;

  // `done` runs once, in a later turn: the LogStream may be destroyed in it. `failure` makes the
  // answer when the log cannot be opened.
  static std::unique_ptr<LogStream> start(io::Loop& loop, std::string path, Options options,
                                          std::shared_ptr<http::ResponseWriter> writer, Runs runs,
                                          Failure failure, UniqueFunction<void()> done);
  virtual ~LogStream() = default;
};

}  // namespace edgemesh::streams
