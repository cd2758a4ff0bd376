// Names of Kubernetes resources, as the API paths and object headers spell them.
#pragma once

#include <string>
#include <string_view>

namespace edgemesh::kube {

struct ResourceType {
  std::string group;  // empty: core
  std::string version;
  std::string plural;
  std::string kind;
  bool namespaced = true;

  std::string api_version() const { return group.empty() ? version : group + "/" + version; }
  // "/api/v1/namespaces/default/services/web"; ns empty: all namespaces; name empty: the
  // collection.
  std::string path(std::string_view ns = {}, std::string_view name = {},
                   std::string_view subresource = {}) const;
  friend bool operator==(const ResourceType&, const ResourceType&) = default;
};

inline const ResourceType kNamespaces{"", "v1", "namespaces", "Namespace", false};
inline const ResourceType kNodes{"", "v1", "nodes", "Node", false};
inline const ResourceType kServices{"", "v1", "services", "Service", true};
inline const ResourceType kEndpoints{"", "v1", "endpoints", "Endpoints", true};
inline const ResourceType kPods{"", "v1", "pods", "Pod", true};
inline const ResourceType kConfigMaps{"", "v1", "configmaps", "ConfigMap", true};
inline const ResourceType kSecrets{"", "v1", "secrets", "Secret", true};
inline const ResourceType kServiceAccounts{"", "v1", "serviceaccounts", "ServiceAccount", true};
inline const ResourceType kEvents{"", "v1", "events", "Event", true};
inline const ResourceType kEndpointSlices{"discovery.k8s.io", "v1", "endpointslices",
                                          "EndpointSlice", true};
inline const ResourceType kLeases{"coordination.k8s.io", "v1", "leases", "Lease", true};

// "ns/name", or "name" for a cluster-wide object.
std::string object_key(std::string_view ns, std::string_view name);

}  // namespace edgemesh::kube
