// Services, endpoint slices, namespaces: what the mesh lives on.
#include <nlohmann/json.hpp>
#include <set>

#include "cloud/api/validate.h"
#include "cloud/api/validate_kinds.h"
#include "core/base/net_addr.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

constexpr const char* kPortRange = "must be between 1 and 65535, inclusive";

void default_text(json* object, const char* name, const char* value) {
  if (kube::find(*object, name) == nullptr) (*object)[name] = value;
}

void validate_port(const json& port, const std::string& at, bool name_needed, FieldErrors* out) {
  std::string name = kube::text_at(port, "name");
  if (name.empty() && name_needed) out->push_back(FieldError::required(at + ".name"));
  if (!name.empty()) {
    if (auto why = check_dns_label(name); !why.empty()) {
      out->push_back(FieldError::invalid(at + ".name", json(name).dump(), why));
    }
  }
  int64_t number = 0;
  if (const json* value = kube::find(port, "port")) number = value->get<int64_t>();
  if (number < 1 || number > 65535) {
    out->push_back(FieldError::invalid(at + ".port", std::to_string(number), kPortRange));
  }
  std::string protocol = kube::text_at(port, "protocol");
  if (protocol != "TCP" && protocol != "UDP" && protocol != "SCTP") {
    out->push_back(FieldError::not_supported(at + ".protocol", protocol, {"SCTP", "TCP", "UDP"}));
  }
  const json* target = kube::find(port, "targetPort");
  if (target == nullptr) return;
  if (target->is_number_integer()) {
    auto value = target->get<int64_t>();
    if (value < 1 || value > 65535) {
      out->push_back(FieldError::invalid(at + ".targetPort", std::to_string(value), kPortRange));
    }
  } else if (target->is_string() && target->get<std::string>().size() > 15) {
    out->push_back(FieldError::invalid(at + ".targetPort", target->dump(),
                                       "must be no more than 15 characters"));
  }
}

void validate_ports(const json& ports, FieldErrors* out) {
  std::set<std::string> names;
  std::set<std::pair<std::string, int64_t>> numbers;
  for (size_t i = 0; i < ports.size(); ++i) {
    std::string at = fmt::format("spec.ports[{}]", i);
    validate_port(ports[i], at, ports.size() > 1, out);
    std::string name = kube::text_at(ports[i], "name");
    if (!name.empty() && !names.insert(name).second) {
      out->push_back(FieldError::duplicate(at + ".name", json(name).dump()));
    }
    const json* number = kube::find(ports[i], "port");
    std::string protocol = kube::text_at(ports[i], "protocol");
    if (number != nullptr && !numbers.emplace(protocol, number->get<int64_t>()).second) {
      out->push_back(
          FieldError::duplicate(at, json({{"port", *number}, {"protocol", protocol}}).dump()));
    }
  }
}

}  // namespace

Result<> check_kind_shape(const ResourceInfo& resource, const json& object) {
  const std::string& kind = resource.type.kind;
  // The parsers name what has a wrong type; numbers out of range are left to the validation, which
  // words it as people know it.
  auto shape = [&object](auto* list_path) -> Result<> {
    const json* list = kube::find(object, "spec", list_path);
    if (list == nullptr) return {};
    if (!list->is_array()) {
      return fail(ErrorCode::kInvalidArgument, "spec.{}: want a list", list_path);
    }
    for (size_t i = 0; i < list->size(); ++i) {
      if (!(*list)[i].is_object()) {
        return fail(ErrorCode::kInvalidArgument, "spec.{}[{}]: want an object", list_path, i);
      }
    }
    return {};
  };
  if (kind == "Service") {
    EM_TRY_VOID(shape("ports"));
    json relaxed = object;
    if (kube::text_at(object, "metadata", "name").empty()) relaxed["metadata"]["name"] = "x";
    if (auto ports = kube::find(object, "spec", "ports")) {
      for (size_t i = 0; i < ports->size(); ++i) {
        for (const char* name : {"port", "targetPort", "nodePort"}) {
          const json* value = kube::find((*ports)[i], name);
          if (value != nullptr && value->is_number_integer()) {
            relaxed["spec"]["ports"][i][name] = 1;
          }
        }
      }
    }
    auto parsed = kube::parse_service(relaxed);
    if (!parsed) return fail(parsed.error());
  }
  if (kind == "EndpointSlice") {
    json relaxed = object;
    if (kube::text_at(object, "metadata", "name").empty()) relaxed["metadata"]["name"] = "x";
    auto parsed = kube::parse_endpoint_slice(relaxed);
    if (!parsed) return fail(parsed.error());
  }
  if (kind == "Pod") {
    EM_TRY_VOID(shape("containers"));
    EM_TRY_VOID(shape("initContainers"));
    EM_TRY_VOID(shape("volumes"));
  }
  return {};
}

