// NodeParts: what this node gives its pods, from the metastore and its own configuration.
// Threads: the loop of the metastore.
#pragma once

#include <string>

#include "agent/edged/pod_worker.h"
#include "agent/meta/meta_module.h"

namespace edgemesh::edged {

struct NodePartsOptions {
  std::string node;
  std::string host_ip;
  std::string log_root = "/var/log/pods";
  std::string cgroup_parent = "/kubepods";
};

class NodeParts final : public PodParts {
 public:
  // `meta` is borrowed.
  NodeParts(agent::MetaModule& meta, NodePartsOptions options)
      : meta_(meta), options_(std::move(options)) {}

  Result<> prepare(const Pod& pod) override;
  Result<pb::PodSandboxConfig> sandbox(const Pod& pod, uint32_t attempt) override;
  Result<pb::ContainerConfig> container(const Pod& pod, const Container& container,
                                        uint32_t attempt, const PodView& view) override;
  std::vector<pb::AuthConfig> logins(const Pod& pod, const std::string& image) override;
  std::string last_words(const Pod& pod, const ContainerView& container) override;
  void tear_down(const Pod& pod) override;

 private:
  std::string log_folder(const Pod& pod) const;

  agent::MetaModule& meta_;
  NodePartsOptions options_;
};

}  // namespace edgemesh::edged
