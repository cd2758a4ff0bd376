// RbacDefaults: keeps the roles and bindings that every Kubernetes cluster has (cluster-admin,
// admin, edit, view, system:...), and fills in the rules of ClusterRoles that are put together from
// others (aggregationRule).
//
// At the start what is missing is made; rules and subjects that were taken out of a default object
// come back, unless it is annotated rbac.authorization.kubernetes.io/autoupdate: "false". What was
// added stays. Threads: the store's loop.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cloud/api/core.h"

namespace edgemesh::cloud {

std::vector<nlohmann::json> default_cluster_roles();
std::vector<nlohmann::json> default_cluster_role_bindings();

class RbacDefaults {
 public:
  explicit RbacDefaults(ApiCore& core);
  ~RbacDefaults();
  RbacDefaults(const RbacDefaults&) = delete;
  RbacDefaults& operator=(const RbacDefaults&) = delete;
  void start();

 private:
  void keep(const ResourceInfo& resource, nlohmann::json wanted, const char* list);
  void aggregate_soon();
  void aggregate_all();
  void aggregate(const StoredObject& object);

  ApiCore& core_;
  const ResourceInfo& roles_;
  const ResourceInfo& bindings_;
  bool scheduled_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
