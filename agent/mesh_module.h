// MeshModule (bus module and group "mesh"): keeps the node's picture of the mesh, and carries peer
// signalling.
//
//   start    what the metastore holds goes to the sink: the node serves it, with or without a cloud
//   connect  node > cloud  get sync {"resourceVersion","epoch"}: where we stand
//            cloud > node  response sync/begin {"full","epoch"}, changes, response sync/end
//                          {"resourceVersion","epoch"}, then changes as they happen
//            node > cloud  update node {...}: addresses, ports, kind of NAT
//   config   cloud > node  update config: domains, CIDRs, relay credentials; kept on disk, too
//            cloud > node  update revoked {"changed":[{"node","before"}],"removed":[names]}: what is new in the
//            configuration's list of revoked certificates
//   signal   both ways     signal peer/<node>; error peer/<node> when it could not be delivered
//
// With full=true, what was not sent between begin and end is gone. A sync that breaks off (the link
// ended) leaves everything as it was; the next one begins anew. A missing sync/begin (an answer that
// was lost) is asked for again.
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "agent/metastore.h"
#include "core/base/net_addr.h"
#include "core/bus/bus.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"
#include "kube/objects.h"

namespace edgemesh::agent {

inline constexpr const char* kMeshModule = "mesh";

// What the cloud says about the mesh. Defaults hold until it does.
struct MeshConfig {
  std::string trust_domain = "edgemesh.local";
  std::string cluster_domain = "cluster.local";
  std::vector<Cidr> service_cidrs;
  struct Turn {
    std::string host;  // empty: no relay
    uint16_t port = 3478;
    std::string username, password;
    int64_t expires = 0;  // Unix seconds; 0: never
  } turn;
  std::vector<std::string> stun;  // "host:port"
  struct Revoked {
    std::string node;
    int64_t before = 0;  // Unix seconds: its certificates with an earlier notBefore count no more
  };
  std::vector<Revoked> revoked;
};
// Fields of a wrong type are an error; unknown ones are ignored.
Result<MeshConfig> parse_mesh_config(std::string_view json);

// Where the picture goes: cmd wires it to discovery::Registry, the proxy and p2p. Called on the loop.
class MeshSink {
 public:
  virtual ~MeshSink() = default;
  virtual void upsert_service(const kube::Service& service) = 0;
  virtual void remove_service(const std::string& ns, const std::string& name) = 0;
  virtual void upsert_slice(const kube::EndpointSlice& slice) = 0;
  virtual void remove_slice(const std::string& ns, const std::string& name) = 0;
  virtual void on_config(const MeshConfig& config) = 0;
  // From the cloud, by p2p's signalling.
  virtual void on_signal(const std::string& from_node, std::string_view json) = 0;
  virtual void on_signal_error(const std::string& node, std::string_view reason) = 0;
  // The picture is whole: as stored at the start, or after each sync with the cloud.
  virtual void on_synced() {}
};

// What the cloud shall know about this node; sent after each connect and when it changed.
struct NodeInfo {
  std::vector<std::string> addresses;  // for the direct path: "10.0.0.7:15008"
  std::string zone;
  uint16_t direct_port = 0;
  std::string nat_kind;
  std::string version;
  friend bool operator==(const NodeInfo&, const NodeInfo&) = default;
};

// As p2p::KnownPeer; the modules do not include each other.
struct StoredPeer {
  std::string node;
  std::vector<SockAddr> direct;
  friend bool operator==(const StoredPeer&, const StoredPeer&) = default;
};

class MeshModule final : public bus::Module {
 public:
  struct Options {
    std::string node;
    Duration sync_retry = std::chrono::seconds(30);
    size_t max_peers = 1024;
    size_t max_signal_bytes = 32 << 10;
  };
  struct Status {
    bool loaded = false;     // from disk
    bool synced = false;     // with the cloud, on this connection
    std::string epoch, version;
    size_t services = 0, slices = 0;
    uint64_t full_syncs = 0, delta_syncs = 0, changes = 0, bad_objects = 0;
    int64_t last_sync = 0;  // Unix seconds; 0: never since the start
  };

  MeshModule(io::Loop& loop, Options options, Metastore& store, MeshSink& sink,
             obs::Registry& registry);
  ~MeshModule() override;

  std::string_view name() const override { return kMeshModule; }
  std::string_view group() const override { return "mesh"; }
  Result<> start(bus::Bus& bus) override;
  void stop() override;
  void on_message(bus::Message message) override;

  // Signals of p2p: when there is no way to the cloud, the sink hears on_signal_error in a later turn.
  void send_signal(const std::string& to_node, std::string json);
  void set_node_info(NodeInfo info);

  // Peers with their last known addresses, kept over restarts. Like config() valid from the start.
  const std::vector<StoredPeer>& known_peers() const { return peers_; }
  void persist_peers(std::vector<StoredPeer> peers);

  const MeshConfig& config() const { return config_; }
  Status status() const;

 private:
  enum class Kind { kService, kSlice };
  struct Key {
    Kind kind;
    std::string ns, name;
  };
  static bool parse_key(std::string_view resource, Key* out);

  void load_settings();
  Result<> load_objects(Kind kind);
  void on_connection(bool connected);
  void request_sync();
  void send_node_info();
  void on_sync(const bus::Message& message);
  void begin_sync(bool full, const std::string& epoch);
  void end_sync(const std::string& epoch, const std::string& version);
  void on_change(bus::Message message, const Key& key);
  void on_config_message(const bus::Message& message);
  void on_revoked_message(const bus::Message& message);
  void take_config(std::string json);
  void on_error(const bus::Message& message);
  bool apply(const Key& key, std::string_view json);
  void remove(const Key& key, std::string_view stored_key);
  void put_position();
  void on_lost();
  Result<> to_cloud(bus::Message message);
  void signal_failed(const std::string& node, std::string reason);

  io::Loop& loop_;
  Options options_;
  Metastore& store_;
  MeshSink& sink_;
  bus::Bus* bus_ = nullptr;
  bool connected_ = false;
  MeshConfig config_;
  std::string config_json_;  // that config_ was read from
  std::vector<StoredPeer> peers_;
  NodeInfo info_;
  bool has_info_ = false;
  bool info_sent_ = false;

  enum class Phase { kIdle, kAsked, kSyncing, kLive };
  Phase phase_ = Phase::kIdle;
  bool full_ = false;
  std::string sync_epoch_;                 // of the sync that runs
  std::unordered_set<std::string> stale_;  // full sync: what was not resent yet
  std::string epoch_, version_;            // reached
  bool position_waits_ = false;            // changed since it was put into the store
  std::string part_epoch_, part_version_;  // reached within a full sync that is not whole yet
  Status status_;
  io::Timer sync_timer_;
  obs::Gauge& synced_;
  obs::Counter& changes_;
  obs::Counter& bad_objects_;
  obs::Counter& signals_in_;
  obs::Counter& signals_out_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::agent
