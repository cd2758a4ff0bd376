#include "cloud/edge/reliable_sender.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr Duration kTick = std::chrono::seconds(1);

channel::Message message_for(const ObjectRef& ref, std::string operation, std::string version,
                             std::string content) {
  channel::Message message;
  message.id = channel::new_id();
  message.timestamp_ms = channel::now_ms();
  message.resource_version = std::move(version);
  message.source = "edgecontroller";
  message.group = "resource";
  message.operation = std::move(operation);
  message.resource = ref.resource();
  message.content = std::move(content);
  return message;
}

// As KubeEdge's sync controller: what identifies the object, and nothing else of it.
std::string tombstone(const ObjectRef& ref) {
  Json object{{"kind", ref.type->kind},
              {"apiVersion", ref.type->api_version()},
              {"metadata", {{"name", ref.name}, {"uid", ref.uid}}}};
  if (!ref.ns.empty()) object["metadata"]["namespace"] = ref.ns;
  return kube::to_text(object);
}

}  // namespace

ReliableSender::ReliableSender(io::Loop& loop, kube::Client& client, NodeLink& link, SyncBook& book,
                               Options options, obs::Registry& registry)
    : loop_(loop),
      client_(client),
      link_(link),
      book_(book),
      options_(options),
      tick_timer_(loop, [this] { tick(); }),
      sent_(registry.counter("edgemesh_edge_sent_total", "Objects sent to nodes.")),
      resent_(registry.counter("edgemesh_edge_resent_total",
                               "Objects sent again because a node did not confirm them.")),
      confirmed_(
          registry.counter("edgemesh_edge_confirmed_total", "Objects that nodes confirmed.")),
      refused_(registry.counter("edgemesh_edge_refused_total",
                                "Objects that a node answered with an error.")),
      confirm_time_(registry.histogram(
          "edgemesh_edge_confirm_seconds",
          "From the message to a node to its answer, which says that the object is on its disk.",
          {0.0002, 0.0003, 0.0005, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05,
           0.1, 0.5, 2, 10})) {
  tick_timer_.start_repeating(kTick);
}

ReliableSender::~ReliableSender() {
  *alive_ = false;
}

void ReliableSender::on_connected(const std::string& node) {
  nodes_[node];
}

void ReliableSender::on_disconnected(const std::string& node) {
  nodes_.erase(node);
  to_pump_.erase(node);
}

size_t ReliableSender::unconfirmed() const {
  size_t count = 0;
  for (const auto& [name, node] : nodes_) count += node.items.size();
  return count;
}

size_t ReliableSender::unconfirmed(const std::string& node) const {
  const auto it = nodes_.find(node);
  return it == nodes_.end() ? 0 : it->second.items.size();
}

void ReliableSender::want(const std::string& node, const ObjectRef& ref,
                          const std::string& version) {
  put(node, ref, version, false);
}

void ReliableSender::drop(const std::string& node, const ObjectRef& ref) {
  put(node, ref, "", true);
}

void ReliableSender::put(const std::string& node, const ObjectRef& ref, const std::string& version,
                         bool deletion) {
  const auto it = nodes_.find(node);
  if (it == nodes_.end()) return;  // it gets what it lacks when it connects
  const auto [at, fresh] = it->second.items.try_emplace(ref.uid);
  Item& item = at->second;
  // Always: what a node said that it holds may have named it otherwise.
  item.ref = ref;
  item.version = version;
  item.deletion = deletion;
  if (fresh) {
    it->second.queue.push_back(ref.uid);
    pump_later(node);
  } else if (item.state == State::kReading || item.state == State::kInFlight) {
    item.again = true;
  }
}

void ReliableSender::pump_later(const std::string& name) {
  const bool scheduled = !to_pump_.empty();
  to_pump_.insert(name);
  if (scheduled) return;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    for (const std::string& node : std::exchange(to_pump_, {})) {
      if (const auto it = nodes_.find(node); it != nodes_.end()) pump(node, it->second);
    }
    run_reads();
  });
}

