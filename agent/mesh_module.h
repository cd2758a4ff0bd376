// MeshModule: the mesh's share of the control channel at the edge (messages of group "mesh").
//
//   cloud -> services, endpoint slices, configuration, signals -> metastore and sink
//   sink's owner -> signals, node info -> cloud
//
// At start the sink gets what the metastore holds, so that a node serves without the cloud. After each
// connect the node tells how far it is (epoch, position) and gets the changes since, or everything; of
// the latter, what was not sent again is gone.
// Threads: the loop of the hub client.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "agent/hub_client.h"
#include "agent/metastore.h"
#include "core/base/net_addr.h"
#include "kube/objects.h"

namespace edgemesh::agent {

struct TurnServer {
  std::string host;  // empty: none
  uint16_t port = 3478;
  std::string username, password;
  int64_t expires = 0;
};

struct MeshConfig {
  std::string trust_domain, cluster_domain;  // empty: not told
  std::vector<Cidr> service_cidrs;
  TurnServer turn;
};

class MeshSink {
 public:
  virtual ~MeshSink() = default;
  virtual void upsert_service(const kube::Service& service) = 0;
  virtual void remove_service(const std::string& ns, const std::string& name) = 0;
  virtual void upsert_slice(const kube::EndpointSlice& slice) = 0;
  virtual void remove_slice(const std::string& ns, const std::string& name) = 0;
  virtual void on_config(const MeshConfig& config) = 0;
  virtual void on_signal(const std::string& from_node, const std::string& json) = 0;
  virtual void on_signal_error(const std::string& node, const std::string& reason) = 0;
  virtual void on_known_peer(const std::string& node, const std::vector<SockAddr>& addresses) = 0;
  // The first full state of this run is in: from the store or from the cloud.
  virtual void on_synced() {}
};

class MeshModule : private HubClient::Handler {
 public:
  MeshModule(HubClient& hub, Metastore& store, MeshSink& sink);

  // Feeds the sink from the metastore. Call once, before the hub starts.
  void load();
  Result<> send_signal(const std::string& node, std::string json);
  // JSON object with addresses, zone, directPort...; sent now and after each connect.
  void set_node_info(std::string json);
  void save_peer(const std::string& node, const std::vector<SockAddr>& addresses);
  bool synced() const { return synced_; }

 private:
  void on_hub_connected() override;
  void on_hub_disconnected(const std::string& reason) override;
  void on_hub_message(channel::Message message) override;

  void on_response(const channel::Message& message);
  void on_change(const channel::Message& message);
  bool apply(const std::string& key, const std::string& value);
  void forget(const std::string& key);
  void apply_config(const std::string& json);
  void end_sync(const channel::Message& message);
  void send(const char* operation, std::string resource, std::string content);

  HubClient& hub_;
  Metastore& store_;
  MeshSink& sink_;
  std::set<std::string> known_;    // keys of services and slices that the sink has
  std::set<std::string> unseen_;   // during a full sync: known keys that did not come again yet
  bool full_sync_ = false;
  bool synced_ = false;
  std::string epoch_, position_;
  std::string node_info_;
};

}  // namespace edgemesh::agent
