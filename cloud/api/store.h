// ApiStore: Kubernetes objects in SQLite, with a copy in memory that lists and watches are served
// from.
//
// - One rising version for all writes (metadata.resourceVersion). A write is validated against the
//   newest state (writes on their way included), handed to the store thread, and becomes visible,
//   watched and acknowledged only after it is durable. Many writes share one commit.
// - A watch may start at an old version as long as the history reaches back to it; else kGone. The
//   history survives a restart: deleted objects stay in the file as tombstones for a while.
// - Lists of an older version are rebuilt from the history, so that the pages of one list agree.
// Memory: each object is kept as its JSON text plus labels and selectable fields.
// Threads: the loop given; the file belongs to the store thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cloud/api/resource.h"
#include "core/base/function.h"
#include "core/io/loop.h"
#include "core/store/writer.h"
#include "kube/client.h"
#include "kube/selector.h"

namespace edgemesh::cloud {

// One version of an object; never changes.
struct StoredObject {
  std::string ns, name, uid;
  uint64_t version = 0;          // of the write that made it
  uint64_t created_version = 0;  // of the object's first write
  kube::Pairs labels, fields;
  std::string text;  // the whole object
};
using ObjectPtr = std::shared_ptr<const StoredObject>;

struct Change {
  kube::EventType type = kube::EventType::kAdded;
  uint64_t version = 0;
  ObjectPtr object;        // of a deletion: the last state, with the version of the deletion
  ObjectPtr previous;      // null for a creation
  bool collapsed = false;  // read from the file: `previous` and what happened between are not known
};

struct Filter {
  std::string ns;  // empty: all
  kube::LabelSelector labels;
  kube::FieldSelector fields;
  bool matches(const StoredObject& object) const;
};

// What a watcher that sees only a part gets for `change`: an object that comes into its sight is
// added, one that leaves it deleted. False: nothing.
bool visible_change(const Filter& filter, const Change& change, kube::EventType* type);
// What that event carries: of an object that leaves the watcher's sight the last state that it saw,
// with the version of the change, as Kubernetes has it.
ObjectPtr visible_object(const ResourceInfo& resource, kube::EventType type, const Change& change);

struct ListResult {
  std::vector<ObjectPtr> items;
  uint64_t version = 0;
  std::string continue_token;  // empty: complete
  int64_t remaining = -1;      // items after this page; -1: not counted
};

class ApiStore;

// A running watch. Destroying it ends it; allowed in its callback.
class Subscription {
 public:
  ~Subscription();
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;

 private:
  friend class ApiStore;
  using OnChange = UniqueFunction<void(kube::EventType, const ObjectPtr&)>;
  Subscription(ApiStore* store, std::string table, Filter filter, OnChange on_change);
  ApiStore* store_;
  std::string table_;
  Filter filter_;
  OnChange on_change_;
};

class ApiStore {
 public:
  struct Options {
    std::string path = ":memory:";  // empty: no file, nothing is kept
    uint64_t first_version = 1;     // of the first write, where the file has none higher
    size_t history_changes = 4096;      // a resource
    size_t history_bytes = 16 << 20;    // a resource
    size_t max_object_bytes = 3 << 19;  // 1.5 MiB, as etcd
    size_t max_objects = 1'000'000;
  };
  using Done = UniqueFunction<void(Result<ObjectPtr>)>;

  static Result<std::unique_ptr<ApiStore>> open(io::Loop& loop, const ResourceRegistry& registry,
                                                const Options& options);
  ~ApiStore();

  // The newest durable version, and a random id of this file: versions of another epoch mean
  // nothing.
  uint64_t version() const { return version_; }
  const std::string& epoch() const { return epoch_; }

  // What is durable.
  ObjectPtr get(const ResourceInfo& resource, std::string_view ns, std::string_view name) const;
  // The newest, with writes on their way: for read-modify-write.
  ObjectPtr latest(const ResourceInfo& resource, std::string_view ns, std::string_view name) const;
  size_t count(const ResourceInfo& resource) const;
  // `resource` describes its objects from now on: they may have been read before it was known.
  void adopt(const ResourceInfo& resource);

