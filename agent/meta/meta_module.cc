#include "agent/meta/meta_module.h"

#include <nlohmann/json.hpp>

#include "agent/hub_client.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::agent {
namespace {

using Json = nlohmann::json;

constexpr const char* kKinds[] = {"node", "configmap", "secret",
                                  "pod"};  // what pods need comes first

bool is_kind(std::string_view word) {
  for (const char* kind : kKinds) {
    if (word == kind) return true;
  }
  return false;
}

}  // namespace

MetaModule::MetaModule(io::Loop& loop, Metastore& store, obs::Registry& registry)
    : loop_(loop),
      store_(store),
      received_(registry.counter("edgemesh_meta_received_total", "Objects that the cloud sent.")),
      failed_(registry.counter("edgemesh_meta_failed_total",
                               "Objects that could not be read or stored.")) {}

MetaModule::~MetaModule() {
  *alive_ = false;
}

Result<> MetaModule::start(bus::Bus& bus) {
  bus_ = &bus;
  for (const char* kind : kKinds) EM_TRY_VOID(load(kind));
  for (MetaSink* sink : sinks_) sink->on_objects_loaded();
  return {};
}

void MetaModule::stop() {
  bus_ = nullptr;
  connected_ = false;
}

Result<> MetaModule::load(const char* kind) {
  return store_.for_each(kind, [&](const std::string& resource, std::string_view value) {
    Arrived stored;
    const Json json = Json::parse(value, nullptr, false);
    if (!MetaKey::parse(resource, &stored.key) || !json.is_object()) {
      EM_LOG(kError, "meta", "{} in the metastore cannot be read; the cloud will send it again",
             resource);
      return;
    }
    stored.entry = {kube::text_at(json, "metadata", "uid"),
                    kube::text_at(json, "metadata", "resourceVersion")};
    index_[stored.key] = stored.entry;
    for (MetaSink* sink : sinks_) sink->on_object(stored.key, value);
  });
}

void MetaModule::on_message(bus::Message message) {
  if (message.resource == "node/connection") {
    return on_connection(message.content == "\"cloud_connected\"");
  }
  MetaKey key;
  const bool named = MetaKey::parse(message.resource, &key);
  if (named && key.kind == "podlist") return on_pod_list(message);
  if (!named || !is_kind(key.kind)) {
    EM_LOG(kDebug, "meta", "{} {} is none of the objects kept here", message.operation,
           message.resource.substr(0, 200));
    return;
  }
  if (message.operation == "insert" || message.operation == "update" ||
      message.operation == "delete") {
    on_change(std::move(message), std::move(key));
  }
}

void MetaModule::on_connection(bool connected) {
  connected_ = connected;
  if (connected) send_inventory();
}

void MetaModule::send_inventory() {
  Json objects = Json::array();
  for (const auto& [key, entry] : index_) {
    objects.push_back(
        {{"resource", key.text()}, {"uid", entry.uid}, {"resourceVersion", entry.version}});
  }
  auto sent = bus_->send(kHubModule, bus::make_message(kMetaModule, "mesh", "get", "objects",
                                                       kube::to_text({{"objects", objects}})));
  if (!sent)
    EM_LOG(kWarn, "meta", "the cloud does not hear what is stored: {}", sent.error().message);
}

void MetaModule::on_pod_list(const bus::Message& message) {
  const Json content = Json::parse(message.content, nullptr, false);
  const Json* list = kube::find(content, "uids");
  if (list == nullptr || !list->is_array()) {
    EM_LOG(kWarn, "meta", "{}: no list of pods", message.resource);
    return;
  }
  std::vector<std::string> uids;
  for (const Json& uid : *list) {
    if (uid.is_string()) uids.push_back(uid.get<std::string>());
  }
  for (MetaSink* sink : sinks_) sink->on_pod_list(uids);
}

// --- changes ---

