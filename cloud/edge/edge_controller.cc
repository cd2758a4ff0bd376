#include "cloud/edge/edge_controller.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "core/channel/resource.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

std::string config_key(const kube::ResourceType& type, std::string_view ns, std::string_view name) {
  return fmt::format("{}/{}/{}", type.plural, ns, name);
}

}  // namespace

EdgeController::EdgeController(io::Loop& loop, kube::Client& client, NodeLink& link,
                               Options options, obs::Registry& registry)
    : loop_(loop),
      client_(client),
      link_(link),
      options_(options),
      book_(loop, client, options.book),
      sender_(loop, client, link, book_, options.sender, registry) {}

EdgeController::~EdgeController() = default;

void EdgeController::start() {
  book_.start([this] { on_synced(); });
  informers_.push_back(inform(kube::kNodes, false));
  informers_.push_back(inform(kube::kConfigMaps, true));
  informers_.push_back(inform(kube::kSecrets, true));
  informers_.push_back(inform(kube::kPods, false));
  for (const auto& informer : informers_) informer->start();
}

std::unique_ptr<kube::Informer> EdgeController::inform(const kube::ResourceType& type,
                                                       bool configs) {
  using Object = kube::Informer::Object;
  kube::Informer::Options options;
  options.type = type;
  options.keep_json = false;
  kube::Informer::Handlers handlers;
  if (configs) {
    handlers.on_upsert = [this, &type](const Object& object) { on_config(type, object); };
    handlers.on_delete = [this, &type](const Object& object) { on_config_gone(type, object); };
  } else if (type == kube::kPods) {
    handlers.on_upsert = [this](const Object& object) { on_pod(object); };
    handlers.on_delete = [this](const Object& object) { on_pod_gone(object); };
  } else {
    handlers.on_upsert = [this](const Object& object) { on_node(object); };
    handlers.on_delete = [this](const Object& object) { on_node_gone(object); };
  }
  handlers.on_synced = [this, seen = false]() mutable {
    if (!std::exchange(seen, true)) on_synced();
  };
  handlers.on_error = [&type](const Error& error) {
    EM_LOG(kWarn, "edge", "watching {}: {}", type.plural, error.message);
  };
  return std::make_unique<kube::Informer>(loop_, client_, std::move(options), std::move(handlers));
}

void EdgeController::on_synced() {
  if (--lists_missing_ > 0) return;
  ready_ = true;
  for (auto& [node, entries] : std::exchange(inventories_, {}))
    book_.replace(node, std::move(entries));
  for (const auto& [node, told] : connected_) sync_node(node);
}

void EdgeController::on_connected(const std::string& node) {
  connected_.insert_or_assign(node, false);
  sender_.on_connected(node);
  if (ready_) sync_node(node);
}

void EdgeController::on_disconnected(const std::string& node) {
  connected_.erase(node);
  inventories_.erase(node);
  sender_.on_disconnected(node);
}

// --- what the API says ---

void EdgeController::on_pod(const kube::Informer::Object& object) {
  const Json json = Json::parse(object.json, nullptr, false);
  const std::string node = kube::text_at(json, "spec", "nodeName");
  const std::string uid = kube::text_at(json, "metadata", "uid");
  const std::string key = kube::object_key(object.ns, object.name);
  const auto known = pods_.find(key);
  if (known != pods_.end() && (known->second.ref.uid != uid || known->second.node != node)) {
    forget_pod(known->second);
    pods_.erase(known);
  }
  if (node.empty() || uid.empty()) return;
  const auto [it, fresh] = pods_.try_emplace(key);
  Pod& pod = it->second;
  const uint64_t meaning = pod_meaning(json);
  if (!fresh && pod.meaning == meaning) return;
  if (fresh) {
    pod.ref = {&kube::kPods, object.ns, object.name, uid};
    pod.node = node;
    pods_of_[node].insert(key);
  }
  pod.meaning = meaning;
  pod.version = object.resource_version;
  // The new ones first: what both name does not go and come back.
  std::vector<std::string> before = std::exchange(pod.references, {});
  for (const PodReference& reference : pod_references(json)) {
    const std::string config = config_key(*reference.type, object.ns, reference.name);
    pod.references.push_back(config);
    refer(node, *reference.type, config);
  }
  for (const std::string& config : before) release(node, config);
  want(node, pod.ref, pod.version, nullptr);
}