  // `at`: the version to list (0: the newest). `token` of an earlier page overrides it. kGone: that
  // version is no longer held. kInvalidArgument: the token is malformed.
  Result<ListResult> list(const ResourceInfo& resource, const Filter& filter, int64_t limit = 0,
                          std::string_view token = {}, uint64_t at = 0) const;

  // `object` is complete but for uid, creationTimestamp (set on creation) and resourceVersion.
  // `done` runs later, on the loop. kAlreadyExists; kConflict when `previous` is not the newest any
  // more; kResourceExhausted for limits and a full disk.
  void create(const ResourceInfo& resource, nlohmann::json object, Done done);
  void replace(const ResourceInfo& resource, const ObjectPtr& previous, nlohmann::json object,
               Done done);
  void erase(const ResourceInfo& resource, const ObjectPtr& previous, Done done);

  // Changes after `from` go to `backlog`, later ones to `on_change` (never from within this call).
  // kGone: the history does not reach back to `from`.
  Result<std::unique_ptr<Subscription>> subscribe(
      const ResourceInfo& resource, Filter filter, uint64_t from,
      std::vector<std::pair<kube::EventType, ObjectPtr>>* backlog,
      UniqueFunction<void(kube::EventType, const ObjectPtr&)> on_change);
  // Called for every durable change, of all resources, before the subscriptions.
  using Observer = UniqueFunction<void(const ResourceInfo&, const Change&)>;
  void add_observer(Observer observer) { observers_.push_back(std::move(observer)); }

  uint64_t commits() const { return writer_ == nullptr ? 0 : writer_->commits(); }
  size_t watchers() const;

 private:
  friend class Subscription;
  struct Table {
    const ResourceInfo* info = nullptr;
    std::map<std::string, ObjectPtr, std::less<>> objects;
    // Writes that are not durable yet: the newest state (null: deleted) and how many of them.
    struct Pending {
      ObjectPtr object;
      int writes = 0;
    };
    std::map<std::string, Pending, std::less<>> pending;
    std::deque<Change> history;
    size_t history_bytes = 0;
    uint64_t floor = 0;  // changes up to this version are not in the history
    std::vector<Subscription*> watchers;
    bool notifying = false;
  };
  struct Statements;

  ApiStore(io::Loop& loop, const Options& options) : loop_(loop), options_(options) {}
  // What changed after `version`, with the state it had then (null: it was not there).
  Result<std::map<std::string, ObjectPtr, std::less<>>> changed_since(const Table& of,
                                                                      uint64_t version) const;
  Result<> load(store::Database& db, const ResourceRegistry& registry);
  Result<> load_meta(store::Database& db);
  Result<> load_objects(store::Database& db, const ResourceRegistry& registry);
  void add_loaded(Table& table, ObjectPtr object, bool deleted);
  Table& table(const ResourceInfo& resource);
  const Table* find_table(const ResourceInfo& resource) const;
  void submit(Table& table, Change change, Done done);
  void committed(Table& table, const Change& change, Result<> result, Done& done);
  void record(Table& table, const Change& change);
  void notify(Table& table, const Change& change);
  void prune();
  void begin_at(uint64_t version);
  void refuse(Done done, Error error);

  io::Loop& loop_;
  const Options options_;
  std::map<std::string, Table, std::less<>> tables_;
  std::vector<Observer> observers_;
  uint64_t version_ = 0;       // durable
  uint64_t next_version_ = 1;  // of the next write
  uint64_t file_floor_ = 0;    // tombstones up to this version are gone from the file
  size_t tombstones_ = 0;
  size_t objects_ = 0;
  std::string epoch_;
  std::shared_ptr<Statements> statements_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::unique_ptr<store::Writer> writer_;  // null: no file
};

// Random UUID (version 4) and "2026-11-23T06:00:00Z".
std::string new_uid();

}  // namespace edgemesh::cloud