void MetaModule::on_change(bus::Message message, MetaKey key) {
  ++status_.received;
  received_.add();
  Arrived arrived;
  arrived.deletion = message.operation == "delete";
  const Json json = Json::parse(message.content, nullptr, false);
  const Json object =
      json.is_string() ? Json::parse(json.get<std::string>(), nullptr, false) : json;
  arrived.entry.uid = kube::text_at(object, "metadata", "uid");
  arrived.entry.version = message.resource_version.empty()
                              ? kube::text_at(object, "metadata", "resourceVersion")
                              : message.resource_version;
  if (!object.is_object() ||
      (!arrived.deletion && kube::text_at(object, "metadata", "name") != key.name)) {
    ++status_.failed;
    failed_.add();
    EM_LOG(kWarn, "meta", "{} {}: its content is not that object", message.operation,
           message.resource);
    return;  // not confirmed: the cloud's log tells, too
  }
  if (json.is_string()) message.content = kube::to_text(object);
  arrived.key = std::move(key);
  arrived.message = std::move(message);
  if (!take(arrived)) {
    ++status_.failed;
    failed_.add();
    return;
  }
  batch_.push_back(std::move(arrived));
  if (batch_.size() > 1) return;
  loop_.defer([this, alive = alive_] {
    if (*alive) flush();
  });
}

// Puts it into the store and the index, when it is news. False: it does not fit.
bool MetaModule::take(Arrived& arrived) {
  const auto known = index_.find(arrived.key);
  const std::string resource = arrived.key.text();
  if (arrived.deletion) {
    // Without a uid it means whatever is there. Another uid: the object was made anew since.
    const std::string& uid = arrived.entry.uid;
    arrived.changes = known != index_.end() && (uid.empty() || uid == known->second.uid);
    if (!arrived.changes) return true;
    arrived.entry.uid = known->second.uid;
    store_.remove(resource);
    index_.erase(known);
    return true;
  }
  const bool same = known != index_.end() && known->second.uid == arrived.entry.uid;
  arrived.changes = !same || !kube::version_at_least(known->second.version, arrived.entry.version);
  if (!arrived.changes) return true;
  if (!store_.put(resource, arrived.key.kind, arrived.message.content)) return false;
  index_[arrived.key] = arrived.entry;
  return true;
}

// One wait for the disk for all that came in a turn.
void MetaModule::flush() {
  const uint64_t failures = store_.failed_writes();
  store_.flush(
      [this, alive = alive_, failures, batch = std::exchange(batch_, {})](Result<> done) mutable {
        if (*alive) on_flushed(std::move(batch), done && store_.failed_writes() == failures);
      });
}

void MetaModule::on_flushed(std::vector<Arrived> batch, bool stored) {
  for (const Arrived& arrived : batch) {
    if (!stored) {
      // What is in the index is not on disk: the next version, or this one sent again, has to be
      // taken.
      if (const auto it = index_.find(arrived.key); it != index_.end())
        it->second.version.assign(1, '0');
      ++status_.failed;
      failed_.add();
      continue;
    }
    if (arrived.changes)
      tell(arrived);
    else
      ++status_.ignored;
    confirm(arrived.message);
  }
}

void MetaModule::tell(const Arrived& arrived) {
  for (MetaSink* sink : sinks_) {
    if (arrived.deletion) {
      sink->on_object_gone(arrived.key, arrived.entry.uid);
    } else {
      sink->on_object(arrived.key, arrived.message.content);
    }
  }
}

void MetaModule::confirm(const bus::Message& message) {
  if (bus_ == nullptr || !connected_) return;
  ++status_.confirmed;
  auto sent = bus_->send(kHubModule, bus::reply_to(message, "\"OK\""));
  if (!sent)
    EM_LOG(kWarn, "meta", "{} is not confirmed: {}", message.resource, sent.error().message);
}

// --- reading ---

Result<std::string> MetaModule::get(const MetaKey& key) {
  if (!index_.contains(key)) {
    return fail(ErrorCode::kNotFound, "{} \"{}\" is not on this node", key.kind, key.name);
  }
  EM_TRY(std::string value, store_.get(key.text()));
  if (value.empty())
    return fail(ErrorCode::kNotFound, "{} \"{}\" is not on disk yet", key.kind, key.name);
  return value;
}

Result<> MetaModule::for_each(
    std::string_view kind,
    const std::function<void(const MetaKey& key, std::string_view json)>& fn) {
  return store_.for_each(kind, [&](const std::string& resource, std::string_view value) {
    MetaKey key;
    if (MetaKey::parse(resource, &key)) fn(key, value);
  });
}

MetaModule::Status MetaModule::status() const {
  Status out = status_;
  out.objects = index_.size();
  out.connected = connected_;
  return out;
}

}  // namespace edgemesh::agent
