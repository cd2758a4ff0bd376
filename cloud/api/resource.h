// The resources that the embedded Kubernetes API serves: one row a resource, and everything else is
// generic over them. The built-in ones are always there; those of CustomResourceDefinitions come
// and go. Threads: the API's loop.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "kube/types.h"

namespace edgemesh::cloud {

// One more path below an object, as discovery lists it.
struct Subresource {
  std::string name;                  // "scale"
  std::string group, version, kind;  // of what is read and written there
  std::vector<std::string> verbs;
};

// Where the scale subresource finds its values: paths like ".spec.replicas".
struct ScalePaths {
  std::string spec, status;
  std::string selector;  // a selector as text, or a LabelSelector; empty: none
};

struct PrinterColumn {
  std::string name, type, json_path;
  bool wide = false;
};

struct ResourceInfo {
  kube::ResourceType type;
  std::string singular;
  std::vector<std::string> short_names;
  std::vector<std::string> categories;
  bool has_status = false;  // serves the status subresource
  std::vector<std::string>
      fields;  // what field selectors may name, besides metadata.name/namespace
  std::vector<Subresource> subresources;  // besides status
  std::shared_ptr<const ScalePaths> scale;

  // Of another version of the same objects: what they are stored as. Null: as this.
  const ResourceInfo* stored_as = nullptr;

  bool review = false;  // what is posted is answered and kept nowhere
  // Made anew for each request and stored nowhere (metrics): get and list only.
  bool computed = false;

  // Of a CustomResourceDefinition.
  bool custom = false;
  bool served = true;        // a version that is only stored is not found by requests
  bool terminating = false;  // its definition is being deleted: no new objects
  std::shared_ptr<const nlohmann::json> schema;  // openAPIV3Schema; null: anything goes
  std::vector<PrinterColumn> columns;
  std::string list_kind;
  std::string warning;  // of a deprecated version

  // Key of the store's table: "services", "endpointslices.discovery.k8s.io".
  std::string storage() const {
    if (stored_as != nullptr) return stored_as->storage();
    return type.group.empty() ? type.plural : type.plural + "." + type.group;
  }
  // A kind of core/v1: other groups may have kinds of the same name.
  bool is(std::string_view core_kind) const { return type.group.empty() && type.kind == core_kind; }
  const ResourceInfo& stored() const { return stored_as != nullptr ? *stored_as : *this; }
  std::string list_kind_name() const { return list_kind.empty() ? type.kind + "List" : list_kind; }
  const Subresource* find_subresource(std::string_view name) const;
};

class ResourceRegistry {
 public:
  // The built-in resources.
  ResourceRegistry();
  // Of these only `served` are found and shown.
  explicit ResourceRegistry(const std::vector<kube::ResourceType>& served);
  const ResourceInfo* find(std::string_view group, std::string_view version,
                           std::string_view plural) const;
  const ResourceInfo* find(const kube::ResourceType& type) const {
    return find(type.group, type.version, type.plural);
  }
  const ResourceInfo* find_storage(std::string_view storage) const;
  bool has_group_version(std::string_view group, std::string_view version) const;
  // In the order of discovery: core first.
  const std::vector<std::unique_ptr<ResourceInfo>>& all() const { return all_; }

  // Puts `infos` in the place of what `owner` (a CustomResourceDefinition) had before; none: takes
  // it away. What was there stays in memory: calls on their way and watches refer to it.
  void replace(const std::string& owner, std::vector<std::unique_ptr<ResourceInfo>> infos);
  // Changes whenever `replace` was called.
  uint64_t revision() const { return revision_; }

 private:
  std::vector<std::unique_ptr<ResourceInfo>> all_;
  std::vector<std::unique_ptr<ResourceInfo>> retired_;
  std::vector<std::pair<std::string, const ResourceInfo*>> owned_;
  uint64_t revision_ = 1;
};

}  // namespace edgemesh::cloud
