#include "cloud/api/store.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/api/store_sql.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using kube::EventType;
using nlohmann::json;

bool Filter::matches(const StoredObject& object) const {
  return (ns.empty() || object.ns == ns) && labels.matches(object.labels) &&
         fields.matches(object.fields);
}

bool visible_change(const Filter& filter, const Change& change, EventType* type) {
  bool now = filter.matches(*change.object);
  bool before = change.previous != nullptr && filter.matches(*change.previous);
  if (change.collapsed) before = true;  // not known: better one event too many
  if (change.type == EventType::kDeleted) {
    *type = EventType::kDeleted;
    return before;
  }
  if (now) {
    *type = before && change.type != EventType::kAdded ? EventType::kModified : EventType::kAdded;
    return true;
  }
  *type = EventType::kDeleted;
  return before && change.type != EventType::kAdded;
}

ObjectPtr visible_object(const ResourceInfo& resource, EventType type, const Change& change) {
  if (type != EventType::kDeleted || change.type == EventType::kDeleted ||
      change.previous == nullptr) {
    return change.object;
  }
  auto object = kube::parse_json(change.previous->text);
  if (!object) return change.object;  // not reached: it was stored
  return make_object(resource, *object, change.version, change.previous->created_version);
}

Subscription::Subscription(ApiStore* store, std::string table, Filter filter, OnChange on_change)
    : store_(store),
      table_(std::move(table)),
      filter_(std::move(filter)),
      on_change_(std::move(on_change)) {}

Subscription::~Subscription() {
  if (store_ == nullptr) return;
  auto& table = store_->tables_.find(table_)->second;
  auto it = std::find(table.watchers.begin(), table.watchers.end(), this);
  if (it == table.watchers.end()) return;
  // While the list is being walked its places must stay.
  if (table.notifying) {
    *it = nullptr;
  } else {
    table.watchers.erase(it);
  }
}

Result<std::unique_ptr<ApiStore>> ApiStore::open(io::Loop& loop, const ResourceRegistry& registry,
                                                 const Options& options) {
  std::unique_ptr<ApiStore> store(new ApiStore(loop, options));
  if (options.path.empty()) {
    store->epoch_ = new_uid();
    store->begin_at(options.first_version);
    return store;
  }
  EM_TRY(auto db, store::Database::open(options.path));
  EM_TRY_VOID(store->load(*db, registry));
  store->begin_at(options.first_version);
  store->statements_ = std::make_shared<Statements>();
  store->statements_->db = db.get();
  store::Writer::Options writer_options;
  EM_TRY(store->writer_, store::Writer::start(loop, std::move(db), writer_options));
  return store;
}

void ApiStore::begin_at(uint64_t version) {
  if (version <= next_version_) return;
  next_version_ = version;
  version_ = version - 1;
  // Versions that were given out before belong to nothing that is known here.
  file_floor_ = version_;
  for (auto& [name, table] : tables_) table.floor = std::max(table.floor, file_floor_);
}

ApiStore::~ApiStore() {
  *alive_ = false;
  for (auto& [name, table] : tables_) {
    for (Subscription* watcher : table.watchers) {
      if (watcher != nullptr) watcher->store_ = nullptr;
    }
  }
  writer_.reset();
}

ApiStore::Table& ApiStore::table(const ResourceInfo& resource) {
  auto [it, fresh] = tables_.try_emplace(resource.storage());
  if (fresh) it->second.floor = file_floor_;
  if (it->second.info == nullptr) it->second.info = &resource.stored();
  return it->second;
}

void ApiStore::adopt(const ResourceInfo& resource) {
  Table& of = table(resource);
  bool same_fields =
      of.info == &resource || (of.info != nullptr && of.info->fields == resource.fields);
  of.info = &resource;
  if (same_fields) return;
  for (auto& [key, object] : of.objects) {
    auto again = load_object(&resource, object->text, object->version, object->created_version);
    if (again) object = std::move(*again);
  }
}

const ApiStore::Table* ApiStore::find_table(const ResourceInfo& resource) const {
  auto it = tables_.find(resource.storage());
  return it == tables_.end() ? nullptr : &it->second;
}

ObjectPtr ApiStore::get(const ResourceInfo& resource, std::string_view ns,
                        std::string_view name) const {
  const Table* table = find_table(resource);
  if (table == nullptr) return nullptr;
  auto it = table->objects.find(kube::object_key(ns, name));
  return it == table->objects.end() ? nullptr : it->second;
}

