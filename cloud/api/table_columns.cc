#include "cloud/api/table_columns.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "kube/json_util.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;
using Now = std::chrono::system_clock::time_point;

namespace {

constexpr const char* kNone = "<none>";

std::string name_of(const json& o) {
  return text_at(o, "metadata", "name");
}
std::string age(const json& o, Now now) {
  return age_of(text_at(o, "metadata", "creationTimestamp"), now);
}
std::string or_none(std::string text, const char* otherwise = kNone) {
  return text.empty() ? otherwise : text;
}
int64_t number(const json* value) {
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
}
const json& list_of(const json* value) {
  static const json kEmpty = json::array();
  return value != nullptr && value->is_array() ? *value : kEmpty;
}
size_t size_of(const json* value) {
  return value != nullptr ? value->size() : 0;
}

std::string join(const json& list, const char* field = nullptr) {
  std::string out;
  for (const json& item : list) {
    std::string text = field != nullptr   ? text_at(item, field)
                       : item.is_string() ? item.get<std::string>()
                                          : "";
    if (text.empty()) continue;
    if (!out.empty()) out += ",";
    out += text;
  }
  return out;
}

std::string pairs(const json* map) {
  std::string out;
  if (map == nullptr || !map->is_object()) return kNone;
  for (const auto& [key, value] : map->items()) {
    if (!out.empty()) out += ",";
    out += key + "=" + (value.is_string() ? value.get<std::string>() : value.dump());
  }
  return or_none(out);
}

std::string external_ip(const json& o) {
  std::string type = text_at(o, "spec", "type");
  std::string ips = join(list_of(find(o, "spec", "externalIPs")));
  if (type == "ExternalName") return or_none(text_at(o, "spec", "externalName"));
  if (type != "LoadBalancer") return or_none(ips);
  std::string out;
  for (const json& ingress : list_of(find(o, "status", "loadBalancer", "ingress"))) {
    std::string at = text_at(ingress, "ip");
    if (at.empty()) at = text_at(ingress, "hostname");
    if (!at.empty()) out += (out.empty() ? "" : ",") + at;
  }
  if (!ips.empty()) out += (out.empty() ? "" : ",") + ips;
  return or_none(out, "<pending>");
}

std::string service_ports(const json& o) {
  std::string out;
  for (const json& port : list_of(find(o, "spec", "ports"))) {
    if (!out.empty()) out += ",";
    int64_t node_port = number(find(port, "nodePort"));
    out += std::to_string(number(find(port, "port")));
    if (node_port > 0) out += fmt::format(":{}", node_port);
    out += "/" + text_at(port, "protocol");
  }
  return or_none(out);
}

json service_cells(const json& o, Now now) {
  return {name_of(o),
          text_at(o, "spec", "type"),
          or_none(text_at(o, "spec", "clusterIP")),
          external_ip(o),
          service_ports(o),
          age(o, now),
          pairs(find(o, "spec", "selector"))};
}

json namespace_cells(const json& o, Now now) {
  return {name_of(o), text_at(o, "status", "phase"), age(o, now)};
}

std::string node_status(const json& o) {
  std::string out = "Unknown";
  for (const json& condition : list_of(find(o, "status", "conditions"))) {
    if (text_at(condition, "type") != "Ready") continue;
    out = text_at(condition, "status") == "True" ? "Ready" : "NotReady";
  }
  const json* cordoned = find(o, "spec", "unschedulable");
  if (cordoned != nullptr && *cordoned == json(true)) out += ",SchedulingDisabled";
  return out;
}

std::string node_roles(const json& o) {
  constexpr std::string_view kPrefix = "node-role.kubernetes.io/";
  std::string out;
  const json* labels = find(o, "metadata", "labels");
  if (labels == nullptr || !labels->is_object()) return kNone;
  for (const auto& [key, value] : labels->items()) {
    std::string role;
    if (key.starts_with(kPrefix)) role = key.substr(kPrefix.size());
    if (key == "kubernetes.io/role" && value.is_string()) role = value.get<std::string>();
    if (!role.empty()) out += (out.empty() ? "" : ",") + role;
  }
  return or_none(out);
}

std::string node_address(const json& o, const char* type) {
  for (const json& address : list_of(find(o, "status", "addresses"))) {
    if (text_at(address, "type") == type) return text_at(address, "address");
  }
  return kNone;
}

json node_cells(const json& o, Now now) {
  auto info = [&o](const char* field) { return text_at(o, "status", "nodeInfo", field); };
  return {name_of(o),
          node_status(o),
          node_roles(o),
          age(o, now),
          info("kubeletVersion"),
          node_address(o, "InternalIP"),
          node_address(o, "ExternalIP"),
          or_none(info("osImage"), "<unknown>"),
          or_none(info("kernelVersion"), "<unknown>"),
          or_none(info("containerRuntimeVersion"), "<unknown>")};
}

struct PodState {
  std::string reason;
  int64_t ready = 0, total = 0, restarts = 0;
};

std::string container_reason(const json& status) {
  std::string reason = text_at(status, "state", "waiting", "reason");
  if (!reason.empty()) return reason;
  const json* ended = find(status, "state", "terminated");
  if (ended == nullptr) return {};
  reason = text_at(*ended, "reason");
  if (!reason.empty()) return reason;
  int64_t signal = number(find(*ended, "signal"));
  return signal != 0 ? fmt::format("Signal:{}", signal)
                     : fmt::format("ExitCode:{}", number(find(*ended, "exitCode")));
}

// What an init container that has not done its part does: "Init:0/2", "Init:Error".
std::string init_reason(const json& o) {
  const json& statuses = list_of(find(o, "status", "initContainerStatuses"));
  const json& specs = list_of(find(o, "spec", "initContainers"));
  for (size_t i = 0; i < statuses.size(); ++i) {
    const json* ended = find(statuses[i], "state", "terminated");
    if (ended != nullptr && number(find(*ended, "exitCode")) == 0) continue;
    bool sidecar = i < specs.size() && text_at(specs[i], "restartPolicy") == "Always";
    const json* started = find(statuses[i], "started");
    if (sidecar && started != nullptr && *started == json(true)) continue;
    std::string reason = container_reason(statuses[i]);
    if (!reason.empty() && reason != "PodInitializing") return "Init:" + reason;
    return fmt::format("Init:{}/{}", i, specs.size());
  }
  return {};
}

// Sidecars (init containers that run as long as the pod) count as containers.
void count_sidecars(const json& o, PodState& out) {
  for (const json& spec : list_of(find(o, "spec", "initContainers"))) {
    if (text_at(spec, "restartPolicy") != "Always") continue;
    ++out.total;
    for (const json& status : list_of(find(o, "status", "initContainerStatuses"))) {
      if (text_at(status, "name") != text_at(spec, "name")) continue;
      out.restarts += number(find(status, "restartCount"));
      const json* ready = find(status, "ready");
      if (ready != nullptr && *ready == json(true)) ++out.ready;
    }
  }
}

PodState pod_state(const json& o) {
  PodState out;
  out.reason = or_none(text_at(o, "status", "reason"), text_at(o, "status", "phase").c_str());
  out.total = static_cast<int64_t>(size_of(find(o, "spec", "containers")));
  bool running = false;
  const json& statuses = list_of(find(o, "status", "containerStatuses"));
  for (auto it = statuses.rbegin(); it != statuses.rend(); ++it) {
    out.restarts += number(find(*it, "restartCount"));
    bool is_ready = find(*it, "ready") != nullptr && (*it)["ready"] == json(true);
    if (is_ready) ++out.ready;
    if (find(*it, "state", "running") != nullptr && is_ready) running = true;
    std::string reason = container_reason(*it);
    if (!reason.empty()) out.reason = reason;
  }
  count_sidecars(o, out);
  std::string init = init_reason(o);
  if (!init.empty()) out.reason = std::move(init);
  if (out.reason == "Completed" && running) out.reason = "Running";
  if (find(o, "metadata", "deletionTimestamp") != nullptr) out.reason = "Terminating";
  return out;
}

json pod_cells(const json& o, Now now) {
  PodState state = pod_state(o);
  return {name_of(o),
          fmt::format("{}/{}", state.ready, state.total),
          state.reason,
          std::to_string(state.restarts),
          age(o, now),
          or_none(text_at(o, "status", "podIP")),
          or_none(text_at(o, "spec", "nodeName")),
          or_none(text_at(o, "status", "nominatedNodeName")),
          kNone};
}

json config_map_cells(const json& o, Now now) {
  return {name_of(o), size_of(find(o, "data")) + size_of(find(o, "binaryData")), age(o, now)};
}
json secret_cells(const json& o, Now now) {
  return {name_of(o), text_at(o, "type"), size_of(find(o, "data")), age(o, now)};
}
json service_account_cells(const json& o, Now now) {
  return {name_of(o), size_of(find(o, "secrets")), age(o, now)};
}
json lease_cells(const json& o, Now now) {
  return {name_of(o), text_at(o, "spec", "holderIdentity"), age(o, now)};
}

constexpr size_t kShown = 3;

std::string shorten(const std::vector<std::string>& all) {
  std::string out;
  for (size_t i = 0; i < all.size() && i < kShown; ++i) out += (i > 0 ? "," : "") + all[i];
  if (all.size() > kShown) out += fmt::format(" + {} more...", all.size() - kShown);
  return out;
}

json endpoint_slice_cells(const json& o, Now now) {
  std::vector<std::string> ports, addresses;
  for (const json& port : list_of(find(o, "ports"))) {
    ports.push_back(std::to_string(number(find(port, "port"))));
  }
  for (const json& endpoint : list_of(find(o, "endpoints"))) {
    for (const json& address : list_of(find(endpoint, "addresses"))) {
      if (address.is_string()) addresses.push_back(address.get<std::string>());
    }
  }
  return {name_of(o), text_at(o, "addressType"), or_none(shorten(ports), "<unset>"),
          or_none(shorten(addresses), "<unset>"), age(o, now)};
}

json endpoints_cells(const json& o, Now now) {
  std::vector<std::string> all;
  for (const json& subset : list_of(find(o, "subsets"))) {
    for (const json& port : list_of(find(subset, "ports"))) {
      for (const json& address : list_of(find(subset, "addresses"))) {
        all.push_back(fmt::format("{}:{}", text_at(address, "ip"), number(find(port, "port"))));
      }
    }
  }
  return {name_of(o), or_none(shorten(all)), age(o, now)};
}

json event_cells(const json& o, Now now) {
  std::string kind = text_at(o, "involvedObject", "kind");
  for (char& c : kind) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  std::string seen = text_at(o, "lastTimestamp");
  if (seen.empty()) seen = text_at(o, "eventTime");
  if (seen.empty()) seen = text_at(o, "metadata", "creationTimestamp");
  std::string first = text_at(o, "firstTimestamp");
  std::string source = text_at(o, "source", "component");
  std::string host = text_at(o, "source", "host");
  if (!host.empty()) source += ", " + host;
  return {age_of(seen, now),
          text_at(o, "type"),
          text_at(o, "reason"),
          kind + "/" + text_at(o, "involvedObject", "name"),
          text_at(o, "involvedObject", "fieldPath"),
          source,
          text_at(o, "message"),
          first.empty() ? age_of(seen, now) : age_of(first, now),
          std::max<int64_t>(1, number(find(o, "count"))),
          name_of(o)};
}

std::string container_list(const json& o, const char* field) {
  return join(list_of(find(o, "spec", "template", "spec", "containers")), field);
}

json deployment_cells(const json& o, Now now) {
  int64_t wanted = number(find(o, "spec", "replicas"));
  return {name_of(o),
          fmt::format("{}/{}", number(find(o, "status", "readyReplicas")), wanted),
          number(find(o, "status", "updatedReplicas")),
          number(find(o, "status", "availableReplicas")),
          age(o, now),
          container_list(o, "name"),
          container_list(o, "image"),
          pairs(find(o, "spec", "selector", "matchLabels"))};
}

json replica_set_cells(const json& o, Now now) {
  return {name_of(o),
          number(find(o, "spec", "replicas")),
          number(find(o, "status", "replicas")),
          number(find(o, "status", "readyReplicas")),
          age(o, now),
          container_list(o, "name"),
          container_list(o, "image"),
          pairs(find(o, "spec", "selector", "matchLabels"))};
}

json stateful_set_cells(const json& o, Now now) {
  return {name_of(o),
          fmt::format("{}/{}", number(find(o, "status", "readyReplicas")),
                      number(find(o, "spec", "replicas"))),
          age(o, now), container_list(o, "name"), container_list(o, "image")};
}

json daemon_set_cells(const json& o, Now now) {
  auto status = [&o](const char* field) { return number(find(o, "status", field)); };
  return {name_of(o),
          status("desiredNumberScheduled"),
          status("currentNumberScheduled"),
          status("numberReady"),
          status("updatedNumberScheduled"),
          status("numberAvailable"),
          pairs(find(o, "spec", "template", "spec", "nodeSelector")),
          age(o, now),
          container_list(o, "name"),
          container_list(o, "image"),
          pairs(find(o, "spec", "selector", "matchLabels"))};
}

json other_cells(const json& o, Now now) {
  return {name_of(o), age(o, now)};
}

const std::vector<TableKind>& core_kinds() {
  static const std::vector<TableKind> kAll = {
      {"Service",
       {{"Name"},
        {"Type"},
        {"Cluster-IP"},
        {"External-IP"},
        {"Port(s)"},
        {"Age"},
        {"Selector", "string", true}},
       service_cells},
      {"Namespace", {{"Name"}, {"Status"}, {"Age"}}, namespace_cells},
      {"Node",
       {{"Name"},
        {"Status"},
        {"Roles"},
        {"Age"},
        {"Version"},
        {"Internal-IP", "string", true},
        {"External-IP", "string", true},
        {"OS-Image", "string", true},
        {"Kernel-Version", "string", true},
        {"Container-Runtime", "string", true}},
       node_cells},
      {"Pod",
       {{"Name"},
        {"Ready"},
        {"Status"},
        {"Restarts"},
        {"Age"},
        {"IP", "string", true},
        {"Node", "string", true},
        {"Nominated Node", "string", true},
        {"Readiness Gates", "string", true}},
       pod_cells},
      {"ConfigMap", {{"Name"}, {"Data"}, {"Age"}}, config_map_cells},
      {"Secret", {{"Name"}, {"Type"}, {"Data"}, {"Age"}}, secret_cells},
      {"ServiceAccount", {{"Name"}, {"Secrets"}, {"Age"}}, service_account_cells},
      {"Lease", {{"Name"}, {"Holder"}, {"Age"}}, lease_cells},
      {"EndpointSlice",
       {{"Name"}, {"AddressType"}, {"Ports"}, {"Endpoints"}, {"Age"}},
       endpoint_slice_cells},
      {"Endpoints", {{"Name"}, {"Endpoints"}, {"Age"}}, endpoints_cells},
      {"Event",
       {{"Last Seen"},
        {"Type"},
        {"Reason"},
        {"Object"},
        {"Subobject", "string", true},
        {"Source", "string", true},
        {"Message"},
        {"First Seen", "string", true},
        {"Count", "string", true},
        {"Name", "string", true}},
       event_cells},
  };
  return kAll;
}

const std::vector<TableKind>& other_kinds() {
  static const std::vector<TableKind> kAll = {
      {"Deployment",
       {{"Name"},
        {"Ready"},
        {"Up-to-date"},
        {"Available"},
        {"Age"},
        {"Containers", "string", true},
        {"Images", "string", true},
        {"Selector", "string", true}},
       deployment_cells},
      {"ReplicaSet",
       {{"Name"},
        {"Desired", "integer"},
        {"Current", "integer"},
        {"Ready", "integer"},
        {"Age"},
        {"Containers", "string", true},
        {"Images", "string", true},
        {"Selector", "string", true}},
       replica_set_cells},
      {"StatefulSet",
       {{"Name"}, {"Ready"}, {"Age"}, {"Containers", "string", true}, {"Images", "string", true}},
       stateful_set_cells},
      {"DaemonSet",
       {{"Name"},
        {"Desired", "integer"},
        {"Current", "integer"},
        {"Ready", "integer"},
        {"Up-to-date", "integer"},
        {"Available", "integer"},
        {"Node Selector"},
        {"Age"},
        {"Containers", "string", true},
        {"Images", "string", true},
        {"Selector", "string", true}},
       daemon_set_cells},
      {"", {{"Name"}, {"Age"}}, other_cells},
  };
  return kAll;
}

}  // namespace

const TableKind& table_kind(std::string_view kind) {
  for (const auto* list : {&core_kinds(), &more_kinds(), &other_kinds()}) {
    for (const TableKind& entry : *list) {
      if (entry.kind == kind) return entry;
    }
  }
  return other_kinds().back();
}

}  // namespace edgemesh::cloud
