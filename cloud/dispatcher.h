// Dispatcher: sorts what comes up the channel to the controller that answers it, in KubeEdge's
// order: the hub's own control messages, replies, the mesh's group, the Kubernetes CA, then by
// source. A message that claims to come from a part of the cloud is dropped. Unknown ones are
// ignored: a newer edge may say more than this cloud understands. Threads: one loop.
#pragma once

#include <string>

#include "cloud/dynamic_controller.h"
#include "cloud/edge/edge_controller.h"
#include "cloud/mesh_controller.h"
#include "cloud/node_controller.h"
#include "cloud/node_link.h"
#include "cloud/rendezvous.h"
#include "cloud/upstream.h"
#include "core/obs/metrics.h"

namespace edgemesh::cloud {

class Dispatcher final : public NodeEvents {
 public:
  struct Parts {
    NodeLink& link;
    MeshController& mesh;
    NodeController& nodes;
    Rendezvous& rendezvous;
    Upstream& upstream;
    std::string kube_ca_pem;  // the answer to k8s/ca.crt
    EdgeController* edge = nullptr;  // null: pods and their configs do not go to nodes
    DynamicController* dynamic = nullptr;  // null: requests of the nodes' local APIs are not made
  };
  Dispatcher(Parts parts, obs::Registry& registry);

  void on_connected(const std::string& node) override;
  void on_disconnected(const std::string& node) override;
  void on_message(const std::string& node, channel::Message message) override;
  Frame next_frame(const std::string& node) override { return parts_.mesh.next_frame(node); }

 private:
  void on_mesh(const std::string& node, const channel::Message& message);
  void on_inventory(const std::string& node, const channel::Message& message);
  // Of something that was sent to the node.
  bool on_answer(const std::string& node, const channel::Message& message);
  void answer(const std::string& node, const channel::Message& to, const char* source,
              const char* group, std::string content);
  void ignore(const std::string& node, const channel::Message& message, const char* why);

  Parts parts_;
  obs::Counter& ignored_;
};

}  // namespace edgemesh::cloud
