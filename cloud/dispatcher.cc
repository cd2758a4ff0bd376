#include "cloud/dispatcher.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/base/log.h"

namespace edgemesh::cloud {
namespace {

template <size_t N>
bool is_one_of(std::string_view text, const std::array<std::string_view, N>& list) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// Answered by the framing layer of KubeEdge's channel, below all routing.
constexpr std::array<std::string_view, 3> kControl{"config", "ping", "pong"};
constexpr std::array<std::string_view, 3> kTaskOperations{"prepull", "upgrade",
                                                          "updateNodeActionStatus"};
constexpr std::array<std::string_view, 6> kCloudSources{"cloudhub",         "cloudStream",
                                                        "devicecontroller", "edgecontroller",
                                                        "synccontroller",   "meshcontroller"};

}  // namespace

Dispatcher::Dispatcher(Parts parts, obs::Registry& registry)
    : parts_(std::move(parts)),
      ignored_(registry.counter("edgemesh_hub_ignored_total",
                                "Messages from nodes that nothing here answers.")) {}

void Dispatcher::on_connected(const std::string& node) {
  parts_.nodes.on_connected(node);
  parts_.mesh.on_connected(node);
  if (parts_.edge != nullptr) parts_.edge->on_connected(node);
}

void Dispatcher::on_disconnected(const std::string& node) {
  parts_.nodes.on_disconnected(node);
  parts_.mesh.on_disconnected(node);
  parts_.upstream.on_disconnected(node);
  if (parts_.edge != nullptr) parts_.edge->on_disconnected(node);
}

void Dispatcher::ignore(const std::string& node, const channel::Message& message, const char* why) {
  ignored_.add();
  EM_LOG(kDebug, "hub", "node {}: {} {} ({}) is ignored: {}", node, message.operation,
         message.resource.substr(0, 200), message.source, why);
}

void Dispatcher::answer(const std::string& node, const channel::Message& to, const char* source,
                        const char* group, std::string content) {
  channel::Message out;
  out.id = channel::new_id();
  out.parent_id = to.id;
  out.timestamp_ms = channel::now_ms();
  out.source = source;
  out.group = group;
  out.operation = "response";
  out.resource = to.resource;
  out.content = std::move(content);
  parts_.link.send(node, out);
}

void Dispatcher::on_message(const std::string& node, channel::Message message) {
  const std::string& operation = message.operation;
  if (is_one_of(operation, kControl) && message.group.empty()) {
    return answer(node, message, "", "", R"("ack")");
  }
  if (message.group == "mesh") return on_mesh(node, message);
  if (operation == "response" || operation == "error") {
    if (on_answer(node, message)) return;
    return ignore(node, message, "nothing waits for an answer");
  }
  if (message.resource == "k8s/ca.crt") {
    return answer(node, message, "cloudhub", "resource", nlohmann::json(parts_.kube_ca_pem).dump());
  }
  if (is_one_of(message.source, kCloudSources)) {
    return ignore(node, message, "its source is a part of the cloud");
  }
  if (message.source == channel::kApplicationSource && parts_.dynamic != nullptr) {
    return parts_.dynamic->on_message(node, message);
  }
  if (message.group == "user" || message.source == "metaserver" || message.source == "twin" ||
      is_one_of(operation, kTaskOperations)) {
    return ignore(node, message, "no controller for it runs here");
  }
  parts_.upstream.on_message(node, std::move(message));
}

bool Dispatcher::on_answer(const std::string& node, const channel::Message& message) {
  const bool failed = message.operation == "error";
  if (failed) {
    EM_LOG(kInfo, "hub", "node {} could not handle {}: {}", node, message.resource.substr(0, 200),
           message.content.substr(0, 500));
  }
  if (parts_.edge == nullptr || message.parent_id.empty()) return false;
  return parts_.edge->on_answer(node, message.parent_id, failed);
}

void Dispatcher::on_inventory(const std::string& node, const channel::Message& message) {
  if (parts_.edge == nullptr) return ignore(node, message, "pods do not go to nodes here");
  const auto content = nlohmann::json::parse(channel::content_text(message), nullptr, false);
  const auto ok = parts_.edge->on_inventory(node, content);
  if (!ok) return ignore(node, message, ok.error().message.c_str());
  answer(node, message, "edgecontroller", "mesh", R"("OK")");
}

void Dispatcher::on_mesh(const std::string& node, const channel::Message& message) {
  if (message.operation == "signal") return parts_.rendezvous.on_signal(node, message);
  if (message.operation == "get" && message.resource == "sync") {
    return parts_.mesh.on_sync_request(node, message);
  }
  if (message.operation == "get" && message.resource == "objects") {
    return on_inventory(node, message);
  }
  if (message.operation == "update" && message.resource == "node") {
    return parts_.nodes.on_node_info(node, message);
  }
  ignore(node, message, "not a mesh message of this version");
}

}  // namespace edgemesh::cloud
