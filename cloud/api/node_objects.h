// NodeObjects: which objects the pods of each node name, so that a node may read those and no
// others. It follows the pods of the store; a question costs a look-up, whatever the number of
// pods. Threads: the store's loop.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cloud/api/store.h"

namespace edgemesh::cloud {

class NodeObjects {
 public:
  NodeObjects(ApiStore& store, const ResourceRegistry& registry);
  ~NodeObjects();
  NodeObjects(const NodeObjects&) = delete;
  NodeObjects& operator=(const NodeObjects&) = delete;

  // Does a pod of the node need it? `resource`: secrets, configmaps, persistentvolumeclaims,
  // persistentvolumes, serviceaccounts, volumeattachments or pods.
  bool uses(std::string_view node, std::string_view resource, std::string_view ns,
            std::string_view name) const;
  // The node that a pod is bound to; empty: none, or there is no such pod.
  std::string node_of_pod(std::string_view ns, std::string_view name) const;

 private:
  using Users = std::unordered_map<std::string, size_t>;  // node -> pods of it
  struct Object {
    std::string key;
    Users users;
  };
  struct Pod {
    std::string node, uid;
    std::vector<Object*> objects;
  };

  void on_pod(const StoredObject& pod, bool gone);
  void forget(const std::string& key);
  void use(Pod* pod, std::string key);
  bool named(std::string_view node, std::string_view resource, std::string_view ns,
             std::string_view name) const;
  // Volumes are named by claims: the one that a volume belongs to.
  bool uses_volume(std::string_view node, const ObjectPtr& volume) const;
  bool volume_needs(std::string_view node, std::string_view ns, std::string_view secret) const;

  ApiStore& store_;
  const ResourceInfo &pods_info_, &volumes_, &attachments_;
  std::unordered_map<std::string, Pod> pods_;                         // by "ns/name"
  std::unordered_map<std::string, std::unique_ptr<Object>> objects_;  // by "secrets/ns/name"
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
