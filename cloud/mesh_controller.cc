#include "cloud/mesh_controller.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/files.h"
#include "cloud/turn_credentials.h"
#include "core/base/log.h"
#include "core/tls/x509.h"
#include "kube/objects.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr Duration kConfigCheck = std::chrono::seconds(30);
// After a change. Nodes that got a change younger than this need a full sync after a crash.
constexpr Duration kSaveDelay = std::chrono::seconds(2);
constexpr size_t kMaxLogFile = 256 << 20;

channel::Message mesh_message(const char* resource, std::string content) {
  channel::Message message;
  message.id = channel::new_id();
  message.timestamp_ms = channel::now_ms();
  message.source = "meshcontroller";
  message.group = "mesh";
  message.operation = "update";
  message.resource = resource;
  message.content = std::move(content);
  return message;
}

std::string random_epoch() {
  std::string out;
  for (const char c : tls::random_bytes(8)) out += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return out;
}

std::string log_key(const char* type_name, const kube::Informer::Object& object) {
  return object.ns + "/" + type_name + "/" + object.name;
}

Frame change_frame(uint64_t position, std::string_view operation, const std::string& key,
                   std::string content) {
  channel::Message message;
  message.id = channel::new_id();
  message.timestamp_ms = channel::now_ms();
  message.resource_version = std::to_string(position);
  message.source = "meshcontroller";
  message.group = "mesh";
  message.operation = operation;
  message.resource = key;
  message.content = std::move(content);
  return std::make_shared<const std::string>(channel::encode(message));
}

// "<ns>/service/<name>"
Frame deletion_frame(const std::string& key, uint64_t position) {
  const size_t first = key.find('/');
  const size_t second = key.find('/', first + 1);
  if (first == std::string::npos || second == std::string::npos) return nullptr;
  const bool service = key.substr(first + 1, second - first - 1) == "service";
  const kube::ResourceType& type = service ? kube::kServices : kube::kEndpointSlices;
  const Json content{
      {"kind", type.kind},
      {"apiVersion", type.api_version()},
      {"metadata", {{"name", key.substr(second + 1)}, {"namespace", key.substr(0, first)}}}};
  return change_frame(position, "delete", key, content.dump());
}

// What no node reads makes up half of many objects.
void strip(const kube::ResourceType& type, Json& object) {
  object["kind"] = type.kind;  // items of a list come without
  object["apiVersion"] = type.api_version();
  Json& meta = object["metadata"];
  if (!meta.is_object()) return;
  meta.erase("managedFields");
  if (const auto it = meta.find("annotations"); it != meta.end() && it->is_object()) {
    it->erase("kubectl.kubernetes.io/last-applied-configuration");
    it->erase("endpoints.kubernetes.io/last-change-trigger-time");
    if (it->empty()) meta.erase(it);
  }
}

}  // namespace

MeshController::MeshController(io::Loop& loop, kube::Client& client, NodeLink& link,
                               MeshOptions options, obs::Registry& registry)
    : loop_(loop),
      client_(client),
      link_(link),
      options_(std::move(options)),
      log_(random_epoch()),
      config_timer_(loop, [this] { refresh_configs(); }),
      save_timer_(loop, [this] { save_log(); }),
      changes_(registry.counter("edgemesh_mesh_changes_total", "Changes of the mesh's objects.")),
      full_syncs_(
          registry.counter("edgemesh_mesh_syncs_total", "Syncs begun.", {{"kind", "full"}})),
      delta_syncs_(
          registry.counter("edgemesh_mesh_syncs_total", "Syncs begun.", {{"kind", "delta"}})) {}

MeshController::~MeshController() {
  *alive_ = false;
  // Not beside a write that is under way: it is a few seconds old at most.
  if (restored_ && !options_.log_path.empty() && save_timer_.active() && !saving_) {
    const auto ok = write_file(options_.log_path, log_.save(), 0600);
    if (!ok) EM_LOG(kWarn, "mesh", "{}", ok.error().message);
  }
}

