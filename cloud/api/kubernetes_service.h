// KubernetesService: the Service "kubernetes" of namespace default, by which programs in pods find
// the API (client-go's in-cluster configuration), with the EndpointSlice and the Endpoints that
// lead to this process, as a kube-apiserver keeps them. What is deleted or changed comes back.
// Threads: the store's loop.
#pragma once

#include <memory>
#include <string>

#include "cloud/api/core.h"
#include "core/base/net_addr.h"

namespace edgemesh::cloud {

// The first of the block, as Kubernetes has it (10.96.0.1): the server's certificate names it.
IpAddr kubernetes_service_ip(const Cidr& block);

class KubernetesService {
 public:
  struct Options {
    IpAddr cluster_ip;
    SockAddr endpoint;  // where nodes reach the API
  };
  KubernetesService(ApiCore& core, Options options);
  ~KubernetesService();
  KubernetesService(const KubernetesService&) = delete;
  KubernetesService& operator=(const KubernetesService&) = delete;
  void start() { look_later(); }

 private:
  void look_later();
  void look();
  // Makes the object, or gives it back these members.
  void keep(const ResourceInfo& resource, nlohmann::json wanted);

  ApiCore& core_;
  const Options options_;
  const ResourceInfo &services_, &slices_, &endpoints_;
  bool pending_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
