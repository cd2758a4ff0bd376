#include "cloud/node_controller.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "core/base/net_addr.h"
#include "kube/time.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr Duration kTick = std::chrono::seconds(1);
constexpr Duration kListAgain = std::chrono::seconds(10);
constexpr int64_t kPage = 500;  // nodes that are read at a time

Json at(const Json& object, const char* key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && it != object.end() ? *it : Json();
}

bool is_label_value(const std::string& text) {
  const auto alnum = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  return !text.empty() && text.size() <= 63 && alnum(text.front()) && alnum(text.back()) &&
         std::all_of(text.begin(), text.end(),
                     [&](char c) { return alnum(c) || c == '-' || c == '_' || c == '.'; });
}

constexpr const char* kConnectedReason = "AgentConnected";
constexpr const char* kGoneReason = "NodeStatusUnknown";

// The elements of `want` that `have` lacks or has otherwise; null when there are none.
Json differing(const Json& want, const Json& have) {
  Json out;
  for (const auto& [key, value] : want.items()) {
    if (at(have, key.c_str()) != value) out[key] = value;
  }
  return out;
}

Json ready_condition(const Json& object) {
  for (const Json& condition : at(at(object, "status"), "conditions")) {
    if (at(condition, "type") == "Ready") return condition;
  }
  return {};
}

// Whether another program keeps the condition. What says Unknown is nobody's: its keeper is gone.
bool kept_by_another(const Json& ready) {
  const Json reason = at(ready, "reason");
  return ready.is_object() && at(ready, "status") != "Unknown" && reason.is_string() &&
         reason != Json("") && reason != kConnectedReason && reason != kGoneReason;
}

}  // namespace

NodeController::NodeController(io::Loop& loop, kube::Client& client, NodeOptions options)
    : loop_(loop),
      client_(client),
      options_(std::move(options)),
      tick_timer_(loop, [this] { tick(); }),
      lease_timer_(loop, [this] { renew_leases(); }) {
  NodeLeases::Options leases;
  if (options_.lease_interval > Duration::zero()) leases.lifetime = 4 * options_.lease_interval;
  if (options_.lease_interval > Duration::zero() || options_.judges_all)
    leases_ = std::make_unique<NodeLeases>(loop, client, leases);
}

NodeController::~NodeController() {
  *alive_ = false;
}

void NodeController::start() {
  next_recheck_ = loop_.now() + options_.gone_after;
  tick_timer_.start_repeating(kTick);
  if (options_.lease_interval > Duration::zero())
    lease_timer_.start_repeating(options_.lease_interval);
}

kube::Client::Callback NodeController::guarded(UniqueFunction<void(Result<std::string>)> then) {
  return [alive = alive_, then = std::move(then)](Result<std::string> result) {
    if (*alive) then(std::move(result));
  };
}

void NodeController::on_connected(const std::string& node) {
  State& state = nodes_[node];
  state.connected = true;
  state.gone_at = {};
  if (state.managed) enqueue(node);
}

void NodeController::on_disconnected(const std::string& node) {
  const auto it = nodes_.find(node);
  if (it == nodes_.end()) return;
  it->second.connected = false;
  it->second.gone_at = loop_.now();
  if (!it->second.managed && !it->second.working) nodes_.erase(it);
}

void NodeController::on_node_info(const std::string& node, const channel::Message& message) {
  const auto it = nodes_.find(node);
  if (it == nodes_.end()) return;
  Json info = message.content.size() <= options_.max_info_bytes
                  ? Json::parse(message.content, nullptr, false)
                  : Json();
  if (!info.is_object()) {
    EM_LOG(kWarn, "nodes", "node {} sent a report that is not a JSON object of at most {} bytes",
           node, options_.max_info_bytes);
    return;
  }
  info["name"] = node;  // whatever it calls itself
  it->second.info = info.dump(-1, ' ', false, Json::error_handler_t::replace);
  it->second.managed = true;
  enqueue(node);
}

void NodeController::tick() {
  const TimePoint now = loop_.now();
  for (auto& [node, state] : nodes_) {
    const bool retry = state.retry_at != TimePoint{} && state.retry_at <= now;
    const bool gone = !state.connected && state.gone_at != TimePoint{} &&
                      now - state.gone_at >= options_.gone_after;
    if (gone) state.gone_at = {};
    if (retry || gone) enqueue(node);
  }
  if (now >= next_recheck_) {
    next_recheck_ = now + options_.recheck;
    recheck("");
  }
}

