// DefaultAccounts: what Kubernetes puts into every namespace: the ServiceAccount "default", as
// which pods run that name no other, and the ConfigMap "kube-root-ca.crt", by which pods check the
// API's certificate. Both come back when they are deleted, the ConfigMap also when it is changed.
// Threads: the store's loop.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "cloud/api/core.h"

namespace edgemesh::cloud {

class DefaultAccounts {
 public:
  // `root_ca_pem` empty: no ConfigMap.
  DefaultAccounts(ApiCore& core, std::string root_ca_pem);
  ~DefaultAccounts();
  DefaultAccounts(const DefaultAccounts&) = delete;
  DefaultAccounts& operator=(const DefaultAccounts&) = delete;
  void start();

 private:
  void on_change(const ResourceInfo& resource, const Change& change);
  void look_at(const std::string& ns);
  void look_at_all();
  void keep_config(const std::string& ns);

  ApiCore& core_;
  const std::string root_ca_pem_;
  const ResourceInfo &namespaces_, &accounts_, &configs_;
  std::set<std::string> pending_;  // namespaces to look at in the loop's next turn
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
