// RemoteKeys: key sets that JWT providers publish at a URL, fetched through their clusters and kept by
// one worker. A set that cannot be had is asked for again at the next request after kRetryAfter; until
// then tokens of that provider are refused. A set that grows old is used on while a new one is being
// fetched and for as long as none can be had.
// Threads: the worker's loop.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "proxy/exchange/sub_request.h"
#include "proxy/route/jwt.h"
#include "proxy/upstream/list.h"

namespace edgemesh::proxy {

class L7Worker;
class RemoteKeys;

// One that waits for a set to come, or to turn out not to.
class KeyWait : public ListNode<KeyWait> {
 public:
  // `done` runs once, later, unless this is cancelled or destroyed.
  void wait(RemoteKeys& keys, const model::JwtProvider& provider, io::Task done);
  void cancel() {
    unlink();
    done_ = nullptr;
  }

 private:
  friend class RemoteKeys;
  io::Task done_;
};

class RemoteKeys {
 public:
  explicit RemoteKeys(L7Worker& worker) : worker_(worker) {}
  static constexpr Duration kRetryAfter = std::chrono::seconds(1);
  static constexpr size_t kMaxSets = 1000;

  // Null: not known yet: wait. Empty: it cannot be had now.
  const KeySet* find(const model::JwtProvider& provider);
  // Fetches are dropped. Nobody may be waiting.
  void clear() { entries_.clear(); }

 private:
  friend class KeyWait;
  struct Entry {
    KeySet keys;
    bool known = false;
    TimePoint until{};
    std::unique_ptr<SubRequest> fetch;
    List<KeyWait> waiting;
  };
  static std::string key_of(const model::JwtProvider& provider);
  void fetch(Entry& entry, const model::JwtProvider& provider);
  void on_answer(Entry& entry, Duration refresh, Result<SubAnswer> answer);

  L7Worker& worker_;
  std::map<std::string, std::unique_ptr<Entry>> entries_;
};

}  // namespace edgemesh::proxy