void EdgeController::forget_pod(Pod& pod) {
  if (ready_) sender_.drop(pod.node, pod.ref);
  for (const std::string& config : pod.references) release(pod.node, config);
  const auto of = pods_of_.find(pod.node);
  of->second.erase(kube::object_key(pod.ref.ns, pod.ref.name));
  if (of->second.empty()) pods_of_.erase(of);
}

void EdgeController::on_pod_gone(const kube::Informer::Object& object) {
  const auto it = pods_.find(kube::object_key(object.ns, object.name));
  if (it == pods_.end()) return;
  forget_pod(it->second);
  pods_.erase(it);
}

void EdgeController::on_node(const kube::Informer::Object& object) {
  const Json json = Json::parse(object.json, nullptr, false);
  NodeObject& node = nodes_[object.name];
  const uint64_t meaning = node_meaning(json);
  if (!node.version.empty() && node.meaning == meaning) return;
  node.ref = {&kube::kNodes, "", object.name, kube::text_at(json, "metadata", "uid")};
  node.version = object.resource_version;
  node.meaning = meaning;
  want(object.name, node.ref, node.version, nullptr);
}

void EdgeController::on_node_gone(const kube::Informer::Object& object) {
  const auto it = nodes_.find(object.name);
  if (it == nodes_.end()) return;
  if (ready_) sender_.drop(object.name, it->second.ref);
  nodes_.erase(it);
  // What it confirmed is of no interest any more, when it is away. One that is connected stays and
  // confirms.
  if (!connected_.contains(object.name)) book_.forget_node(object.name);
}

void EdgeController::on_config(const kube::ResourceType& type,
                               const kube::Informer::Object& object) {
  const Json json = Json::parse(object.json, nullptr, false);
  Config& config = configs_[config_key(type, object.ns, object.name)];
  const std::string uid = kube::text_at(json, "metadata", "uid");
  if (!config.ref.uid.empty() && config.ref.uid != uid && ready_) {
    for (const auto& [node, count] : config.users) sender_.drop(node, config.ref);
  }
  config.ref = {&type, object.ns, object.name, uid};
  config.version = object.resource_version;
  for (const auto& [node, count] : config.users) want(node, config.ref, config.version, nullptr);
}

void EdgeController::on_config_gone(const kube::ResourceType& type,
                                    const kube::Informer::Object& object) {
  const auto it = configs_.find(config_key(type, object.ns, object.name));
  if (it == configs_.end()) return;
  Config& config = it->second;
  for (const auto& [node, count] : config.users) {
    if (ready_) sender_.drop(node, config.ref);
  }
  config.ref.uid.clear();
  config.version.clear();
  if (config.users.empty()) configs_.erase(it);
}

void EdgeController::refer(const std::string& node, const kube::ResourceType& type,
                           const std::string& key) {
  Config& config = configs_[key];
  if (config.ref.type == nullptr) config.ref.type = &type;
  if (++config.users[node] == 1 && !config.ref.uid.empty()) {
    want(node, config.ref, config.version, nullptr);
  }
}

void EdgeController::release(const std::string& node, const std::string& key) {
  const auto it = configs_.find(key);
  Config& config = it->second;
  const auto user = config.users.find(node);
  if (--user->second > 0) return;
  config.users.erase(user);
  if (!config.ref.uid.empty()) {
    if (ready_) sender_.drop(node, config.ref);
  } else if (config.users.empty()) {
    configs_.erase(it);
  }
}

// --- what nodes have ---

