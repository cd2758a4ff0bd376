// BootstrapTokens: tokens "<id>.<secret>" by which new machines come to the API (`kubeadm token`):
// Secrets of type bootstrap.kubernetes.io/token named "bootstrap-token-<id>" in kube-system, as the
// Kubernetes reference "Authenticating with Bootstrap Tokens" has them. Their user is
// system:bootstrap:<id> in the group system:bootstrappers and those that the Secret adds; what it
// may do is a matter of RBAC. Secrets that have expired are deleted.
// Threads: the store's loop.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "cloud/api/auth.h"
#include "cloud/api/core.h"

namespace edgemesh::cloud {

class BootstrapTokens {
 public:
  // `cleans`: whether what has expired is deleted.
  BootstrapTokens(ApiCore& core, bool cleans);
  ~BootstrapTokens();
  BootstrapTokens(const BootstrapTokens&) = delete;
  BootstrapTokens& operator=(const BootstrapTokens&) = delete;
  void start();

  // nullopt: no such token, it has expired, or it is not for authentication.
  std::optional<ApiUser> authenticate(std::string_view token) const;

 private:
  using Wall = std::chrono::system_clock;
  void on_secret(const StoredObject& secret, bool gone);
  void clean();
  void wait();

  ApiCore& core_;
  const ResourceInfo& secrets_;
  const bool cleans_;
  std::map<std::string, Wall::time_point> ends_;  // by name, of those that have an end
  io::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