void NodeController::enqueue(const std::string& node) {
  State& state = nodes_[node];
  state.retry_at = {};
  if (state.working) {
    state.again = true;
    return;
  }
  if (std::exchange(state.queued, true)) return;
  queue_.push_back(node);
  work();
}

void NodeController::work() {
  while (!queue_.empty() && in_flight_ < options_.max_in_flight) {
    const std::string node = std::move(queue_.front());
    queue_.pop_front();
    const auto it = nodes_.find(node);
    if (it == nodes_.end()) continue;
    it->second.queued = false;
    it->second.working = true;
    it->second.again = false;
    ++in_flight_;
    begin(node);
  }
}

void NodeController::begin(const std::string& node) {
  client_.get(kube::kNodes, "", node, guarded([this, node](Result<std::string> object) {
                on_object(node, std::move(object));
              }));
}

void NodeController::on_object(const std::string& node, Result<std::string> object) {
  if (object) {
    const bool gone = leases_ != nullptr && !nodes_[node].connected;
    return gone ? ask_lease(node, std::move(*object)) : patch_meta(node, *object);
  }
  // A node that is gone and whose object was deleted is not made again.
  State& state = nodes_[node];
  if (object.error().code == ErrorCode::kNotFound && state.connected) {
    if (!options_.may_create || options_.may_create(node)) return create(node);
    // Deleted this moment: its session ends as soon as the deletion is heard of.
    state.retry_at = loop_.now() + kTick;
  }
  finish(node, std::move(object));
}

// It may be connected to another cloud by now.
void NodeController::ask_lease(const std::string& node, std::string object) {
  leases_->ask(node, [this, node, object = std::move(object)](Result<NodeLeases::Sign> sign) {
    if (!sign) return finish(node, fail(sign.error()));
    State& state = nodes_[node];
    if (state.connected || *sign == NodeLeases::Sign::kDead) return patch_meta(node, object);
    if (*sign == NodeLeases::Sign::kAskAgain) {
      state.gone_at = loop_.now() - options_.gone_after / 2;  // asks again after the other half
    }
    finish(node, object);
  });
}

Json NodeController::wanted_meta(const std::string& node, const State& state) const {
  const Json info = Json::parse(state.info, nullptr, false);
  Json labels{{kNodeLabel, "true"},
              {"kubernetes.io/hostname", node},
              {"kubernetes.io/os", "linux"},
              {"node-role.kubernetes.io/edge", ""}};
  const auto set = [&](const char* label, const char* key) {
    const Json value = at(info, key);
    if (value.is_string() && is_label_value(value.get<std::string>())) labels[label] = value;
  };
  set("topology.kubernetes.io/zone", "zone");
  set("kubernetes.io/arch", "arch");
  Json meta{{"labels", labels}};
  if (!state.info.empty()) meta["annotations"] = {{kMeshAnnotation, state.info}};
  return meta;
}

Json NodeController::wanted_status(const State& state) const {
  const std::string now = kube::rfc3339(loop_.clock().wall_now());
  Json condition{{"type", "Ready"},
                 {"status", state.connected ? "True" : "Unknown"},
                 {"reason", state.connected ? kConnectedReason : kGoneReason},
                 {"message", state.connected ? "the agent is connected"
                                             : "the agent has not been connected for a while"},
                 {"lastHeartbeatTime", now},
                 {"lastTransitionTime", now}};
  Json status{{"conditions", Json::array({condition})}};
  Json addresses = Json::array();
  const Json info = Json::parse(state.info, nullptr, false);
  for (const Json& address : at(info, "addresses")) {
    if (!address.is_string() || addresses.size() >= 16) continue;
    const auto ip = IpAddr::parse(address.get<std::string>());
    if (ip) addresses.push_back({{"type", "InternalIP"}, {"address", ip->to_string()}});
  }
  if (const Json name = at(info, "name"); name.is_string()) {
    addresses.push_back({{"type", "Hostname"}, {"address", name}});
    status["addresses"] = addresses;
  }
  return status;
}

void NodeController::create(const std::string& node) {
  const State& state = nodes_[node];
  Json object{{"apiVersion", "v1"}, {"kind", "Node"}, {"metadata", wanted_meta(node, state)}};
  object["metadata"]["name"] = node;
  object["status"] = wanted_status(state);
  EM_LOG(kInfo, "nodes", "making the Node object of {}", node);
  client_.create(kube::kNodes, "", object.dump(), {},
                 guarded([this, node](Result<std::string> result) {
                   // Some servers drop the status of a create.
                   if (result) return patch_status(node, *result);
                   finish(node, std::move(result));
                 }));
}

