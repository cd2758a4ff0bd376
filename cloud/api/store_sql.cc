#include "cloud/api/store_sql.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using kube::EventType;
using nlohmann::json;

namespace {

constexpr std::string_view kSchema = R"(
CREATE TABLE objects(
  resource TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL,
  version INTEGER NOT NULL, created INTEGER NOT NULL, deleted INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY(resource, ns, name)) WITHOUT ROWID;
CREATE INDEX tombstones ON objects(version) WHERE deleted = 1;
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
)";

std::string field_text(const json& object, std::string_view path) {
  const json* at = &object;
  while (true) {
    size_t dot = path.find('.');
    at = kube::find(*at, path.substr(0, dot));
    if (at == nullptr) return {};
    if (dot == std::string_view::npos) break;
    path.remove_prefix(dot + 1);
  }
  if (at->is_string()) return at->get<std::string>();
  return at->is_primitive() ? at->dump() : std::string();
}

void take_apart(const ResourceInfo* resource, const json& object, StoredObject* out) {
  out->ns = kube::text_at(object, "metadata", "namespace");
  out->name = kube::text_at(object, "metadata", "name");
  out->uid = kube::text_at(object, "metadata", "uid");
  if (const json* labels = kube::find(object, "metadata", "labels");
      labels && labels->is_object()) {
    for (const auto& [key, value] : labels->items()) {
      if (value.is_string()) out->labels.emplace_back(key, value.get<std::string>());
    }
  }
  out->fields.emplace_back("metadata.name", out->name);
  if (!out->ns.empty()) out->fields.emplace_back("metadata.namespace", out->ns);
  if (resource != nullptr) {
    for (const std::string& field : resource->fields) {
      std::string value = field_text(object, field);
      if (!value.empty()) out->fields.emplace_back(field, std::move(value));
    }
  }
  std::sort(out->labels.begin(), out->labels.end());
  std::sort(out->fields.begin(), out->fields.end());
  out->labels.shrink_to_fit();
  out->fields.shrink_to_fit();
}

}  // namespace

ObjectPtr make_object(const ResourceInfo& resource, json& object, uint64_t version,
                      uint64_t created_version) {
  object["metadata"]["resourceVersion"] = std::to_string(version);
  auto out = std::make_shared<StoredObject>();
  out->version = version;
  out->created_version = created_version;
  take_apart(&resource, object, out.get());
  out->text = kube::to_text(object);
  out->text.shrink_to_fit();  // it stays for long, and the writer leaves up to twice its size
  return out;
}

Result<ObjectPtr> load_object(const ResourceInfo* resource, std::string_view text, uint64_t version,
                              uint64_t created_version) {
  EM_TRY(json object, kube::parse_json(text));
  auto out = std::make_shared<StoredObject>();
  out->version = version;
  out->created_version = created_version;
  take_apart(resource, object, out.get());
  out->text = text;
  return ObjectPtr(std::move(out));
}

Result<> ApiStore::Statements::prepare() {
  EM_TRY(
      insert,
      db->prepare("INSERT INTO objects(resource, ns, name, version, created, deleted, body) "
                  "VALUES(?1, ?2, ?3, ?4, ?4, 0, ?5) ON CONFLICT(resource, ns, name) DO UPDATE SET "
                  "version=?4, created=?4, deleted=0, body=?5 WHERE deleted=1"));
  EM_TRY(update,
         db->prepare("UPDATE objects SET version=?4, body=?5, deleted=?7 "
                     "WHERE resource=?1 AND ns=?2 AND name=?3 AND version=?6 AND deleted=0"));
  EM_TRY(erase, db->prepare("DELETE FROM objects WHERE deleted=1 AND version <= ?1"));
  EM_TRY(meta, db->prepare("INSERT OR REPLACE INTO meta(key, value) VALUES(?1, ?2)"));
  return {};
}

Result<> ApiStore::Statements::write(const std::string& storage, const Change& change) {
  if (!insert) EM_TRY_VOID(prepare());
  bool creates = change.type == EventType::kAdded;
  store::Statement& statement = creates ? insert : update;
  statement.bind_ref(1, storage)
      .bind_ref(2, change.object->ns)
      .bind_ref(3, change.object->name)
      .bind(4, static_cast<int64_t>(change.version))
      .bind_ref(5, change.object->text);
  if (!creates) {
    statement.bind(6, static_cast<int64_t>(change.previous->version));
    statement.bind(7, change.type == EventType::kDeleted ? 1 : 0);
  }
  EM_TRY_VOID(statement.run());
  if (db->changes() == 1) return {};
  return fail(creates ? ErrorCode::kAlreadyExists : ErrorCode::kConflict,
              "{} \"{}\": the write it was based on failed", storage, change.object->name);
}

