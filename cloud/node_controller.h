// NodeController: keeps a Node object in the Kubernetes API for every node that runs our agent.
//
// What the agent reports about itself (mesh/update node) becomes the annotation edgemesh.io/mesh,
// the labels and the addresses of its Node, which is made when it is absent. The condition Ready is
// True while the node is connected and Unknown after it has been gone for `gone_after`, as a node
// of any cluster. A condition that another program keeps (a kubelet's) is left alone (judges_all:
// while the node is connected), and so is a node whose lease someone still renews: another cloud has
// it now. Objects are written only where
// they differ; failures are retried while they matter, and what all nodes say is looked over from
// time to time. Threads: one loop.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <unordered_map>

#include "cloud/node_leases.h"
#include "cloud/node_link.h"
#include "core/io/loop.h"
#include "kube/client.h"

namespace edgemesh::cloud {

inline constexpr const char* kMeshAnnotation = "edgemesh.io/mesh";
inline constexpr const char* kNodeLabel = "edgemesh.io/node";

struct NodeOptions {
  Duration gone_after = std::chrono::seconds(40);
  // A real kube-apiserver's node lifecycle controller wants leases renewed; the embedded one does
  // not. Zero: off.
  Duration lease_interval{};
  // Nobody else says that a node is gone (the embedded API): also one whose condition its kubelet
  // keeps while it can. A lease that is renewed still speaks for it.
  bool judges_all = false;
  Duration recheck = std::chrono::minutes(5);  // of all nodes' conditions, by a list
  size_t max_info_bytes = 16 << 10;
  // Whether a Node that is absent may be made, as Revocations::may_create; empty: always.
  std::function<bool(const std::string& node)> may_create;
  // Whether this cloud looks after nodes that are connected to none of several; empty: it is the
  // only one.
  std::function<bool()> leads;
  size_t max_in_flight = 32;  // API calls at a time: a thousand nodes may come at once
};

class NodeController {
 public:
  NodeController(io::Loop& loop, kube::Client& client, NodeOptions options);
  ~NodeController();
  // Also finds nodes that an earlier run, or another cloud, left as Ready and that do not come
  // back.
  void start();
  void on_connected(const std::string& node);
  void on_disconnected(const std::string& node);
  void on_node_info(const std::string& node, const channel::Message& message);
  bool knows(const std::string& node) const { return nodes_.contains(node); }

 private:
  struct State {
    bool connected = false;
    bool managed = false;  // its agent told us about itself
    bool queued = false;
    bool working = false;
    bool again = false;  // something changed while an update was on its way
    TimePoint gone_at{};
    TimePoint retry_at{};  // set: failed, try again then
    int failures = 0;
    std::string info;  // JSON text as annotated
  };

  void tick();
  void enqueue(const std::string& node);
  void work();
  void begin(const std::string& node);
  void on_object(const std::string& node, Result<std::string> object);
  void create(const std::string& node);
  void patch_meta(const std::string& node, const std::string& object);
  void patch_status(const std::string& node, const std::string& object);
  void finish(const std::string& node, Result<std::string> result);
  void ask_lease(const std::string& node, std::string object);
  void recheck(const std::string& page);
  void recheck_node(const nlohmann::json& object);
  void renew_leases();
  nlohmann::json wanted_meta(const std::string& node, const State& state) const;
  nlohmann::json wanted_status(const State& state) const;
  // Wraps a member so that it does not run after this object is gone.
  kube::Client::Callback guarded(UniqueFunction<void(Result<std::string>)> then);

  io::Loop& loop_;
  kube::Client& client_;
  NodeOptions options_;
  std::unordered_map<std::string, State> nodes_;
  std::deque<std::string> queue_;
  size_t in_flight_ = 0;
  TimePoint next_recheck_{};
  std::unique_ptr<NodeLeases> leases_;  // null: off
  io::Timer tick_timer_;
  io::Timer lease_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