void ReliableSender::pump(const std::string& name, Node& node) {
  while (!node.queue.empty() && node.in_flight < options_.max_in_flight &&
         node.bytes < options_.max_in_flight_bytes) {
    const std::string uid = std::move(node.queue.front());
    node.queue.pop_front();
    const auto it = node.items.find(uid);
    if (it == node.items.end() || it->second.state != State::kQueued) continue;
    Item& item = it->second;
    ++node.in_flight;
    item.again = false;
    if (item.deletion) {
      send_deletion(name, node, item);
    } else {
      item.state = State::kReading;
      read(name, item.ref);
    }
  }
}

// --- reading ---

void ReliableSender::read(const std::string& name, const ObjectRef& ref) {
  const auto [it, fresh] = reads_.try_emplace(ref.uid);
  it->second.nodes.push_back(name);
  if (!fresh) return;
  it->second.ref = ref;
  read_queue_.push_back(ref.uid);
}

void ReliableSender::run_reads() {
  while (reading_ < options_.max_reads && !read_queue_.empty()) {
    const std::string uid = std::move(read_queue_.front());
    read_queue_.pop_front();
    const ObjectRef ref = reads_.at(uid).ref;
    ++reading_;
    client_.get(*ref.type, ref.ns, ref.name,
                [this, alive = alive_, uid](Result<std::string> result) {
                  if (*alive) on_read(uid, std::move(result));
                });
  }
}

void ReliableSender::on_read(const std::string& uid, Result<std::string> object) {
  --reading_;
  const auto read = reads_.extract(uid);
  const std::vector<std::string> nodes = std::move(read.mapped().nodes);
  std::string version;
  if (object) {
    const Json json = Json::parse(*object, nullptr, false);
    version = kube::text_at(json, "metadata", "resourceVersion");
    // Made anew under the same name: the new one is wanted by itself.
    if (kube::text_at(json, "metadata", "uid") != uid)
      object = fail(ErrorCode::kNotFound, "replaced");
  }
  for (const std::string& name : nodes) {
    const auto node = nodes_.find(name);
    if (node == nodes_.end()) continue;
    const auto item = node->second.items.find(uid);
    if (item == node->second.items.end() || item->second.state != State::kReading) continue;
    deliver(name, node->second, item->second, object, version);
  }
  run_reads();
}

void ReliableSender::deliver(const std::string& name, Node& node, Item& item,
                             const Result<std::string>& object, const std::string& version) {
  if (item.deletion || (!object && object.error().code == ErrorCode::kNotFound)) {
    item.deletion = true;
    return send_deletion(name, node, item);
  }
  if (!object) {
    EM_LOG(kDebug, "edge", "reading {} for node {}: {}", item.ref.resource(), name,
           object.error().message);
    return delay(name, node, item);
  }
  send_object(name, node, item, *object, version);
}

// --- sending ---

void ReliableSender::send_object(const std::string& name, Node& node, Item& item,
                                 const std::string& object, const std::string& version) {
  const SyncBook::Entry* known = book_.find(name, item.ref.uid);
  if (known != nullptr && known->version != "0" &&
      kube::version_at_least(known->version, version)) {
    return settle(name, node, item.ref.uid);
  }
  // A secret's first message is an update, too, as KubeEdge's.
  const bool fresh =
      (known == nullptr || known->version == "0") && !(*item.ref.type == kube::kSecrets);
  const char* operation = fresh ? "insert" : "update";
  Encoded& encoded = encoded_[item.ref.uid];
  if (encoded.frame == nullptr || encoded.version != version || encoded.operation != operation) {
    const channel::Message message = message_for(item.ref, operation, version, object);
    encoded = {version, operation, message.id,
               std::make_shared<const std::string>(channel::encode(message))};
  }
  // It was read before the last change of it was known.
  if (!item.version.empty() && !kube::version_at_least(version, item.version)) item.again = true;
  if (known == nullptr) book_.record(name, item.ref, "0");
  transmit(name, node, item, encoded);
}

void ReliableSender::send_deletion(const std::string& name, Node& node, Item& item) {
  // The node never heard of it.
  if (book_.find(name, item.ref.uid) == nullptr && item.ids.empty()) {
    return settle(name, node, item.ref.uid);
  }
  const channel::Message message = message_for(item.ref, "delete", "", tombstone(item.ref));
  transmit(name, node, item,
           {"", message.operation, message.id,
            std::make_shared<const std::string>(channel::encode(message))});
}

