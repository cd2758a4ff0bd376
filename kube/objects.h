// The Kubernetes objects that EdgeMesh reads, as plain structs, and their parsers. Unknown fields
// are ignored; a field of a wrong type is an error that names its path. I/O-free.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace edgemesh::kube {

using StringMap = std::map<std::string, std::string>;

// Parses JSON text; the error says where it broke. Nesting deeper than 64 is refused.
// Refuses what is nested deeper than kMaxJsonDepth: parsing recurses.
inline constexpr int kMaxJsonDepth = 64;
Result<nlohmann::json> parse_json(std::string_view text);
// How deep objects and lists are nested in a JSON text.
int json_depth(std::string_view text);

struct Meta {
  std::string ns, name, uid, resource_version;
  StringMap labels, annotations;
};
Result<Meta> parse_meta(const nlohmann::json& object);
Result<Meta> parse_meta(std::string_view json_text);

// metadata.resourceVersion as a number; 0 for none.
uint64_t resource_version_number(std::string_view text);
// Versions are opaque, but KubeEdge and we compare them as the numbers that they are. True when `a`
// is not older than `b`; two that are no numbers only when they are the same.
bool version_at_least(std::string_view a, std::string_view b);

struct ServicePort {
  std::string name;
  std::string protocol = "TCP";
  std::string app_protocol;
  uint16_t port = 0;
  uint16_t node_port = 0;
  uint16_t target_port = 0;      // 0: by name, or the same as port
  std::string target_port_name;  // set when targetPort is a name
};

struct Service : Meta {
  std::string type = "ClusterIP";
  std::string cluster_ip;                // "None": headless
  std::vector<std::string> cluster_ips;  // without "None"
  std::vector<std::string> external_ips;
  std::vector<ServicePort> ports;
  StringMap selector;
  std::string external_name;
  std::string session_affinity = "None";  // or "ClientIP"
  int affinity_timeout_s = 10800;
  bool publish_not_ready = false;
  bool headless() const { return cluster_ip == "None"; }
};

struct SliceEndpoint {
  std::vector<std::string> addresses;
  bool ready = true;  // unset conditions count as ready, as the API says
  bool serving = true;
  bool terminating = false;
  std::string node_name, zone, hostname;
  std::string target_name;  // targetRef.name
};

struct EndpointSlice : Meta {
  struct Port {
    std::string name;
    std::string protocol = "TCP";
    std::string app_protocol;
    uint16_t port = 0;
  };
  std::string service_name;  // label kubernetes.io/service-name
  std::string address_type = "IPv4";
  std::vector<SliceEndpoint> endpoints;
  std::vector<Port> ports;
};

struct Node : Meta {
  struct Address {
    std::string type;  // InternalIP, ExternalIP, Hostname
    std::string address;
  };
  std::vector<Address> addresses;
  std::vector<std::string> pod_cidrs;
  bool unschedulable = false;
  bool ready = false;  // condition Ready is True
};

Result<Service> parse_service(const nlohmann::json& object);
Result<Service> parse_service(std::string_view json_text);
Result<EndpointSlice> parse_endpoint_slice(const nlohmann::json& object);
Result<EndpointSlice> parse_endpoint_slice(std::string_view json_text);
Result<Node> parse_node(const nlohmann::json& object);
Result<Node> parse_node(std::string_view json_text);

// A string converts to a JSON value as well as to a view: these say that text is meant.
inline Result<Meta> parse_meta(const std::string& t) {
  return parse_meta(std::string_view(t));
}
inline Result<Meta> parse_meta(const char* t) {
  return parse_meta(std::string_view(t));
}
inline Result<Service> parse_service(const std::string& t) {
  return parse_service(std::string_view(t));
}
inline Result<Service> parse_service(const char* t) {
  return parse_service(std::string_view(t));
}
inline Result<EndpointSlice> parse_endpoint_slice(const std::string& t) {
  return parse_endpoint_slice(std::string_view(t));
}
inline Result<EndpointSlice> parse_endpoint_slice(const char* t) {
  return parse_endpoint_slice(std::string_view(t));
}
inline Result<Node> parse_node(const std::string& t) {
  return parse_node(std::string_view(t));
}
inline Result<Node> parse_node(const char* t) {
  return parse_node(std::string_view(t));
}

}  // namespace edgemesh::kube
