#include "cloud/controllers/cluster.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud::controllers {
using Json = nlohmann::json;

bool ClusterObject::deleting() const {
  return kube::find(json(), "metadata", "deletionTimestamp") != nullptr;
}

Cluster::Cluster(io::Loop& loop, kube::Client& client) : loop_(loop), client_(client) {}

Cluster::~Cluster() {
  *alive_ = false;
}

Cluster::Kind* Cluster::kind(const kube::ResourceType& type) const {
  for (const auto& kind : kinds_) {
    if (*kind->type == type) return kind.get();
  }
  return nullptr;
}

void Cluster::follow(const kube::ResourceType& type, Keep keep) {
  if (kind(type) == nullptr) {
    kinds_.push_back(std::make_unique<Kind>());
    kinds_.back()->type = &type;
  }
  if (keep == Keep::kWhole) kind(type)->keep = keep;
}

bool Cluster::follows(std::string_view api_version, std::string_view kind) const {
  return std::any_of(kinds_.begin(), kinds_.end(), [&](const auto& of) {
    return of->type->kind == kind && of->type->api_version() == api_version;
  });
}

void Cluster::on_change(const kube::ResourceType& type, OnChange callback, Keep keep) {
  follow(type, keep);
  kind(type)->callbacks.push_back(std::move(callback));
}

void Cluster::start(UniqueFunction<void()> on_synced) {
  on_synced_ = std::move(on_synced);
  started_ = true;
  missing_ = kinds_.size();
  for (const auto& owned : kinds_) {
    Kind* kind = owned.get();
    kube::Informer::Options options;
    options.type = *kind->type;
    options.keep_json = false;
    kube::Informer::Handlers handlers;
    handlers.on_upsert = [this, kind](const kube::Informer::Object& object) {
      apply(*kind->type, Json::parse(object.json, nullptr, false));
    };
    handlers.on_delete = [this, kind](const kube::Informer::Object& object) {
      erase(*kind, kube::object_key(object.ns, object.name), object.resource_version);
    };
    handlers.on_synced = [this, kind] {
      if (std::exchange(kind->listed, true) || --missing_ > 0) return;
      if (on_synced_) on_synced_();
    };
    handlers.on_error = [kind](const Error& error) {
      EM_LOG(kWarn, "controllers", "watching {}: {}", kind->type->plural, error.message);
    };
    kind->informer =
        std::make_unique<kube::Informer>(loop_, client_, std::move(options), std::move(handlers));
    kind->informer->start();
  }
}

SharedObject Cluster::make_object(const Kind& kind, Json json) {
  auto object = std::make_shared<ClusterObject>();
  object->type = kind.type;
  object->ns = kube::text_at(json, "metadata", "namespace");
  object->name = kube::text_at(json, "metadata", "name");
  object->uid = kube::text_at(json, "metadata", "uid");
  object->version = kube::text_at(json, "metadata", "resourceVersion");
  if (const Json* owners = kube::find(json, "metadata", "ownerReferences");
      owners != nullptr && owners->is_array()) {
    for (const Json& owner : *owners) {
      object->owners.push_back(kube::text_at(owner, "uid"));
      const Json* controls = kube::find(owner, "controller");
      if (controls != nullptr && controls->is_boolean() && controls->get<bool>()) {
        object->controller = object->owners.back();
      }
    }
  }
  // Nobody here reads it, and it is half of many objects.
  if (json.is_object() && json.contains("metadata")) json["metadata"].erase("managedFields");
  if (kind.keep == Keep::kMetadata) json = {{"metadata", std::move(json["metadata"])}};
  object->value = std::make_shared<const Json>(std::move(json));
  return object;
}

void Cluster::apply(const kube::ResourceType& type, Json json) {
  Kind* of = kind(type);
  if (of == nullptr || !json.is_object()) return;
  SharedObject object = make_object(*of, std::move(json));
  if (object->name.empty() || object->uid.empty()) return;
  const std::string key = object->key();
  const auto it = of->objects.find(key);
  SharedObject before = it == of->objects.end() ? nullptr : it->second;
  if (before != nullptr && kube::version_at_least(before->version, object->version)) return;
  if (before != nullptr && before->uid != object->uid) {
    erase(*of, key, before->version);
    before = nullptr;
  }
  replace(*of, before, object);
}