void EdgeController::want(const std::string& node, const ObjectRef& ref, const std::string& version,
                          std::unordered_set<std::string>* wanted) {
  if (wanted != nullptr) wanted->insert(ref.uid);
  if (!ready_ || !connected_.contains(node)) return;
  const SyncBook::Entry* entry = book_.find(node, ref.uid);
  if (entry != nullptr && entry->version != "0" && kube::version_at_least(entry->version, version))
    return;
  sender_.want(node, ref, version);
}

void EdgeController::sync_node(const std::string& node) {
  std::unordered_set<std::string> wanted;
  if (const auto object = nodes_.find(node); object != nodes_.end()) {
    want(node, object->second.ref, object->second.version, &wanted);
  }
  // What pods need goes before them.
  std::unordered_set<std::string> configs;
  const auto pods = pods_of_.find(node);
  if (pods != pods_of_.end()) {
    for (const std::string& key : pods->second) {
      const Pod& pod = pods_.at(key);
      configs.insert(pod.references.begin(), pod.references.end());
    }
    for (const std::string& key : configs) {
      const Config& config = configs_.at(key);
      if (!config.ref.uid.empty()) want(node, config.ref, config.version, &wanted);
    }
    for (const std::string& key : pods->second) {
      want(node, pods_.at(key).ref, pods_.at(key).version, &wanted);
    }
  }
  std::vector<ObjectRef> gone;
  for (const SyncBook::Entry* entry : book_.of_node(node)) {
    if (!wanted.contains(entry->ref.uid)) gone.push_back(entry->ref);
  }
  for (const ObjectRef& ref : gone) sender_.drop(node, ref);
  if (const auto it = connected_.find(node); it != connected_.end() && it->second)
    send_pod_list(node);
}

void EdgeController::send_pod_list(const std::string& node) {
  Json uids = Json::array();
  if (const auto pods = pods_of_.find(node); pods != pods_of_.end()) {
    for (const std::string& key : pods->second) uids.push_back(pods_.at(key).ref.uid);
  }
  channel::Message out;
  out.id = channel::new_id();
  out.timestamp_ms = channel::now_ms();
  out.source = "edgecontroller";
  out.group = "resource";
  out.operation = "update";
  out.resource = "null/podlist/" + node;
  out.content = kube::to_text({{"uids", std::move(uids)}});
  link_.send(node, out);
}

Result<> EdgeController::on_inventory(const std::string& node, const Json& content) {
  const Json* objects = kube::find(content, "objects");
  if (objects == nullptr || !objects->is_array()) {
    return fail(ErrorCode::kInvalidArgument, "objects: want a list");
  }
  if (objects->size() > options_.max_inventory) {
    return fail(ErrorCode::kResourceExhausted, "{} objects, at most {} are taken", objects->size(),
                options_.max_inventory);
  }
  const auto connection = connected_.find(node);
  if (connection == connected_.end()) return {};
  if (std::exchange(connection->second, true)) {
    // Each may cost as many writes to the API as it has entries.
    return fail(ErrorCode::kResourceExhausted, "said before on this connection");
  }
  std::vector<SyncBook::Entry> entries;
  for (const Json& object : *objects) {
    channel::ResourceName name;
    if (!channel::ResourceName::parse(kube::text_at(object, "resource"), &name)) continue;
    const kube::ResourceType* type = type_of_word(name.kind);
    const std::string uid = kube::text_at(object, "uid");
    std::string version = kube::text_at(object, "resourceVersion");
    // A uid with a dot would be read back wrongly from the book's names; no API server makes one.
    if (type == nullptr || uid.empty() || uid.find_first_of("./") != std::string::npos) continue;
    if (version.empty()) version += '0';
    entries.push_back({{type, name.ns, name.name, uid}, std::move(version)});
  }
  if (!book_.loaded()) {
    inventories_.insert_or_assign(node, std::move(entries));
    return {};
  }
  book_.replace(node, std::move(entries));
  if (ready_) sync_node(node);
  return {};
}

}  // namespace edgemesh::cloud