ObjectPtr ApiStore::latest(const ResourceInfo& resource, std::string_view ns,
                           std::string_view name) const {
  const Table* table = find_table(resource);
  if (table == nullptr) return nullptr;
  auto it = table->pending.find(kube::object_key(ns, name));
  return it == table->pending.end() ? get(resource, ns, name) : it->second.object;
}

size_t ApiStore::count(const ResourceInfo& resource) const {
  const Table* table = find_table(resource);
  return table == nullptr ? 0 : table->objects.size();
}

size_t ApiStore::watchers() const {
  size_t n = 0;
  for (const auto& [name, table] : tables_) n += table.watchers.size();
  return n;
}

void ApiStore::refuse(Done done, Error error) {
  loop_.post([alive = alive_, done = std::move(done), error = std::move(error)] {
    if (*alive && done) done(fail(error));
  });
}

void ApiStore::create(const ResourceInfo& resource, json object, Done done) {
  Table& into = table(resource);
  json& meta = object["metadata"];
  std::string ns = kube::text_at(object, "metadata", "namespace");
  std::string name = kube::text_at(object, "metadata", "name");
  if (latest(resource, ns, name) != nullptr) {
    return refuse(std::move(done),
                  Error{ErrorCode::kAlreadyExists,
                        fmt::format("{} \"{}\" already exists", resource.type.plural, name)});
  }
  if (objects_ >= options_.max_objects) {
    return refuse(std::move(done),
                  Error{ErrorCode::kResourceExhausted,
                        fmt::format("the store holds {} objects, its limit", objects_)});
  }
  if (!meta.contains("uid")) meta["uid"] = new_uid();
  if (!meta.contains("creationTimestamp")) {
    meta["creationTimestamp"] = kube::rfc3339(loop_.clock().wall_now());
  }
  Change change;
  change.type = EventType::kAdded;
  change.version = next_version_++;
  change.object = make_object(resource, object, change.version, change.version);
  submit(into, std::move(change), std::move(done));
}

void ApiStore::replace(const ResourceInfo& resource, const ObjectPtr& previous, json object,
                       Done done) {
  Table& into = table(resource);
  if (latest(resource, previous->ns, previous->name) != previous) {
    return refuse(std::move(done), Error{ErrorCode::kConflict, "the object has been modified"});
  }
  Change change;
  change.type = EventType::kModified;
  change.version = next_version_++;
  change.previous = previous;
  change.object = make_object(resource, object, change.version, previous->created_version);
  submit(into, std::move(change), std::move(done));
}

void ApiStore::erase(const ResourceInfo& resource, const ObjectPtr& previous, Done done) {
  Table& into = table(resource);
  if (latest(resource, previous->ns, previous->name) != previous) {
    return refuse(std::move(done), Error{ErrorCode::kConflict, "the object has been modified"});
  }
  Change change;
  change.type = EventType::kDeleted;
  change.version = next_version_++;
  change.previous = previous;
  auto object = kube::parse_json(previous->text);
  if (!object) return refuse(std::move(done), object.error());
  change.object = make_object(resource, *object, change.version, previous->created_version);
  submit(into, std::move(change), std::move(done));
}

void ApiStore::submit(Table& into, Change change, Done done) {
  if (change.object->text.size() > options_.max_object_bytes) {
    return refuse(std::move(done),
                  Error{ErrorCode::kResourceExhausted,
                        fmt::format("the object has {} bytes, the limit is {}",
                                    change.object->text.size(), options_.max_object_bytes)});
  }
  // A patch can nest deeper than any body that was read. Lists, events and Tables wrap an object in
  // some levels more, and all of that must stay readable, at the next start as well.
  constexpr int kMaxStoredDepth = kube::kMaxJsonDepth - 8;
  if (change.type != EventType::kDeleted &&
      kube::json_depth(change.object->text) > kMaxStoredDepth) {
    return refuse(std::move(done),
                  Error{ErrorCode::kInvalidArgument,
                        fmt::format("the object is nested deeper than {}", kMaxStoredDepth)});
  }
  std::string key = kube::object_key(change.object->ns, change.object->name);
  auto& pending = into.pending[key];
  pending.object = change.type == EventType::kDeleted ? nullptr : change.object;
  ++pending.writes;
  if (change.type == EventType::kAdded) ++objects_;
  if (change.type == EventType::kDeleted) --objects_;
  auto shared = std::make_shared<const Change>(std::move(change));
  if (writer_ == nullptr) {
    loop_.defer([this, &into, shared, alive = std::weak_ptr<bool>(alive_),
                 done = std::move(done)]() mutable {
      if (alive.lock()) committed(into, *shared, {}, done);
    });
    return;
  }
  writer_->submit([statements = statements_, storage = into.info->storage(),
                   shared](store::Database&) { return statements->write(storage, *shared); },
                  [this, &into, shared, done = std::move(done)](Result<> result) mutable {
                    committed(into, *shared, std::move(result), done);
                  });
}