void Cluster::replace(Kind& kind, const SharedObject& before, const SharedObject& after) {
  if (before != nullptr) index(before, false);
  kind.objects[after->key()] = after;
  index(after, true);
  tell(kind, before, after);
}

void Cluster::assume(const SharedObject& object, Json json) {
  Kind* of = kind(*object->type);
  const SharedObject now = find(*object->type, object->key());
  if (of == nullptr || now == nullptr || now->uid != object->uid) return;
  replace(*of, now, make_object(*of, std::move(json)));
}

void Cluster::erase(Kind& kind, std::string_view key, std::string_view version) {
  const auto it = kind.objects.find(key);
  if (it == kind.objects.end()) return;
  // Made anew since.
  if (!version.empty() && !kube::version_at_least(version, it->second->version)) return;
  const SharedObject before = it->second;
  index(before, false);
  kind.objects.erase(it);
  tell(kind, before, nullptr);
}

void Cluster::index(const SharedObject& object, bool add) {
  if (add) {
    by_uid_[object->uid] = object;
    for (const std::string& owner : object->owners) owned_[owner].insert(object->uid);
    return;
  }
  by_uid_.erase(object->uid);
  for (const std::string& owner : object->owners) {
    const auto it = owned_.find(owner);
    if (it == owned_.end()) continue;
    it->second.erase(object->uid);
    if (it->second.empty()) owned_.erase(it);
  }
}

void Cluster::tell(Kind& kind, const SharedObject& before, const SharedObject& after) {
  for (const OnChange& callback : kind.callbacks) callback(before, after);
}

SharedObject Cluster::find(const kube::ResourceType& type, std::string_view ns,
                           std::string_view name) const {
  return find(type, kube::object_key(ns, name));
}

SharedObject Cluster::find(const kube::ResourceType& type, std::string_view key) const {
  const Kind* of = kind(type);
  if (of == nullptr) return nullptr;
  const auto it = of->objects.find(key);
  return it == of->objects.end() ? nullptr : it->second;
}

SharedObject Cluster::by_uid(const std::string& uid) const {
  const auto it = by_uid_.find(uid);
  return it == by_uid_.end() ? nullptr : it->second;
}

void Cluster::each(const kube::ResourceType& type, std::string_view ns,
                   const std::function<void(const SharedObject&)>& fn) const {
  const Kind* of = kind(type);
  if (of == nullptr) return;
  const std::string prefix = ns.empty() ? std::string() : std::string(ns) + "/";
  for (auto it = of->objects.lower_bound(prefix); it != of->objects.end(); ++it) {
    if (!it->first.starts_with(prefix)) return;
    fn(it->second);
  }
}

std::vector<SharedObject> Cluster::owned_by(const std::string& uid) const {
  std::vector<SharedObject> out;
  const auto it = owned_.find(uid);
  if (it == owned_.end()) return out;
  for (const std::string& id : it->second) out.push_back(by_uid_.at(id));
  return out;
}

std::vector<SharedObject> Cluster::controlled_by(const std::string& uid,
                                                 const kube::ResourceType& type) const {
  std::vector<SharedObject> out;
  for (SharedObject& object : owned_by(uid)) {
    if (object->controller == uid && *object->type == type) out.push_back(std::move(object));
  }
  return out;
}

// --- writing ---

kube::Client::Callback Cluster::taken(const kube::ResourceType& type, Done done) {
  return [this, alive = alive_, &type, done = std::move(done)](Result<std::string> result) mutable {
    if (!*alive) return;
    if (!result) return done(fail(result.error()));
    Json json = Json::parse(*result, nullptr, false);
    const std::string key = kube::object_key(kube::text_at(json, "metadata", "namespace"),
                                             kube::text_at(json, "metadata", "name"));
    if (kube::text_at(json, "kind") == type.kind) apply(type, std::move(json));
    done(find(type, key));
  };
}

void Cluster::create(const kube::ResourceType& type, std::string_view ns, const Json& body,
                     Done done, const std::string& subresource) {
  kube::WriteOptions options;
  options.field_manager = "edgemesh-controllers";
  options.subresource = subresource;
  client_.create(type, ns, kube::to_text(body), options, taken(type, std::move(done)));
}

void Cluster::patch(const SharedObject& object, const Json& merge, Done done,
                    const std::string& subresource) {
  kube::WriteOptions options;
  options.field_manager = "edgemesh-controllers";
  options.subresource = subresource;
  client_.patch(*object->type, object->ns, object->name, kube::PatchKind::kMerge,
                kube::to_text(merge), options, taken(*object->type, std::move(done)));
}

