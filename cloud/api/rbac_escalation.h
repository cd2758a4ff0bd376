// Nobody gives away by RBAC objects what they do not have: who writes a role must hold all its
// rules, or have the verb `escalate` on it; who writes a binding must hold all that its role gives,
// or have the verb `bind` on the role. As kube-apiserver. Threads: the store's loop.
#pragma once

#include <memory>

#include "cloud/api/core.h"
#include "cloud/api/rbac.h"

namespace edgemesh::cloud {

ApiResult<void> check_escalation(const Rbac& rbac, const Authorizer& authorizer,
                                 const ApiCore::Admission& write);

}  // namespace edgemesh::cloud