void MeshController::restore_log() {
  if (options_.log_path.empty()) return;
  const auto text = read_file(options_.log_path, kMaxLogFile);
  if (!text) {
    if (text.error().code != ErrorCode::kNotFound) {
      EM_LOG(kWarn, "mesh", "{}; nodes get everything anew", text.error().message);
    }
    return;
  }
  if (const auto ok = log_.restore(*text, deletion_frame); !ok) {
    EM_LOG(kWarn, "mesh", "{}: {}; nodes get everything anew", options_.log_path,
           ok.error().message);
  }
}

void MeshController::save_log() {
  // Before the lists are complete the file is better than what is in memory.
  if (!restored_ || options_.log_path.empty()) return;
  if (saving_) return save_timer_.start(kSaveDelay);  // a slow disk: one write at a time
  saving_ = true;
  auto text = std::make_shared<const std::string>(log_.save());
  loop_.offload(
      [text, path = options_.log_path] {
        const auto ok = write_file(path, *text, 0600);
        if (!ok) EM_LOG(kWarn, "mesh", "{}", ok.error().message);
      },
      [this, alive = alive_] {
        if (*alive) saving_ = false;
      });
}

void MeshController::start() {
  restore_log();
  services_ = make_informer(kube::kServices, "service");
  slices_ = make_informer(kube::kEndpointSlices, "endpointslice");
  services_->start();
  slices_->start();
  config_timer_.start_repeating(kConfigCheck);
}

bool MeshController::ready() const {
  return services_ != nullptr && services_->synced() && slices_->synced();
}

std::unique_ptr<kube::Informer> MeshController::make_informer(const kube::ResourceType& type,
                                                              const char* name) {
  kube::Informer::Options options;
  options.type = type;
  options.keep_json = false;  // the log has it
  kube::Informer::Handlers handlers;
  handlers.on_upsert = [this, type, name](const kube::Informer::Object& object) {
    on_upsert(type, name, object);
  };
  handlers.on_delete = [this, name](const kube::Informer::Object& object) {
    on_delete(name, object);
  };
  handlers.on_synced = [this] { on_synced(); };
  handlers.on_error = [name](const Error& error) {
    EM_LOG(kWarn, "mesh", "watch of {}s: {}; trying again", name, error.message);
  };
  return std::make_unique<kube::Informer>(loop_, client_, std::move(options), std::move(handlers));
}

void MeshController::on_upsert(const kube::ResourceType& type, const char* name,
                               const kube::Informer::Object& object) {
  auto json = kube::parse_json(object.json);
  if (!json || !json->is_object()) {
    EM_LOG(kError, "mesh", "{} {}/{} is not readable", name, object.ns, object.name);
    return;
  }
  strip(type, *json);
  const std::string key = log_key(name, object);
  // With the uid: versions of another cluster, or of a store that was made anew, may be the same numbers.
  const Json& meta = (*json)["metadata"];
  const auto uid = meta.is_object() ? meta.find("uid") : meta.end();
  std::string version = object.resource_version;
  if (meta.is_object() && uid != meta.end() && uid->is_string()) version = uid->get<std::string>() + ":" + version;
  const char* operation = log_.has(key) ? "update" : "insert";
  const bool changed = log_.put(key, version, [&](uint64_t position) {
    return change_frame(position, operation, key, json->dump());
  });
  if (!changed) return;
  changes_.add();
  if (!save_timer_.active()) save_timer_.start(kSaveDelay);
  if (ready()) link_.wake_all();
}

void MeshController::on_delete(const char* name, const kube::Informer::Object& object) {
  const std::string key = log_key(name, object);
  const bool changed =
      log_.remove(key, [&](uint64_t position) { return deletion_frame(key, position); });
  if (!changed) return;
  changes_.add();
  if (!save_timer_.active()) save_timer_.start(kSaveDelay);
  if (ready()) link_.wake_all();
}

void MeshController::on_synced() {
  if (!ready()) return;
  if (!std::exchange(restored_, true)) {
    log_.finish_restore(deletion_frame);
    if (!save_timer_.active()) save_timer_.start(kSaveDelay);
  }
  EM_LOG(kInfo, "mesh", "{} objects, position {}", log_.objects(), log_.head());
  for (auto& [node, state] : nodes_) {
    if (!std::exchange(state.waiting, false)) continue;
    state.cursor.request(log_, state.epoch, state.position, state.request_id);
    (state.cursor.full() ? full_syncs_ : delta_syncs_).add();
  }
  link_.wake_all();
}