void ReliableSender::transmit(const std::string& name, Node& node, Item& item,
                              const Encoded& message) {
  item.state = State::kInFlight;
  item.bytes = message.frame->size();
  node.bytes += item.bytes;
  if (node.waiting
          .try_emplace(message.message_id,
                       Sent{item.ref.uid, message.version, item.deletion, loop_.clock().now()})
          .second) {
    item.ids.push_back(message.message_id);
  }
  sent_.add();
  if (item.tries > 0) resent_.add();
  ++item.tries;
  schedule(name, item);
  // A node that cannot take it is cut by the hub: then everything begins anew with its next
  // connection.
  link_.send(name, message.frame);
}

void ReliableSender::schedule(const std::string& name, Item& item) {
  const int doublings = std::clamp(item.tries - 1, 0, 6);
  const Duration wait = std::min(options_.resend * (1 << doublings), options_.max_resend);
  item.resend_at = loop_.now() + wait;
  deadlines_.emplace(item.resend_at, std::pair(name, item.ref.uid));
}

void ReliableSender::leave_flight(Node& node, Item& item) {
  if (item.state == State::kReading || item.state == State::kInFlight) --node.in_flight;
  node.bytes -= item.bytes;
  item.bytes = 0;
}

void ReliableSender::delay(const std::string& name, Node& node, Item& item) {
  leave_flight(node, item);
  item.state = State::kDelayed;
  ++item.tries;
  schedule(name, item);
  pump_later(name);
}

void ReliableSender::requeue(const std::string& name, Node& node, Item& item) {
  leave_flight(node, item);
  item.state = State::kQueued;
  node.queue.push_back(item.ref.uid);
  pump_later(name);
}

void ReliableSender::settle(const std::string& name, Node& node, const std::string& uid) {
  const auto it = node.items.find(uid);
  leave_flight(node, it->second);
  for (const std::string& id : it->second.ids) node.waiting.erase(id);
  if (it->second.again) {
    it->second.ids.clear();
    it->second.tries = 0;
    it->second.again = false;
    it->second.state = State::kQueued;
    node.queue.push_back(uid);
  } else {
    node.items.erase(it);
  }
  pump_later(name);
}

bool ReliableSender::on_answer(const std::string& name, const std::string& parent_id, bool failed) {
  const auto at = nodes_.find(name);
  if (at == nodes_.end()) return false;
  Node& node = at->second;
  const auto sent = node.waiting.find(parent_id);
  if (sent == node.waiting.end()) return false;
  const Sent about = sent->second;
  Item& item = node.items.at(about.uid);
  if (failed) {
    refused_.add();
    if (item.state == State::kInFlight) delay(name, node, item);
    return true;
  }
  confirmed_.add();
  confirm_time_.observe(std::chrono::duration<double>(loop_.clock().now() - about.at).count());
  if (about.deletion) {
    book_.forget(name, about.uid);
  } else {
    book_.record(name, item.ref, about.version);
  }
  // An answer to an earlier message, while something newer is on its way: that one is waited for.
  const bool newest =
      about.deletion == item.deletion && (about.deletion || item.version.empty() ||
                                          kube::version_at_least(about.version, item.version));
  if (!newest && item.state != State::kInFlight) return true;
  if (!newest) item.again = true;
  settle(name, node, about.uid);
  return true;
}

void ReliableSender::tick() {
  encoded_.clear();
  const TimePoint now = loop_.now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const auto [when, key] = *deadlines_.begin();
    deadlines_.erase(deadlines_.begin());
    const auto node = nodes_.find(key.first);
    if (node == nodes_.end()) continue;
    const auto item = node->second.items.find(key.second);
    if (item == node->second.items.end() || item->second.resend_at != when) continue;
    const State state = item->second.state;
    if (state == State::kInFlight || state == State::kDelayed) {
      requeue(key.first, node->second, item->second);
    }
  }
}

}  // namespace edgemesh::cloud
