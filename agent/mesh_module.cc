#include "agent/mesh_module.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"

namespace edgemesh::agent {

namespace {

using nlohmann::json;

constexpr std::string_view kPeer = "peer/";
constexpr size_t kMaxPeerAddresses = 16;

struct Key {
  std::string ns, kind, name;
};

// "<ns>/service/<name>"
std::optional<Key> parse_key(const std::string& key) {
  auto first = key.find('/');
  auto second = first == std::string::npos ? first : key.find('/', first + 1);
  if (second == std::string::npos) return std::nullopt;
  Key out{key.substr(0, first), key.substr(first + 1, second - first - 1), key.substr(second + 1)};
  if (out.ns.empty() || out.name.empty() || (out.kind != "service" && out.kind != "endpointslice"))
    return std::nullopt;
  return out;
}

std::string text(const json& object, const char* key) {
  auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

int64_t number(const json& object, const char* key) {
  auto it = object.find(key);
  return it != object.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
}

TurnServer parse_turn(const json& object) {
  TurnServer turn;
  turn.host = text(object, "host");
  int64_t port = number(object, "port");
  if (port > 0 && port < 65536) turn.port = static_cast<uint16_t>(port);
  turn.username = text(object, "username");
  turn.password = text(object, "password");
  turn.expires = number(object, "expires");
  return turn;
}

}  // namespace

MeshModule::MeshModule(HubClient& hub, Metastore& store, MeshSink& sink)
    : hub_(hub), store_(store), sink_(sink) {
  hub_.add_handler(this);
}

void MeshModule::load() {
  for (auto& row : store_.take_loaded()) {
    if (row.key == "mesh/config") {
      apply_config(row.value);
    } else if (row.key == "mesh/sync") {
      json state = json::parse(row.value, nullptr, false);
      if (!state.is_object()) continue;
      epoch_ = text(state, "epoch");
      position_ = text(state, "resourceVersion");
    } else if (row.type == "peer") {
      json list = json::parse(row.value, nullptr, false);
      std::vector<SockAddr> addresses;
      for (const auto& item : list)
        if (item.is_string())
          if (auto addr = SockAddr::parse(item.get<std::string>())) addresses.push_back(*addr);
      sink_.on_known_peer(row.key.substr(kPeer.size()), addresses);
    } else {
      apply(row.key, row.value);
    }
  }
  if (!epoch_.empty()) {
    synced_ = true;
    sink_.on_synced();
  }
}

void MeshModule::send(const char* operation, std::string resource, std::string content) {
  channel::Message message;
  message.id = channel::new_id();
  message.timestamp_ms = channel::now_ms();
  message.source = "mesh";
  message.group = "mesh";
  message.operation = operation;
  message.resource = std::move(resource);
  message.content = std::move(content);
  if (auto sent = hub_.send(message); !sent)
    EM_LOG(kDebug, "mesh", "{} {}: {}", operation, message.resource, sent.error().message);
}

void MeshModule::on_hub_connected() {
  send("get", "sync", json{{"resourceVersion", position_}, {"epoch", epoch_}}.dump());
  if (!node_info_.empty()) send("update", "node", node_info_);
}

void MeshModule::on_hub_disconnected(const std::string&) { full_sync_ = false; }

void MeshModule::set_node_info(std::string json_text) {
  if (json_text == node_info_) return;
  node_info_ = std::move(json_text);
  if (hub_.connected()) send("update", "node", node_info_);
}

Result<> MeshModule::send_signal(const std::string& node, std::string json_text) {
  channel::Message message;
  message.id = channel::new_id();
  message.timestamp_ms = channel::now_ms();
  message.source = "mesh";
  message.group = "mesh";
  message.operation = "signal";
  message.resource = std::string(kPeer) + node;
  message.content = std::move(json_text);
  return hub_.send(message);
}

void MeshModule::save_peer(const std::string& node, const std::vector<SockAddr>& addresses) {
  json list = json::array();
  for (const auto& addr : addresses)
    if (list.size() < kMaxPeerAddresses) list.push_back(addr.to_string());
  store_.put(std::string(kPeer) + node, "peer", list.dump());
}

void MeshModule::on_hub_message(channel::Message message) {
  if (message.group != "mesh") return;
  if (message.operation == "response") return on_response(message);
  if (message.operation == "signal" || message.operation == "error") {
    if (!message.resource.starts_with(kPeer)) return;
    std::string node = message.resource.substr(kPeer.size());
    if (message.operation == "signal") return sink_.on_signal(node, message.content);
    json body = json::parse(message.content, nullptr, false);
    return sink_.on_signal_error(node, body.is_object() ? text(body, "reason") : "refused by the cloud");
  }
  if (message.resource == "config") {
    apply_config(message.content);
    store_.put("mesh/config", "config", message.content);
    return;
  }
  on_change(message);
}

void MeshModule::on_response(const channel::Message& message) {
  json body = json::parse(message.content, nullptr, false);
  if (!body.is_object()) return;
  if (message.resource == "sync/begin") {
    full_sync_ = body.value("full", false);
    if (full_sync_) unseen_ = known_;
    EM_LOG(kInfo, "mesh", "{} sync begins", full_sync_ ? "full" : "incremental");
  } else if (message.resource == "sync/end") {
    end_sync(message);
  }
}

void MeshModule::end_sync(const channel::Message& message) {
  json body = json::parse(message.content, nullptr, false);
  if (full_sync_)
    for (const auto& key : std::set<std::string>(std::move(unseen_))) forget(key);
  unseen_.clear();
  full_sync_ = false;
  epoch_ = text(body, "epoch");
  position_ = text(body, "resourceVersion");
  store_.put("mesh/sync", "sync", json{{"epoch", epoch_}, {"resourceVersion", position_}}.dump());
  EM_LOG(kInfo, "mesh", "in sync with the cloud: {} objects", known_.size());
  if (!std::exchange(synced_, true)) sink_.on_synced();
}

void MeshModule::on_change(const channel::Message& message) {
  if (!parse_key(message.resource)) {
    EM_LOG(kDebug, "mesh", "ignored {} {}", message.operation, message.resource);
    return;
  }
  unseen_.erase(message.resource);
  if (message.operation == "delete") {
    forget(message.resource);
  } else if (message.operation == "insert" || message.operation == "update") {
    std::string value = channel::content_text(message);
    if (apply(message.resource, value)) {
      auto key = parse_key(message.resource);
      store_.put(message.resource, key->kind, std::move(value));
    }
  }
  // Outside of a sync each change moves the position; within one only its end does.
  if (!full_sync_ && synced_ && !message.resource_version.empty()) {
    position_ = message.resource_version;
    store_.put("mesh/sync", "sync", json{{"epoch", epoch_}, {"resourceVersion", position_}}.dump());
  }
}

bool MeshModule::apply(const std::string& key, const std::string& value) {
  auto parts = parse_key(key);
  if (!parts) return false;
  if (parts->kind == "service") {
    auto service = kube::parse_service(std::string_view(value));
    if (!service) {
      EM_LOG(kWarn, "mesh", "ignored {}: {}", key, service.error().message);
      return false;
    }
    sink_.upsert_service(*service);
  } else {
    auto slice = kube::parse_endpoint_slice(std::string_view(value));
    if (!slice) {
      EM_LOG(kWarn, "mesh", "ignored {}: {}", key, slice.error().message);
      return false;
    }
    sink_.upsert_slice(*slice);
  }
  known_.insert(key);
  return true;
}

void MeshModule::forget(const std::string& key) {
  auto parts = parse_key(key);
  if (!parts || known_.erase(key) == 0) return;
  if (parts->kind == "service")
    sink_.remove_service(parts->ns, parts->name);
  else
    sink_.remove_slice(parts->ns, parts->name);
  store_.remove(key);
}

void MeshModule::apply_config(const std::string& json_text) {
  json body = json::parse(json_text, nullptr, false);
  if (!body.is_object()) {
    EM_LOG(kWarn, "mesh", "ignored a configuration that is not a JSON object");
    return;
  }
  MeshConfig config;
  config.trust_domain = text(body, "trustDomain");
  config.cluster_domain = text(body, "clusterDomain");
  if (auto it = body.find("serviceCidrs"); it != body.end() && it->is_array()) {
    for (const auto& item : *it)
      if (item.is_string())
        if (auto cidr = Cidr::parse(item.get<std::string>())) config.service_cidrs.push_back(*cidr);
  }
  if (auto it = body.find("turn"); it != body.end() && it->is_object()) config.turn = parse_turn(*it);
  sink_.on_config(config);
}

}  // namespace edgemesh::agent