void MeshController::set_revoked(std::vector<RevokedNode> revoked) {
  // Both are in the order of the names.
  Json changed = Json::array(), removed = Json::array();
  auto before = revoked_.begin();
  for (const RevokedNode& now : revoked) {
    for (; before != revoked_.end() && before->node < now.node; ++before)
      removed.push_back(before->node);
    const bool known = before != revoked_.end() && before->node == now.node;
    if (!known || before->before != now.before)
      changed.push_back({{"node", now.node}, {"before", now.before}});
    if (known) ++before;
  }
  for (; before != revoked_.end(); ++before) removed.push_back(before->node);
  revoked_ = std::move(revoked);
  if ((changed.empty() && removed.empty()) || nodes_.empty()) return;
  const Json content{{"changed", std::move(changed)}, {"removed", std::move(removed)}};
  // One encoding for all of them.
  const auto frame =
      std::make_shared<const std::string>(channel::encode(mesh_message("revoked", content.dump())));
  for (const auto& [node, state] : nodes_) link_.send(node, frame);
}

void MeshController::on_connected(const std::string& node) {
  NodeState& state = nodes_[node];
  state = {};
  send_config(node, state);
}

void MeshController::on_disconnected(const std::string& node) {
  nodes_.erase(node);
}

void MeshController::on_sync_request(const std::string& node, const channel::Message& message) {
  const auto it = nodes_.find(node);
  if (it == nodes_.end()) return;
  NodeState& state = it->second;
  const Json content = Json::parse(message.content, nullptr, false);
  const auto text = [&content](const char* key) {
    const auto at = content.is_object() ? content.find(key) : content.end();
    return content.is_object() && at != content.end() && at->is_string() ? at->get<std::string>()
                                                                         : std::string();
  };
  state.epoch = text("epoch");
  state.position = text("resourceVersion");
  state.request_id = message.id;
  if (!ready()) {
    state.waiting = true;
    return;
  }
  state.cursor.request(log_, state.epoch, state.position, state.request_id);
  (state.cursor.full() ? full_syncs_ : delta_syncs_).add();
  link_.wake(node);
}

Frame MeshController::next_frame(const std::string& node) {
  const auto it = nodes_.find(node);
  if (it == nodes_.end() || it->second.waiting) return nullptr;
  return it->second.cursor.next(log_);
}

int64_t MeshController::wall_seconds() const {
  return std::chrono::duration_cast<std::chrono::seconds>(
             loop_.clock().wall_now().time_since_epoch())
      .count();
}

void MeshController::send_config(const std::string& node, NodeState& state) {
  Json content{{"trustDomain", options_.trust_domain},
               {"clusterDomain", options_.cluster_domain},
               {"serviceCidrs", options_.service_cidrs},
               {"stun", options_.stun}};
  for (const RevokedNode& entry : revoked_) {
    content["revoked"].push_back({{"node", entry.node}, {"before", entry.before}});
  }
  state.config_expires = 0;
  if (const TurnOptions& turn = options_.turn; !turn.host.empty()) {
    const TurnCredentials credentials =
        make_turn_credentials(turn.secret, node, wall_seconds() + turn.lifetime.count());
    content["turn"] = {{"host", turn.host},
                       {"port", turn.port},
                       {"username", credentials.username},
                       {"password", credentials.password},
                       {"expires", credentials.expires}};
    state.config_expires = credentials.expires;
  }
  link_.send(node, mesh_message("config", content.dump()));
}

void MeshController::refresh_configs() {
  // At half of their life: an outage of the cloud of the other half does not end the relay.
  const int64_t limit = wall_seconds() + options_.turn.lifetime.count() / 2;
  for (auto& [node, state] : nodes_) {
    if (state.config_expires != 0 && state.config_expires < limit) send_config(node, state);
  }
}

}  // namespace edgemesh::cloud
