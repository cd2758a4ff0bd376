// Informer: keeps a copy of the objects of one resource: list in pages, watch, list again when the
// history is gone, back-off with jitter when the server cannot be reached. The handlers see each
// change once; after a relist what vanished meanwhile is reported as deleted. Threads: the loop
// given. Handlers may call cache functions and may destroy the informer.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/function.h"
#include "core/io/loop.h"
#include "kube/client.h"

namespace edgemesh::kube {

class Informer {
 public:
  struct Object {
    std::string ns, name, resource_version;
    std::string json;  // empty when Options::keep_json is off (handlers still get it)
  };
  struct Options {
    ResourceType type;
    std::string ns;  // empty: all
    std::string label_selector;
    std::string field_selector;
    bool keep_json = true;
    int64_t page_size = 500;
    Duration backoff_min = std::chrono::milliseconds(200);
    Duration backoff_max = std::chrono::seconds(30);
    Duration watch_timeout = std::chrono::minutes(5);
  };
  struct Handlers {
    UniqueFunction<void(const Object&)> on_upsert;
    UniqueFunction<void(const Object&)>
        on_delete;  // resource_version: of the deletion, where known
    // The list is complete (the first time, and after each relist).
    UniqueFunction<void()> on_synced;
    UniqueFunction<void(const Error&)> on_error;  // it is retried; for logs and health
  };

  Informer(io::Loop& loop, Client& client, Options options, Handlers handlers);
  ~Informer();
  Informer(const Informer&) = delete;
  Informer& operator=(const Informer&) = delete;

  void start();
  bool synced() const;
  // The version up to which everything was seen.
  const std::string& resource_version() const;
  // By "ns/name" (or "name").
  const std::map<std::string, Object, std::less<>>& objects() const;
  const Object* find(std::string_view ns, std::string_view name) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace edgemesh::kube