Result<> ApiStore::Statements::prune(uint64_t floor) {
  if (!insert) EM_TRY_VOID(prepare());
  EM_TRY_VOID(erase.bind(1, static_cast<int64_t>(floor)).run());
  return meta.bind(1, "floor").bind(2, std::to_string(floor)).run();
}

Result<> ApiStore::load(store::Database& db, const ResourceRegistry& registry) {
  EM_TRY_VOID(db.migrate({kSchema}));
  EM_TRY_VOID(load_meta(db));
  EM_TRY_VOID(load_objects(db, registry));
  next_version_ = version_ + 1;
  return {};
}

Result<> ApiStore::load_meta(store::Database& db) {
  EM_TRY(auto query, db.prepare("SELECT key, value FROM meta"));
  while (true) {
    EM_TRY(bool row, query.step());
    if (!row) break;
    if (query.column_text(0) == "epoch") epoch_ = query.column_text(1);
    if (query.column_text(0) == "floor") {
      file_floor_ = kube::resource_version_number(query.column_text(1));
    }
  }
  version_ = file_floor_;
  if (!epoch_.empty()) return {};
  epoch_ = new_uid();
  EM_TRY(auto insert, db.prepare("INSERT INTO meta(key, value) VALUES('epoch', ?1)"));
  return insert.bind(1, epoch_).run();
}

Result<> ApiStore::load_objects(store::Database& db, const ResourceRegistry& registry) {
  EM_TRY(
      auto query,
      db.prepare("SELECT resource, version, created, deleted, body FROM objects ORDER BY version"));
  size_t unknown = 0;
  while (true) {
    EM_TRY(bool row, query.step());
    if (!row) break;
    auto version = static_cast<uint64_t>(query.column_int(1));
    version_ = std::max(version_, version);
    const ResourceInfo* info = registry.find_storage(query.column_text(0));
    if (info == nullptr) ++unknown;  // of a CustomResourceDefinition, or of another release
    auto object = load_object(info, query.column_text(4), version,
                              static_cast<uint64_t>(query.column_int(2)));
    if (!object) {
      // One bad row must not take the whole cluster away.
      EM_LOG(kError, "api", "{}: an object of {}, version {}, cannot be read and is left out: {}",
             db.path(), query.column_text(0), version, object.error().message);
      continue;
    }
    auto [of, fresh] = tables_.try_emplace(std::string(query.column_text(0)));
    if (fresh) of->second.floor = file_floor_;
    if (of->second.info == nullptr) of->second.info = info;
    add_loaded(of->second, std::move(*object), query.column_int(3) != 0);
  }
  if (unknown > 0) {
    EM_LOG(kDebug, "api", "{}: {} objects of kinds that are not built in", db.path(), unknown);
  }
  return {};
}

void ApiStore::add_loaded(Table& into, ObjectPtr object, bool deleted) {
  Change change;
  change.version = object->version;
  change.object = object;
  change.type = deleted ? EventType::kDeleted : EventType::kModified;
  if (!deleted && object->created_version == object->version) change.type = EventType::kAdded;
  change.collapsed = change.type != EventType::kAdded;
  if (deleted) {
    ++tombstones_;
  } else {
    into.objects[kube::object_key(object->ns, object->name)] = object;
    ++objects_;
  }
  if (change.version > into.floor) record(into, change);
}

std::string new_uid() {
  std::array<uint8_t, 16> b{};
  EM_CHECK(getrandom(b.data(), b.size(), 0) == static_cast<ssize_t>(b.size()));
  b[6] = static_cast<uint8_t>((b[6] & 0x0f) | 0x40);
  b[8] = static_cast<uint8_t>((b[8] & 0x3f) | 0x80);
  std::string out;
  out.reserve(36);
  constexpr char kHex[] = "0123456789abcdef";
  for (size_t i = 0; i < b.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += kHex[b[i] >> 4];
    out += kHex[b[i] & 15];
  }
  return out;
}

}  // namespace edgemesh::cloud
