// One watch of an HTTP client: a chunked stream of events, sent as fast as the client takes them.
#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "cloud/api/store.h"
#include "core/http/server.h"

namespace edgemesh::cloud {

struct WatchParams {
  const ResourceInfo* resource = nullptr;
  Filter filter;
  uint64_t from = 0;            // 0: what exists comes first
  bool initial_events = false;  // end the first part with a marked bookmark
  bool bookmarks = false;
  bool table = false;
  Duration timeout{};
  Duration bookmark_every{};
  size_t max_queue = 0;  // bytes that may wait for the client
};

class HttpWatch {
 public:
  // Fails (kGone, ...) before anything was sent. `on_end` is called once, when the watch is over:
  // it may destroy this.
  static Result<std::unique_ptr<HttpWatch>> start(io::Loop& loop, ApiStore& store,
                                                  WatchParams params,
                                                  std::shared_ptr<http::ResponseWriter> writer,
                                                  std::function<void(HttpWatch*)> on_end);
  ~HttpWatch();
  void finish();  // ends the stream in order

 private:
  HttpWatch(io::Loop& loop, ApiStore& store, WatchParams params,
            std::shared_ptr<http::ResponseWriter> writer, std::function<void(HttpWatch*)> on_end);
  Result<> subscribe();
  void enqueue(kube::EventType type, const ObjectPtr& object);
  void flush();
  void bookmark();
  std::string frame(kube::EventType type, const ObjectPtr& object) const;
  std::string bookmark_frame(bool initial_end) const;

  io::Loop& loop_;
  ApiStore& store_;
  const WatchParams params_;
  std::shared_ptr<http::ResponseWriter> writer_;
  std::function<void(HttpWatch*)> on_end_;
  std::unique_ptr<Subscription> subscription_;
  std::deque<std::pair<kube::EventType, ObjectPtr>> queue_;
  size_t queued_bytes_ = 0;
  size_t initial_left_ = 0;  // events of the first part that are still in the queue
  bool initial_open_ = false;
  uint64_t initial_version_ = 0;
  bool blocked_ = false;
  bool ended_ = false;
  io::Timer timeout_;
  io::Timer bookmark_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
