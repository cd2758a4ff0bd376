// MeshController: tells every node what the mesh consists of.
//
// Watches services and endpoint slices through any kube::Client, keeps them in a MeshLog, and leads
// each node through it: a node says where it stands (mesh/get sync) and gets what changed since, or
// everything when its position means nothing here. Also sends the mesh's settings with TURN
// credentials (mesh/update config) at each connect and before the credentials run out.
// Nothing is sent before the first lists are complete: an empty answer would look like "all is
// gone". Threads: one loop.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cloud/mesh_log.h"
#include "cloud/node_link.h"
#include "cloud/revocations.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"
#include "kube/informer.h"

namespace edgemesh::cloud {

struct TurnOptions {
  std::string host;  // empty: no relay is offered
  uint16_t port = 3478;
  std::string secret;
  std::chrono::seconds lifetime = std::chrono::hours(24);
};

struct MeshOptions {
  std::string trust_domain = "edgemesh.local";
  std::string cluster_domain = "cluster.local";
  std::vector<std::string> service_cidrs{"10.96.0.0/12"};
  TurnOptions turn;
  std::vector<std::string> stun;  // "host:port"
  // Where the log is kept, so that after a restart nodes need only what changed. Empty: nowhere.
  std::string log_path;
};

class MeshController {
 public:
  MeshController(io::Loop& loop, kube::Client& client, NodeLink& link, MeshOptions options,
                 obs::Registry& registry);
  ~MeshController();
  void start();
  // Both lists were complete once.
  bool ready() const;
  const MeshLog& log() const { return log_; }

  // Whose certificates count no more; all nodes are told what is new in that.
  void set_revoked(std::vector<RevokedNode> revoked);

  void on_connected(const std::string& node);
  void on_disconnected(const std::string& node);
  void on_sync_request(const std::string& node, const channel::Message& message);
  Frame next_frame(const std::string& node);

 private:
  struct NodeState {
    MeshCursor cursor;
    bool waiting = false;  // asked before ready()
    std::string epoch, position, request_id;
    int64_t config_expires = 0;  // of the credentials last sent
  };

  std::unique_ptr<kube::Informer> make_informer(const kube::ResourceType& type, const char* name);
  void on_upsert(const kube::ResourceType& type, const char* name,
                 const kube::Informer::Object& object);
  void on_delete(const char* name, const kube::Informer::Object& object);
  void on_synced();
  void restore_log();
  void save_log();
  void send_config(const std::string& node, NodeState& state);
  void refresh_configs();
  int64_t wall_seconds() const;

  io::Loop& loop_;
  kube::Client& client_;
  NodeLink& link_;
  MeshOptions options_;
  std::vector<RevokedNode> revoked_;
  MeshLog log_;
  std::unordered_map<std::string, NodeState> nodes_;
  io::Timer config_timer_;
  io::Timer save_timer_;
  bool saving_ = false;  // a write is on the pool
  bool restored_ = false;  // restored entries that are gone were dealt with
  obs::Counter& changes_;
  obs::Counter& full_syncs_;
  obs::Counter& delta_syncs_;
  std::unique_ptr<kube::Informer> services_;
  std::unique_ptr<kube::Informer> slices_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
