// Registry: Kubernetes Services and EndpointSlices in, snapshots out.
//
// Endpoints are chosen as kube-proxy does: ready ones; when a service has none, those that still serve
// while they terminate. Slices may come before their service and are kept for it.
// Of the objects only what the snapshot needs is kept, in compact form: the service inside of its
// entry, the slices as addresses and flags.
// Threads: main loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/io/loop.h"
#include "discovery/snapshot.h"
#include "discovery/text.h"
#include "kube/objects.h"

namespace edgemesh::discovery {

// Annotation of a Service: round_robin (default), random, least_request.
inline constexpr const char* kLbAnnotation = "edgemesh.io/lb";

class Registry {
 public:
  explicit Registry(io::Loop& loop);
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  void upsert_service(const kube::Service& service);
  void remove_service(const std::string& ns, const std::string& name);
  void upsert_slice(const kube::EndpointSlice& slice);
  void remove_slice(const std::string& ns, const std::string& name);

  // With all changes so far.
  std::shared_ptr<const Snapshot> snapshot();
  // Called once a turn of the loop in which something changed.
  void subscribe(std::function<void(std::shared_ptr<const Snapshot>)> on_change);

 private:
  struct Slice;
  struct Record;  // one service name: the service, its slices, the entry made of them

  void changed(Record& record);
  void rebuild(Record& record);
  Record& record(const std::string& ns, const std::string& name);
  std::unique_ptr<Slice> compact(const kube::EndpointSlice& slice);
  void count_namespace(const std::string& ns, int by);
  Snapshot::Shard& writable(size_t shard);
  void insert(const Snapshot::EntryPtr& entry);
  void remove(const Snapshot::EntryPtr& entry);
  void publish();

  io::Loop& loop_;
  // Keys are "<namespace>/<name>".
  std::unordered_map<std::string, std::unique_ptr<Record>> records_;
  std::unordered_map<std::string, Record*> slice_record_;  // of the service that the slice belongs to
  TextPool texts_;
  std::vector<Record*> dirty_;
  std::map<std::string, int> namespaces_;
  bool namespaces_changed_ = false;
  bool publish_waits_ = false;
  uint64_t epoch_ = 1;
  uint64_t next_id_ = 1;
  Snapshot next_;  // shards of this epoch are writable, the others shared
  std::shared_ptr<const Snapshot> current_;
  std::vector<std::function<void(std::shared_ptr<const Snapshot>)>> subscribers_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::discovery
