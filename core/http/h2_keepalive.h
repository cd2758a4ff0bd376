// H2Keepalive: pings a session, and tells when an answer stays away: the path to the peer is dead,
// though nobody said so. Threads: the session's.
#pragma once

#include <memory>
#include <utility>

#include "core/base/function.h"
#include "core/http/h2.h"
#include "core/io/loop.h"

namespace edgemesh::http {

class H2Keepalive {
 public:
  // `session` outlives this, or ends at the same time. `on_dead` may destroy both.
  H2Keepalive(io::Loop& loop, H2Session& session, Duration every, Duration limit,
              UniqueFunction<void()> on_dead)
      : session_(session),
        limit_(limit),
        on_dead_(std::move(on_dead)),
        next_(loop, [this] { ping(); }),
        deadline_(loop, [this] { on_dead_(); }) {
    next_.start_repeating(every);
  }
  ~H2Keepalive() { *alive_ = false; }
  H2Keepalive(const H2Keepalive&) = delete;
  H2Keepalive& operator=(const H2Keepalive&) = delete;

 private:
  void ping() {
    if (deadline_.active()) return;
    deadline_.start(limit_);
    session_.ping([this, alive = alive_](const Result<Duration>& answered) {
      if (*alive && answered) deadline_.stop();
    });
  }

  H2Session& session_;
  Duration limit_;
  UniqueFunction<void()> on_dead_;
  io::Timer next_;
  io::Timer deadline_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::http
