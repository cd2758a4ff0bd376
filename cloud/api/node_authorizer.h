// What a node (system:node:NAME in system:nodes) may do: read the secrets, config maps, claims,
// volumes and accounts that its own pods name, get tokens for its pods, and write its own Node,
// lease, CSINode and its pods' status. As Kubernetes' Node authorizer and NodeRestriction; besides,
// all nodes may read namespaces and endpoint slices, as the mesh on them does. Threads: the store's
// loop.
#pragma once

#include <memory>

#include "cloud/api/core.h"
#include "cloud/api/node_objects.h"
#include "cloud/api/rbac_rules.h"

namespace edgemesh::cloud {

class NodeAuthorizer final : public Authorizer {
 public:
  // Null: pods are not known, and nothing of theirs may be read.
  explicit NodeAuthorizer(std::shared_ptr<const NodeObjects> objects);
  using Authorizer::allows;
  bool allows(const ApiUser& user, const ApiAttributes& what, std::string* reason) const override;

 private:
  std::shared_ptr<const NodeObjects> objects_;
  RbacRules rules_;
};

// What the authorizer cannot see by the request's path: whose pod, which labels, ...
ApiResult<void> check_node_write(const NodeObjects& objects, const ApiCore::Admission& write);

}  // namespace edgemesh::cloud