void ApiStore::committed(Table& into, const Change& change, Result<> result, Done& done) {
  std::string key = kube::object_key(change.object->ns, change.object->name);
  auto pending = into.pending.find(key);
  if (!result) {
    if (change.type == EventType::kAdded) --objects_;
    if (change.type == EventType::kDeleted) ++objects_;
    // Writes that were built on this one fail by themselves: the file compares versions.
    if (--pending->second.writes == 0) into.pending.erase(pending);
    if (done) done(fail(std::move(result).error()));
    return;
  }
  if (--pending->second.writes == 0) into.pending.erase(pending);
  version_ = std::max(version_, change.version);
  if (change.type == EventType::kDeleted) {
    into.objects.erase(key);
    if (++tombstones_ > 2 * options_.history_changes) prune();
  } else {
    into.objects[key] = change.object;
  }
  record(into, change);
  auto alive = alive_;
  notify(into, change);
  if (*alive && done) done(change.object);
}

void ApiStore::record(Table& into, const Change& change) {
  into.history.push_back(change);
  into.history_bytes += change.object->text.size();
  while (into.history.size() > options_.history_changes ||
         into.history_bytes > options_.history_bytes) {
    into.floor = into.history.front().version;
    into.history_bytes -= into.history.front().object->text.size();
    into.history.pop_front();
  }
}

void ApiStore::notify(Table& into, const Change& change) {
  auto alive = alive_;
  for (const auto& observer : observers_) {
    observer(*into.info, change);
    if (!*alive) return;
  }
  into.notifying = true;
  // Watchers that are added meanwhile have this change in their backlog.
  size_t count = into.watchers.size();
  ObjectPtr left;  // for all watchers whose sight it left
  for (size_t i = 0; i < count; ++i) {
    Subscription* watcher = into.watchers[i];
    EventType type;
    if (watcher == nullptr || !visible_change(watcher->filter_, change, &type)) continue;
    const bool leaves = type == EventType::kDeleted && change.type != EventType::kDeleted;
    if (leaves && left == nullptr) left = visible_object(*into.info, type, change);
    watcher->on_change_(type, leaves ? left : change.object);
    if (!*alive) return;
  }
  into.notifying = false;
  std::erase(into.watchers, nullptr);
}

void ApiStore::prune() {
  // Tombstones that no watch can ask for any more: every table's history begins after them.
  uint64_t floor = version_ > options_.history_changes ? version_ - options_.history_changes : 0;
  if (floor <= file_floor_) return;
  file_floor_ = floor;
  tombstones_ = 0;
  if (writer_ == nullptr) return;
  writer_->submit(
      [statements = statements_, floor](store::Database&) { return statements->prune(floor); }, {});
}

Result<std::unique_ptr<Subscription>> ApiStore::subscribe(
    const ResourceInfo& resource, Filter filter, uint64_t from,
    std::vector<std::pair<EventType, ObjectPtr>>* backlog,
    UniqueFunction<void(EventType, const ObjectPtr&)> on_change) {
  Table& of = table(resource);
  if (from < of.floor) {
    return fail(ErrorCode::kGone, "too old resource version: {} ({})", from, of.floor);
  }
  auto start = std::upper_bound(of.history.begin(), of.history.end(), from,
                                [](uint64_t v, const Change& c) { return v < c.version; });
  for (auto it = start; it != of.history.end(); ++it) {
    EventType type;
    if (!visible_change(filter, *it, &type)) continue;
    bool created_since = it->collapsed && it->object->created_version > from;
    if (created_since && type == EventType::kModified) type = EventType::kAdded;
    backlog->emplace_back(type, visible_object(resource, type, *it));
  }
  std::unique_ptr<Subscription> out(
      new Subscription(this, resource.storage(), std::move(filter), std::move(on_change)));
  of.watchers.push_back(out.get());
  return out;
}

}  // namespace edgemesh::cloud
