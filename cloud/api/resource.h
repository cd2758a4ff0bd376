// The resources that the embedded Kubernetes API serves: one row a resource, and everything else is
// generic over them. Immutable after it was built.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kube/types.h"

namespace edgemesh::cloud {

struct ResourceInfo {
  kube::ResourceType type;
  std::string singular;
  std::vector<std::string> short_names;
  std::vector<std::string> categories;
  bool has_status = false;  // serves the status subresource
  std::vector<std::string>
      fields;  // what field selectors may name, besides metadata.name/namespace

  // Key of the store's table: "services", "endpointslices.discovery.k8s.io".
  std::string storage() const {
    return type.group.empty() ? type.plural : type.plural + "." + type.group;
  }
};

class ResourceRegistry {
 public:
  // The built-in resources.
  ResourceRegistry();
  const ResourceInfo* find(std::string_view group, std::string_view version,
                           std::string_view plural) const;
  const ResourceInfo* find(const kube::ResourceType& type) const {
    return find(type.group, type.version, type.plural);
  }
  const ResourceInfo* find_storage(std::string_view storage) const;
  bool has_group_version(std::string_view group, std::string_view version) const;
  // In the order of discovery: core first.
  const std::vector<std::unique_ptr<ResourceInfo>>& all() const { return all_; }

 private:
  std::vector<std::unique_ptr<ResourceInfo>> all_;
};

}  // namespace edgemesh::cloud
