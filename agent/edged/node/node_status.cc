#include "agent/edged/node/node_status.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "core/base/version.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

// What the machine keeps for itself: kubelet's threshold of eviction.
constexpr int64_t kKeptMemory = int64_t(100) << 20;
constexpr size_t kMostImages = 50, kMostNames = 5;
// The API's version that this agent's pods are written in.
constexpr const char* kApiVersion = "v1.31.0";

std::string time_text(int64_t seconds) {
  return kube::rfc3339(std::chrono::system_clock::time_point(std::chrono::seconds(seconds)));
}

const Json* condition_of(const Json& status, const std::string& type) {
  const Json* list = kube::find(status, "conditions");
  if (list == nullptr || !list->is_array()) return nullptr;
  for (const Json& one : *list) {
    if (kube::text_at(one, "type") == type) return &one;
  }
  return nullptr;
}

Json condition(const NodeStatusInput& in, const char* type, bool holds, const char* yes,
               const char* no, const char* what) {
  const std::string now = time_text(in.now_s);
  const char* status = holds ? "True" : "False";
  std::string since = now;
  const Json* before = in.previous == nullptr ? nullptr : condition_of(*in.previous, type);
  if (before != nullptr && kube::text_at(*before, "status") == status)
    since = kube::text_at(*before, "lastTransitionTime");
  return {{"type", type},
          {"status", status},
          {"reason", holds ? yes : no},
          {"message", fmt::format("the node has {}{}", holds ? "too little " : "enough ", what)},
          {"lastHeartbeatTime", now},
          {"lastTransitionTime", since}};
}

Json amounts(const NodeFacts& facts, int64_t memory, int64_t disk) {
  return {{"cpu", facts.cpu_milli % 1000 == 0 ? std::to_string(facts.cpu_milli / 1000)
                                              : fmt::format("{}m", facts.cpu_milli)},
          {"memory", fmt::format("{}Ki", std::max<int64_t>(memory, 0) / 1024)},
          {"ephemeral-storage", fmt::format("{}Ki", std::max<int64_t>(disk, 0) / 1024)},
          {"pods", std::to_string(kMostPods)}};
}

Json images_of(std::vector<NodeImage> images) {
  std::stable_sort(images.begin(), images.end(),
                   [](const NodeImage& a, const NodeImage& b) { return a.bytes > b.bytes; });
  if (images.size() > kMostImages) images.resize(kMostImages);
  Json out = Json::array();
  for (NodeImage& image : images) {
    if (image.names.empty()) continue;
    if (image.names.size() > kMostNames) image.names.resize(kMostNames);
    out.push_back({{"names", image.names}, {"sizeBytes", image.bytes}});
  }
  return out;
}

// An API server adds fields that are new to this agent.
bool says(const Json& have, const Json& want) {
  if (!want.is_object()) return have == want;
  const auto items = want.items();
  return have.is_object() && std::all_of(items.begin(), items.end(), [&](const auto& item) {
           const auto it = have.find(item.key());
           return it != have.end() ? *it == item.value() : item.value() == "";
         });
}

}  // namespace

Json make_node_status(const NodeStatusInput& in) {
  const NodeFacts& facts = in.facts;
  Json out;
  out["capacity"] = amounts(facts, facts.memory_bytes, facts.disk_bytes);
  out["allocatable"] = amounts(facts, facts.memory_bytes - kKeptMemory, facts.disk_bytes / 10 * 9);
  out["conditions"] = {condition(in, "MemoryPressure", in.memory_pressure,
                                 "NodeHasInsufficientMemory", "NodeHasSufficientMemory", "memory"),
                       condition(in, "DiskPressure", in.disk_pressure, "NodeHasDiskPressure",
                                 "NodeHasNoDiskPressure", "room on its disk"),
                       condition(in, "PIDPressure", in.pid_pressure, "NodeHasInsufficientPID",
                                 "NodeHasSufficientPID", "process ids")};
  out["nodeInfo"] = {{"machineID", facts.machine_id},
                     {"systemUUID", facts.system_uuid},
                     {"bootID", facts.boot_id},
                     {"kernelVersion", facts.kernel},
                     {"osImage", facts.os_image},
                     {"containerRuntimeVersion", in.runtime.empty() ? "unknown" : in.runtime},
                     {"kubeletVersion", fmt::format("{}-edgemesh-v{}", kApiVersion, kVersion)},
                     {"kubeProxyVersion", ""},
                     {"operatingSystem", "linux"},
                     {"architecture", facts.arch}};
  out["images"] = images_of(in.images);
  return out;
}

bool same_node_status(const Json& have, const Json& want) {
  for (const char* part : {"capacity", "allocatable", "nodeInfo", "images"}) {
    const Json* a = kube::find(have, part);
    const Json* b = kube::find(want, part);
    // A list or object that is empty may be left out.
    if ((a == nullptr || a->empty()) && (b == nullptr || b->empty())) continue;
    if (a == nullptr || b == nullptr || !says(*a, *b)) return false;
  }
  const Json* conditions = kube::find(want, "conditions");
  if (conditions == nullptr) return true;
  return std::all_of(conditions->begin(), conditions->end(), [&](const Json& one) {
    const Json* other = condition_of(have, kube::text_at(one, "type"));
    return other != nullptr && kube::text_at(*other, "status") == kube::text_at(one, "status");
  });
}

}  // namespace edgemesh::edged