void Cluster::remove(const SharedObject& object, Done done, const kube::DeleteOptions& options) {
  kube::DeleteOptions with_uid = options;
  with_uid.uid = object->uid;
  auto then = [this, alive = alive_, object,
               done = std::move(done)](Result<std::string> result) mutable {
    if (!*alive) return;
    const bool missing = !result && result.error().code == ErrorCode::kNotFound;
    if (!result && !missing) return done(fail(result.error()));
    Json json = missing ? Json() : Json::parse(*result, nullptr, false);
    const bool stays = kube::text_at(json, "kind") == object->type->kind &&
                       kube::find(json, "metadata", "deletionTimestamp") != nullptr;
    if (stays)
      apply(*object->type, std::move(json));
    else
      erase(*kind(*object->type), object->key(), "");
    done(SharedObject());
  };
  client_.remove(*object->type, object->ns, object->name, with_uid, std::move(then));
}

// --- readers ---

int64_t int_at(const Json& object, std::initializer_list<const char*> path, int64_t otherwise) {
  const Json* value = &object;
  for (const char* name : path) {
    value = kube::find(*value, name);
    if (value == nullptr) return otherwise;
  }
  return value->is_number_integer() ? value->get<int64_t>() : otherwise;
}

std::string condition(const Json& object, std::string_view type) {
  const Json* conditions = kube::find(object, "status", "conditions");
  if (conditions == nullptr || !conditions->is_array()) return "";
  for (const Json& one : *conditions) {
    if (kube::text_at(one, "type") == type) return kube::text_at(one, "status");
  }
  return "";
}

bool set_condition(Json& conditions, const std::string& type, const std::string& status,
                   const std::string& reason, const std::string& message, const std::string& now) {
  if (!conditions.is_array()) conditions = Json::array();
  for (Json& one : conditions) {
    if (kube::text_at(one, "type") != type) continue;
    const bool moved = kube::text_at(one, "status") != status;
    if (!moved && kube::text_at(one, "reason") == reason &&
        kube::text_at(one, "message") == message)
      return false;
    if (moved) one["lastTransitionTime"] = now;
    one["lastUpdateTime"] = now;
    one["status"] = status;
    one["reason"] = reason;
    one["message"] = message;
    return true;
  }
  conditions.push_back({{"type", type},
                        {"status", status},
                        {"reason", reason},
                        {"message", message},
                        {"lastUpdateTime", now},
                        {"lastTransitionTime", now}});
  return true;
}

namespace {

bool expression_selects(const Json& expression, const Json* labels) {
  const std::string key = kube::text_at(expression, "key");
  const std::string op = kube::text_at(expression, "operator");
  const Json* value = labels == nullptr ? nullptr : kube::find(*labels, key);
  if (op == "Exists") return value != nullptr;
  if (op == "DoesNotExist") return value == nullptr;
  const Json* values = kube::find(expression, "values");
  const bool listed = value != nullptr && values != nullptr && values->is_array() &&
                      std::find(values->begin(), values->end(), *value) != values->end();
  if (op == "In") return listed;
  if (op == "NotIn") return !listed;
  return false;
}

}  // namespace

bool selects(const Json* selector, const Json* labels) {
  if (selector == nullptr || !selector->is_object()) return false;
  const Json* wanted = kube::find(*selector, "matchLabels");
  const Json* expressions = kube::find(*selector, "matchExpressions");
  if ((wanted == nullptr || wanted->empty()) && (expressions == nullptr || expressions->empty()))
    return false;
  if (wanted != nullptr && wanted->is_object()) {
    for (const auto& [key, value] : wanted->items()) {
      const Json* have = labels == nullptr ? nullptr : kube::find(*labels, key);
      if (have == nullptr || *have != value) return false;
    }
  }
  if (expressions != nullptr && expressions->is_array()) {
    for (const Json& expression : *expressions) {
      if (!expression_selects(expression, labels)) return false;
    }
  }
  return true;
}

Json controller_reference(const ClusterObject& owner) {
  return {{"apiVersion", owner.type->api_version()},
          {"kind", owner.type->kind},
          {"name", owner.name},
          {"uid", owner.uid},
          {"controller", true},
          {"blockOwnerDeletion", true}};
}

}  // namespace edgemesh::cloud::controllers
