#include "agent/mesh_module.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "agent/hub_client.h"
#include "core/base/log.h"
#include "core/channel/message.h"
#include "kube/json_util.h"

namespace edgemesh::agent {

namespace {

using Json = nlohmann::json;

constexpr std::string_view kServiceType = "service";
constexpr std::string_view kSliceType = "endpointslice";
constexpr std::string_view kPeerType = "peer";
constexpr std::string_view kConfigType = "meshconfig";
constexpr std::string_view kConfigKey = "mesh/config";
constexpr std::string_view kPositionKey = "mesh/sync";
constexpr std::string_view kPeerPrefix = "peer/";

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string text_of(const Json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

int64_t unix_seconds(const io::Loop& loop) {
  return std::chrono::duration_cast<std::chrono::seconds>(
             loop.clock().wall_now().time_since_epoch())
      .count();
}

}  // namespace

MeshModule::MeshModule(io::Loop& loop, Options options, Metastore& store, MeshSink& sink,
                       obs::Registry& registry)
    : loop_(loop),
      options_(std::move(options)),
      store_(store),
      sink_(sink),
      sync_timer_(loop, [this] { request_sync(); }),
      synced_(registry.gauge("edgemesh_mesh_synced", "1 while in step with the cloud.")),
      changes_(registry.counter("edgemesh_mesh_changes_total", "Changes from the cloud.")),
      bad_objects_(registry.counter("edgemesh_mesh_bad_objects_total",
                                    "Objects from the cloud that could not be read.")),
      signals_in_(
          registry.counter("edgemesh_mesh_signals_total", "Peer signals.", {{"dir", "in"}})),
      signals_out_(
          registry.counter("edgemesh_mesh_signals_total", "Peer signals.", {{"dir", "out"}})) {
  load_settings();
}

MeshModule::~MeshModule() {
  put_position();
  store_.set_hooks(nullptr, nullptr);
}

bool MeshModule::parse_key(std::string_view resource, Key* out) {
  const size_t first = resource.find('/');
  if (first == std::string_view::npos) return false;
  const size_t second = resource.find('/', first + 1);
  if (second == std::string_view::npos || first == 0 || second + 1 == resource.size()) return false;
  const std::string_view type = resource.substr(first + 1, second - first - 1);
  if (resource.find('/', second + 1) != std::string_view::npos) return false;
  if (type != kServiceType && type != kSliceType) return false;
  out->kind = type == kServiceType ? Kind::kService : Kind::kSlice;
  out->ns = resource.substr(0, first);
  out->name = resource.substr(second + 1);
  return true;
}

// ---- from disk

void MeshModule::load_settings() {
  auto config = store_.get(kConfigKey);
  if (config && !config->empty()) {
    if (auto parsed = parse_mesh_config(*config)) {
      config_ = std::move(*parsed);
      config_json_ = std::move(*config);
    } else {
      EM_LOG(kWarn, "mesh", "stored configuration: {}", parsed.error().message);
    }
  }
  store_.set_hooks([this] { put_position(); }, [this] { on_lost(); });
  if (auto position = store_.get(kPositionKey); position && !position->empty()) {
    const Json value = Json::parse(*position, nullptr, false);
    epoch_ = text_of(value, "epoch");
    version_ = text_of(value, "resourceVersion");
  }
  const auto read =
      store_.for_each(kPeerType, [this](const std::string& key, std::string_view text) {
        const Json value = Json::parse(text, nullptr, false);
        if (!value.is_array() || peers_.size() >= options_.max_peers) return;
        StoredPeer peer{key.substr(kPeerPrefix.size()), {}};
        for (const Json& item : value) {
          auto addr = SockAddr::parse(item.is_string() ? item.get<std::string>() : "");
          if (addr) peer.direct.push_back(*addr);
        }
        peers_.push_back(std::move(peer));
      });
  if (!read) EM_LOG(kWarn, "mesh", "stored peers: {}", read.error().message);
}

Result<> MeshModule::load_objects(Kind kind) {
  const std::string_view type = kind == Kind::kService ? kServiceType : kSliceType;
  return store_.for_each(type, [this](const std::string& stored_key, std::string_view json) {
    Key key;
    if (parse_key(stored_key, &key)) apply(key, json);
  });
}

Result<> MeshModule::start(bus::Bus& bus) {
  bus_ = &bus;
  sink_.on_config(config_);
  EM_TRY_VOID(load_objects(Kind::kService));
  EM_TRY_VOID(load_objects(Kind::kSlice));
  status_.loaded = true;
  if (!epoch_.empty()) {
    const Status now = status();
    EM_LOG(kInfo, "mesh", "{} services and {} endpoint slices are known from before", now.services,
           now.slices);
    sink_.on_synced();
  }
  return {};
}

void MeshModule::stop() {
  bus_ = nullptr;
  connected_ = false;
  phase_ = Phase::kIdle;
  sync_timer_.stop();
}

// ---- the channel

void MeshModule::on_message(bus::Message message) {
  if (message.resource == "node/connection" && message.operation == "connect")
    return on_connection(message.content == "\"cloud_connected\"");
  if (message.operation == "error") return on_error(message);
  if (message.operation == "signal") {
    if (!message.resource.starts_with(kPeerPrefix)) return;
    signals_in_.add();
    return sink_.on_signal(message.resource.substr(kPeerPrefix.size()),
                           channel::content_text(message));
  }
  // What a connection that has ended meanwhile brought is worth nothing: its sync is void.
  if (!connected_) return;
  if (message.operation == "response" && message.resource.starts_with("sync/"))
    return on_sync(message);
  if (message.operation == "update" && message.resource == "config")
    return on_config_message(message);
  if (message.operation == "update" && message.resource == "revoked")
    return on_revoked_message(message);
  Key key;
  if (parse_key(message.resource, &key)) return on_change(std::move(message), key);
  EM_LOG(kDebug, "mesh", "{} {} is not known to this version", message.operation,
         message.resource.substr(0, 200));
}

void MeshModule::on_connection(bool connected) {
  connected_ = connected;
  phase_ = Phase::kIdle;
  status_.synced = false;
  info_sent_ = false;
  synced_.set(0);
  sync_timer_.stop();
  if (!connected) return;
  request_sync();
  if (has_info_) send_node_info();
}

Result<> MeshModule::to_cloud(bus::Message message) {
  if (bus_ == nullptr || !connected_)
    return fail(ErrorCode::kUnavailable, "no connection to the cloud");
  return bus_->send(kHubModule, std::move(message));
}

void MeshModule::request_sync() {
  if (!connected_) return;
  phase_ = Phase::kAsked;
  sync_timer_.start(options_.sync_retry);
  // A full sync that broke off goes on where it was: on a line that drops every minute it would never
  // end otherwise.
  const bool resumes = !part_version_.empty();
  const Json content{{"resourceVersion", resumes ? part_version_ : version_},
                     {"epoch", resumes ? part_epoch_ : epoch_}};
  if (auto sent = to_cloud(bus::make_message("mesh", "mesh", "get", "sync", dump(content))); !sent)
    EM_LOG(kWarn, "mesh", "the sync cannot be asked for: {}", sent.error().message);
}

void MeshModule::on_error(const bus::Message& message) {
  const Json content = Json::parse(channel::content_text(message), nullptr, false);
  std::string reason = text_of(content, "reason");
  if (reason.empty()) reason = message.content.substr(0, 200);
  if (message.resource.starts_with(kPeerPrefix))
    return sink_.on_signal_error(message.resource.substr(kPeerPrefix.size()), reason);
  if (message.resource == "node") info_sent_ = false;
  // A sync that could not be asked for is asked for again by the timer.
  EM_LOG(kDebug, "mesh", "{}: {}", message.resource.substr(0, 200), reason);
}

// ---- sync

void MeshModule::on_sync(const bus::Message& message) {
  const Json content = Json::parse(channel::content_text(message), nullptr, false);
  if (!content.is_object()) return;
  if (message.resource == "sync/begin") {
    const auto full = content.find("full");
    begin_sync(full == content.end() || !full->is_boolean() || full->get<bool>(),
               text_of(content, "epoch"));
  } else if (message.resource == "sync/end" && phase_ == Phase::kSyncing) {
    end_sync(text_of(content, "epoch"), text_of(content, "resourceVersion"));
  }
}

void MeshModule::begin_sync(bool full, const std::string& epoch) {
  phase_ = Phase::kSyncing;
  full_ = full;
  sync_epoch_ = epoch;
  sync_timer_.start(options_.sync_retry);
  // The rest of a full sync: what it has not named yet still is not known to exist.
  if (!full && !part_version_.empty() && epoch == part_epoch_) return;
  stale_.clear();
  part_version_.clear();
  part_epoch_.clear();
  if (!full) return;
  for (const std::string_view type : {kServiceType, kSliceType}) {
    for (std::string& key : store_.keys(type)) stale_.insert(std::move(key));
  }
}

void MeshModule::end_sync(const std::string& epoch, const std::string& version) {
  for (const std::string& stored_key : stale_) {
    Key key;
    if (parse_key(stored_key, &key)) remove(key, stored_key);
  }
  const size_t gone = std::exchange(stale_, {}).size();
  part_version_.clear();
  part_epoch_.clear();
  phase_ = Phase::kLive;
  sync_timer_.stop();
  epoch_ = epoch;
  version_ = version;
  position_waits_ = true;
  // Also when the sync brought no change and nothing else is to be written.
  if (!epoch_.empty()) put_position();
  status_.synced = true;
  status_.last_sync = unix_seconds(loop_);
  ++(full_ ? status_.full_syncs : status_.delta_syncs);
  synced_.set(1);
  const Status now = status();
  EM_LOG(kInfo, "mesh",
         "in step with the cloud ({} sync, {} gone): {} services, {} endpoint slices",
         full_ ? "full" : "delta", gone, now.services, now.slices);
  sink_.on_synced();
}

void MeshModule::on_change(bus::Message message, const Key& key) {
  // Changes before the sync began belong to no known position.
  if (phase_ != Phase::kSyncing && phase_ != Phase::kLive) return;
  changes_.add();
  ++status_.changes;
  if (message.operation == "delete") {
    remove(key, message.resource);
  } else if (message.operation == "insert" || message.operation == "update") {
    std::string json = channel::content_text(message);
    if (apply(key, json)) {
      const std::string_view type = key.kind == Kind::kService ? kServiceType : kSliceType;
      if (!store_.put(message.resource, type, std::move(json))) on_lost();
    }
  } else {
    return;
  }
  stale_.erase(message.resource);
  if (phase_ == Phase::kSyncing) sync_timer_.start(options_.sync_retry);
  if (message.resource_version.empty()) return;
  // Until a full sync is whole its position counts for this run only: what is stale is in memory.
  if (phase_ == Phase::kSyncing && (full_ || !part_version_.empty())) {
    part_version_ = message.resource_version;
    part_epoch_ = sync_epoch_;
    return;
  }
  if (epoch_.empty()) return;  // something was lost: no position until the next full sync
  version_ = message.resource_version;
  position_waits_ = true;
}

bool MeshModule::apply(const Key& key, std::string_view json) {
  const auto bad = [&](std::string_view why) {
    bad_objects_.add();
    ++status_.bad_objects;
    EM_LOG(kWarn, "mesh", "{}/{} cannot be read, its last good state is kept: {}", key.ns, key.name,
           why);
    return false;
  };
  if (key.kind == Kind::kService) {
    auto service = kube::parse_service(json);
    if (!service) return bad(service.error().message);
    if (service->ns != key.ns || service->name != key.name)
      return bad("it has another name inside");
    sink_.upsert_service(*service);
  } else {
    auto slice = kube::parse_endpoint_slice(json);
    if (!slice) return bad(slice.error().message);
    if (slice->ns != key.ns || slice->name != key.name) return bad("it has another name inside");
    sink_.upsert_slice(*slice);
  }
  return true;
}

void MeshModule::remove(const Key& key, std::string_view stored_key) {
  if (key.kind == Kind::kService)
    sink_.remove_service(key.ns, key.name);
  else
    sink_.remove_slice(key.ns, key.name);
  store_.remove(stored_key);
}

// Called when the objects of a turn are about to be written: the position goes with them.
void MeshModule::put_position() {
  if (!std::exchange(position_waits_, false)) return;
  store_.put(kPositionKey, Metastore::kPositionType,
             dump(Json{{"epoch", epoch_}, {"resourceVersion", version_}}));
}

// Something is not on disk. No position may be written from here on that would hide it from the next
// start: until a full sync is through there is none.
void MeshModule::on_lost() {
  epoch_.clear();
  version_.clear();
  part_epoch_.clear();
  part_version_.clear();
  position_waits_ = false;
  store_.remove(kPositionKey);
}

void MeshModule::on_config_message(const bus::Message& message) {
  take_config(channel::content_text(message));
}

void MeshModule::on_revoked_message(const bus::Message& message) {
  const Json change = Json::parse(channel::content_text(message), nullptr, false);
  Json config = config_json_.empty() ? Json::object() : Json::parse(config_json_, nullptr, false);
  if (!change.is_object() || !config.is_object()) return;
  std::map<std::string, Json> entries;
  if (const Json* known = kube::find(config, "revoked"); known != nullptr && known->is_array()) {
    for (const Json& entry : *known) entries[text_of(entry, "node")] = entry;
  }
  if (const Json* removed = kube::find(change, "removed"); removed && removed->is_array()) {
    for (const Json& node : *removed)
      if (node.is_string()) entries.erase(node.get<std::string>());
  }
  if (const Json* changed = kube::find(change, "changed"); changed && changed->is_array()) {
    for (const Json& entry : *changed) entries[text_of(entry, "node")] = entry;
  }
  Json& list = config["revoked"] = Json::array();
  for (auto& [node, entry] : entries) list.push_back(std::move(entry));
  take_config(dump(config));
}

void MeshModule::take_config(std::string json) {
  auto parsed = parse_mesh_config(json);
  if (!parsed) {
    EM_LOG(kWarn, "mesh", "the cloud's configuration is not taken: {}", parsed.error().message);
    return;
  }
  config_ = std::move(*parsed);
  config_json_ = json;
  store_.put(kConfigKey, kConfigType, std::move(json));
  sink_.on_config(config_);
}

// ---- node and peers

void MeshModule::set_node_info(NodeInfo info) {
  if (has_info_ && info_sent_ && info == info_) return;
  info_ = std::move(info);
  has_info_ = true;
  if (connected_) send_node_info();
}

void MeshModule::send_node_info() {
  const Json content{{"name", options_.node},     {"addresses", info_.addresses},
                     {"zone", info_.zone},        {"directPort", info_.direct_port},
                     {"natKind", info_.nat_kind}, {"version", info_.version}};
  info_sent_ =
      to_cloud(bus::make_message("mesh", "mesh", "update", "node", dump(content))).has_value();
}

void MeshModule::send_signal(const std::string& to_node, std::string json) {
  if (json.size() > options_.max_signal_bytes)
    return signal_failed(to_node, fmt::format("a signal of {} bytes is too large", json.size()));
  auto sent = to_cloud(bus::make_message("mesh", "mesh", "signal",
                                         std::string(kPeerPrefix) + to_node, std::move(json)));
  if (!sent) return signal_failed(to_node, sent.error().message);
  signals_out_.add();
}

void MeshModule::signal_failed(const std::string& node, std::string reason) {
  loop_.post([this, alive = std::weak_ptr<bool>(alive_), node, reason = std::move(reason)] {
    if (alive.lock() && bus_ != nullptr) sink_.on_signal_error(node, reason);
  });
}

void MeshModule::persist_peers(std::vector<StoredPeer> peers) {
  if (peers.size() > options_.max_peers) peers.resize(options_.max_peers);
  std::unordered_set<std::string> gone;
  for (const StoredPeer& peer : peers_) gone.insert(peer.node);
  for (const StoredPeer& peer : peers) {
    gone.erase(peer.node);
    if (std::find(peers_.begin(), peers_.end(), peer) != peers_.end()) continue;
    Json addresses = Json::array();
    for (const SockAddr& addr : peer.direct) addresses.push_back(addr.to_string());
    store_.put(std::string(kPeerPrefix) + peer.node, kPeerType, dump(addresses));
  }
  for (const std::string& node : gone) store_.remove(std::string(kPeerPrefix) + node);
  peers_ = std::move(peers);
}

MeshModule::Status MeshModule::status() const {
  Status out = status_;
  out.epoch = epoch_;
  out.version = version_;
  out.services = store_.count(kServiceType);
  out.slices = store_.count(kSliceType);
  return out;
}

}  // namespace edgemesh::agent