void NodeController::patch_meta(const std::string& node, const std::string& object) {
  const Json have = at(Json::parse(object, nullptr, false), "metadata");
  const Json meta = wanted_meta(node, nodes_[node]);
  Json patch;
  for (const auto& [part, want] : meta.items()) {
    const Json change = differing(want, at(have, part.c_str()));
    if (!change.is_null()) patch["metadata"][part] = change;
  }
  if (patch.is_null() || !nodes_[node].managed) return patch_status(node, object);
  client_.patch(kube::kNodes, "", node, kube::PatchKind::kMerge, patch.dump(), {},
                guarded([this, node](Result<std::string> result) {
                  if (result) return patch_status(node, *result);
                  finish(node, std::move(result));
                }));
}

void NodeController::patch_status(const std::string& node, const std::string& object) {
  const Json have = Json::parse(object, nullptr, false);
  const Json want = wanted_status(nodes_[node]);
  // A merge patch with whole lists: the strategic one merges addresses by type, and a node may have
  // several of one type. The version makes sure that no other writer's condition is lost.
  Json status;
  const Json ready = ready_condition(have);
  const bool others = kept_by_another(ready) && (!options_.judges_all || nodes_[node].connected);
  if (at(ready, "status") != want["conditions"][0]["status"] && !others) {
    Json conditions = Json::array();
    for (const Json& condition : at(at(have, "status"), "conditions")) {
      if (at(condition, "type") != "Ready") conditions.push_back(condition);
    }
    conditions.push_back(want["conditions"][0]);
    status["conditions"] = conditions;
  }
  const Json addresses = at(want, "addresses");
  if (!addresses.is_null() && at(at(have, "status"), "addresses") != addresses) {
    status["addresses"] = addresses;
  }
  if (status.is_null()) return finish(node, object);
  const Json patch{{"metadata", {{"resourceVersion", at(at(have, "metadata"), "resourceVersion")}}},
                   {"status", status}};
  kube::WriteOptions options;
  options.subresource = "status";
  client_.patch(
      kube::kNodes, "", node, kube::PatchKind::kMerge, patch.dump(), options,
      guarded([this, node](Result<std::string> result) { finish(node, std::move(result)); }));
}

void NodeController::finish(const std::string& node, Result<std::string> result) {
  --in_flight_;
  if (const auto it = nodes_.find(node); it != nodes_.end()) {
    State& state = it->second;
    state.working = false;
    const bool vanished = !result && result.error().code == ErrorCode::kNotFound;
    if (result || vanished) {
      state.failures = 0;
    } else {
      state.failures = std::min(state.failures + 1, 5);
      state.retry_at = loop_.now() + std::chrono::seconds(1 << state.failures);
      EM_LOG(kWarn, "nodes", "node {}: {}; trying again", node, result.error().message);
    }
    if (state.again) {
      enqueue(node);
    } else if (!state.connected && state.gone_at == TimePoint{} && state.retry_at == TimePoint{}) {
      nodes_.erase(it);
    }
  }
  work();
}

void NodeController::recheck(const std::string& page) {
  kube::ListOptions options;
  options.label_selector = std::string(kNodeLabel) + "=true";
  options.limit = kPage;
  options.continue_token = page;
  client_.list(kube::kNodes, "", options, guarded([this](Result<std::string> list) {
                 if (!list) {
                   EM_LOG(kWarn, "nodes", "nodes cannot be listed: {}; trying again",
                          list.error().message);
                   next_recheck_ = loop_.now() + kListAgain;
                   return;
                 }
                 const Json parsed = Json::parse(*list, nullptr, false);
                 for (const Json& item : at(parsed, "items")) recheck_node(item);
                 const Json next = at(at(parsed, "metadata"), "continue");
                 if (next.is_string() && next != Json("")) recheck(next.get<std::string>());
               }));
}

void NodeController::recheck_node(const Json& object) {
  const Json name = at(at(object, "metadata"), "name");
  const Json ready = ready_condition(object);
  if (!name.is_string() || (kept_by_another(ready) && !options_.judges_all)) return;
  const auto it = nodes_.find(name.get<std::string>());
  if (it == nodes_.end() && options_.leads && !options_.leads()) return;
  const bool is_ready = at(ready, "status") == "True";
  const bool lost = it != nodes_.end() && it->second.connected && it->second.managed && !is_ready;
  if (it == nodes_.end() ? is_ready : lost && !kept_by_another(ready)) {
    enqueue(name.get<std::string>());
  }
}

void NodeController::renew_leases() {
  for (const auto& [node, state] : nodes_) {
    if (state.connected && state.managed) leases_->renew(node);
  }
}

}  // namespace edgemesh::cloud
