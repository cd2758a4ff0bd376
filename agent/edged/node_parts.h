// NodeParts: what this node gives its pods, from the metastore and its own configuration. Hears of
// what the metastore gets, so that the volumes of running pods follow it.
// Threads: the loop of the metastore.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/edged/pod_worker.h"
#include "agent/edged/spec/translate.h"
#include "agent/edged/volumes/volume_manager.h"
#include "agent/meta/meta_module.h"
#include "core/base/net_addr.h"

namespace edgemesh::edged {

struct NodePartsOptions {
  std::string node;
  std::string host_ip;
  std::string log_root = "/var/log/pods";
  std::string cgroup_parent = "/kubepods";
  std::string volume_root = "/var/lib/edgemesh/pods";
  std::vector<std::string> cluster_dns;  // empty: pods ask the host's servers
  std::string cluster_domain = "cluster.local";
  std::string resolv_conf = "/etc/resolv.conf";
  // Of the Service default/kubernetes, told to containers; empty function, or none: not told.
  std::function<std::optional<SockAddr>()> api_service = {};
};

class NodeParts final : public PodParts, public agent::MetaSink {
 public:
  // `meta`, `tokens` and `mounter` are borrowed. `tokens` null: as for VolumeManager.
  NodeParts(agent::MetaModule& meta, NodePartsOptions options, TokenSource* tokens,
            Mounter& mounter = system_mounter());

  Result<> prepare(const Pod& pod) override;
  Result<pb::PodSandboxConfig> sandbox(const Pod& pod, uint32_t attempt) override;
  Result<pb::ContainerConfig> container(const Pod& pod, const Container& container,
                                        uint32_t attempt, const PodView& view) override;
  std::vector<pb::AuthConfig> logins(const Pod& pod, const std::string& image) override;
  std::string last_words(const Pod& pod, const ContainerView& container) override;
  void tear_down(const Pod& pod) override;
  // The pod has another token.
  void on_new_token(const std::string& uid) { volumes_.refresh_tokens(uid); }
  // Removes what is left of pods that are not among these.
  void sweep(const std::set<std::string>& uids);

  // What is on the node: whom images run as.
  void set_images(const pb::ListImagesResponse& images);

  void on_object(const agent::MetaKey& key, std::string_view json) override;
  void on_object_gone(const agent::MetaKey&, const std::string&) override {}

 private:
  // Config maps and secrets of the metastore.
  class Objects final : public ObjectSource {
   public:
    explicit Objects(agent::MetaModule& meta) : meta_(meta) {}
    Result<nlohmann::json> get(const std::string& kind, const std::string& ns,
                               const std::string& name) override;

   private:
    agent::MetaModule& meta_;
  };

  Objects objects_;
  NodePartsOptions options_;
  NodeContext node_;
  VolumeManager volumes_;
  std::map<std::string, ImageUser> image_users_;  // by full name and by id
};

}  // namespace edgemesh::edged
