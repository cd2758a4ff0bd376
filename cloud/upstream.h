// Upstream: what KubeEdge's edge asks the cloud for about Kubernetes objects (its edgecontroller):
// node, node status, leases, pods and their status, config maps and secrets, events, tokens of service
// accounts.
//
// A node may only touch what is its own: the Node of its name, its lease, pods bound to it, and the
// config maps and secrets that those pods name (the rules of Kubernetes' node authorizer).
// Requests in work are limited per node: beyond, the hub stops reading from that node.
// Threads: one loop.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <unordered_map>

#include "cloud/node_link.h"
#include "core/io/loop.h"
#include "kube/client.h"

namespace edgemesh::cloud {

struct UpstreamOptions {
  size_t max_in_flight = 64;  // a node
  // Whether a Node that is absent may be made, as Revocations::may_create; empty: always.
  std::function<bool(const std::string& node)> may_create;
};

class Upstream {
 public:
  Upstream(kube::Client& client, NodeLink& link, UpstreamOptions options = {});
  ~Upstream();
  // Resources this does not know are left unanswered (kept in the log at debug).
  void on_message(const std::string& node, channel::Message message);
  void on_disconnected(const std::string& node);

 private:
  struct Request;
  using RequestPtr = std::shared_ptr<Request>;
  using Then = UniqueFunction<void(Result<std::string>)>;

  void on_node(const RequestPtr& r);
  void on_node_patch(const RequestPtr& r);
  void on_node_status(const RequestPtr& r);
  void register_claimed(const RequestPtr& r, nlohmann::json object, Then done);
  void on_lease(const RequestPtr& r);
  void on_pod(const RequestPtr& r);
  void on_pod_status(const RequestPtr& r);
  void one_pod_status(const RequestPtr& r, const nlohmann::json& status);
  void on_pod_patch(const RequestPtr& r);
  void on_config(const RequestPtr& r, const kube::ResourceType& type);
  void on_event(const RequestPtr& r);
  // A token for a pod of the node (TokenRequest), as it asks for the volumes of that pod.
  void on_service_token(const RequestPtr& r);

  // Runs `then` with the pod only if it is bound to the asking node; else with an error.
  void own_pod(const RequestPtr& r, const std::string& name, Then then);
  kube::Client::Callback guarded(Then then);

  void reply(const Request& r, std::string content, std::string resource_version = {});
  void reply_object(const Request& r, const Result<std::string>& result);  // ObjectResp
  void reply_plain(const Request& r, const Result<std::string>& result);   // object or ErrStatus
  void reply_ok(const Request& r, const Result<std::string>& result);      // "OK" or an error
  void refuse(const Request& r, bool object_resp);
  void release(const std::string& node);

  kube::Client& client_;
  NodeLink& link_;
  UpstreamOptions options_;
  std::unordered_map<std::string, size_t> in_flight_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// {"ErrStatus":{metav1.Status}} as client-go's errors look in JSON.
nlohmann::json error_status(const Error& error, const kube::ResourceType& type,
                            std::string_view name);
// What a node tells of a pod's status, as a patch of `pod` that drops what it leaves out (an address
// of an earlier sandbox), where a plain patch would keep it. What others write (conditions of theirs,
// the class of service) stays.
nlohmann::json whole_pod_status(const nlohmann::json& pod, nlohmann::json status);
// Does a pod's spec name this config map (secret)?
bool pod_refers_to(const nlohmann::json& pod, const kube::ResourceType& type,
                   std::string_view name);

}  // namespace edgemesh::cloud