void default_service(json* object) {
  json& spec = (*object)["spec"];
  if (!spec.is_object()) spec = json::object();
  default_text(&spec, "type", "ClusterIP");
  default_text(&spec, "sessionAffinity", "None");
  if (kube::text_at(spec, "sessionAffinity") == "ClientIP" &&
      kube::find(spec, "sessionAffinityConfig", "clientIP", "timeoutSeconds") == nullptr) {
    spec["sessionAffinityConfig"] = {{"clientIP", {{"timeoutSeconds", 10800}}}};
  }
  if (kube::text_at(spec, "sessionAffinity") == "None") spec.erase("sessionAffinityConfig");
  std::string type = kube::text_at(spec, "type");
  if (type != "ExternalName") default_text(&spec, "internalTrafficPolicy", "Cluster");
  if (type == "NodePort" || type == "LoadBalancer") {
    default_text(&spec, "externalTrafficPolicy", "Cluster");
  }
  if (type == "LoadBalancer" && !spec.contains("allocateLoadBalancerNodePorts")) {
    spec["allocateLoadBalancerNodePorts"] = true;
  }
  if (auto ports = spec.find("ports"); ports != spec.end() && ports->is_array()) {
    for (json& port : *ports) {
      if (!port.is_object()) continue;
      default_text(&port, "protocol", "TCP");
      const json* target = kube::find(port, "targetPort");
      bool unset = target == nullptr || *target == json(0) || *target == json("");
      if (unset && port.contains("port")) port["targetPort"] = port["port"];
    }
  }
  json& status = (*object)["status"];
  if (!status.is_object()) status = json::object();
  if (!status.contains("loadBalancer")) status["loadBalancer"] = json::object();
}

void default_namespace(json* object) {
  std::string name = kube::text_at(*object, "metadata", "name");
  json& spec = (*object)["spec"];
  if (!spec.is_object()) spec = json::object();
  if (!spec.contains("finalizers")) spec["finalizers"] = {"kubernetes"};
  json& status = (*object)["status"];
  if (!status.is_object()) status = json::object();
  if (!status.contains("phase")) status["phase"] = "Active";
  if (!name.empty()) (*object)["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
}

void default_endpoint_slice(json* object) {
  default_text(object, "addressType", "IPv4");
  auto ports = object->find("ports");
  if (ports == object->end() || !ports->is_array()) return;
  for (json& port : *ports) {
    if (!port.is_object()) continue;
    default_text(&port, "protocol", "TCP");
    default_text(&port, "name", "");
  }
}

void validate_service(const json& object, FieldErrors* out) {
  std::string type = kube::text_at(object, "spec", "type");
  std::string cluster_ip = kube::text_at(object, "spec", "clusterIP");
  const json* ports = kube::find(object, "spec", "ports");
  bool has_ports = ports != nullptr && ports->is_array() && !ports->empty();
  if (type != "ClusterIP" && type != "NodePort" && type != "LoadBalancer" &&
      type != "ExternalName") {
    out->push_back(FieldError::not_supported(
        "spec.type", type, {"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"}));
  }
  if (type == "ExternalName") {
    std::string target = kube::text_at(object, "spec", "externalName");
    if (target.ends_with(".")) target.pop_back();
    if (target.empty()) {
      out->push_back(FieldError::required("spec.externalName"));
    } else if (auto why = check_dns_subdomain(target); !why.empty()) {
      out->push_back(FieldError::invalid("spec.externalName", json(target).dump(), why));
    }
  } else if (!has_ports && cluster_ip != "None") {
    out->push_back(FieldError::required("spec.ports"));
  }
  if (cluster_ip == "None" && (type == "NodePort" || type == "LoadBalancer")) {
    out->push_back(FieldError::invalid("spec.clusterIPs[0]", "\"None\"",
                                       "may not be set to 'None' for " + type + " services"));
  }
  if (has_ports) validate_ports(*ports, out);
  std::string affinity = kube::text_at(object, "spec", "sessionAffinity");
  if (affinity != "None" && affinity != "ClientIP") {
    out->push_back(
        FieldError::not_supported("spec.sessionAffinity", affinity, {"ClientIP", "None"}));
  }
}

void validate_endpoint_slice(const json& object, FieldErrors* out) {
  constexpr size_t kMaxEndpoints = 1000;
  constexpr size_t kMaxPorts = 20000;
  std::string type = kube::text_at(object, "addressType");
  if (type != "IPv4" && type != "IPv6" && type != "FQDN") {
    out->push_back(FieldError::not_supported("addressType", type, {"FQDN", "IPv4", "IPv6"}));
  }
  const json* endpoints = kube::find(object, "endpoints");
  for (size_t i = 0; endpoints != nullptr && i < endpoints->size(); ++i) {
    std::string at = fmt::format("endpoints[{}].addresses", i);
    const json* addresses = kube::find((*endpoints)[i], "addresses");
    if (addresses == nullptr || addresses->empty()) {
      out->push_back(FieldError::required(at, "must contain at least 1 address"));
      continue;
    }
    for (size_t n = 0; n < addresses->size(); ++n) {
      auto text = (*addresses)[n].get<std::string>();
      auto ip = IpAddr::parse(text);
      bool good = type == "FQDN" ? check_dns_subdomain(text).empty()
                                 : ip && ip->is_v6() == (type == "IPv6");
      if (!good) {
        out->push_back(FieldError::invalid(fmt::format("{}[{}]", at, n), json(text).dump(),
                                           "must be a valid " + type + " address"));
      }
    }
  }
  auto limit = [&](const char* name, size_t most) {
    const json* list = kube::find(object, name);
    if (list != nullptr && list->size() > most) {
      out->push_back({"FieldValueTooMany", name,
                      fmt::format("Too many: {}: must have at most {} items", list->size(), most)});
    }
  };
  limit("endpoints", kMaxEndpoints);
  limit("ports", kMaxPorts);
}

}  // namespace edgemesh::cloud
