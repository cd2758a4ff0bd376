// EdgeController: what every node needs of the Kubernetes API, kept up to date at the node: the
// pods bound to it, the config maps and secrets that those pods name, and its own Node (labels,
// taints). KubeEdge's edgecontroller and synccontroller (reference, sections 2.7 and 2.8) do the
// same on two ways; here there is one: a list of what a node shall have, compared with what it
// confirmed (SyncBook), and what differs is sent (ReliableSender).
//
// - A change that means nothing to the node, above all the status that it reported itself, is not
// sent.
// - An agent of ours says after each connect what its store holds (mesh/get objects); that replaces
// the book:
//   a node whose disk was lost, or a cloud restored from a backup, ends in the same state.
//   It is told the uids of all its pods then (null/podlist/<node>), so that it may end what else
//   runs there. KubeEdge's edges do not say what they hold; for them the book alone counts.
// - Cost: a change costs what the nodes concerned cost, whatever the number of nodes and objects.
// Threads: one loop.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "cloud/edge/pod_view.h"
#include "cloud/edge/reliable_sender.h"
#include "cloud/edge/sync_book.h"
#include "kube/informer.h"

namespace edgemesh::cloud {

class EdgeController {
 public:
  struct Options {
    SyncBook::Options book;
    ReliableSender::Options sender;
    size_t max_inventory = 4'000;  // objects in what a node says that it holds
  };

  EdgeController(io::Loop& loop, kube::Client& client, NodeLink& link, Options options,
                 obs::Registry& registry);
  ~EdgeController();

  void start();
  // The lists are complete; nothing is sent before.
  bool ready() const { return ready_; }

  void on_connected(const std::string& node);
  void on_disconnected(const std::string& node);
  // False: not about a message of this controller.
  bool on_answer(const std::string& node, const std::string& parent_id, bool failed) {
    return sender_.on_answer(node, parent_id, failed);
  }
  // {"objects":[{"resource":"default/pod/web","uid":"...","resourceVersion":"17"},...]}
  // Once a connection; more are refused.
  Result<> on_inventory(const std::string& node, const nlohmann::json& content);

  const SyncBook& book() const { return book_; }
  const ReliableSender& sender() const { return sender_; }

 private:
  struct Pod {
    ObjectRef ref;
    std::string node;
    std::string version;  // at which its meaning changed last
    uint64_t meaning = 0;
    std::vector<std::string> references;  // keys of configs_
  };
  struct NodeObject {
    ObjectRef ref;
    std::string version;
    uint64_t meaning = 0;
  };
  // A config map or secret that exists, or that a pod names.
  struct Config {
    ObjectRef ref;  // uid empty: it does not exist
    std::string version;
    std::map<std::string, size_t> users;  // node -> pods of it that name this
  };

  std::unique_ptr<kube::Informer> inform(const kube::ResourceType& type, bool configs);
  void on_synced();
  void on_pod(const kube::Informer::Object& object);
  void on_pod_gone(const kube::Informer::Object& object);
  void on_node(const kube::Informer::Object& object);
  void on_node_gone(const kube::Informer::Object& object);
  void on_config(const kube::ResourceType& type, const kube::Informer::Object& object);
  void on_config_gone(const kube::ResourceType& type, const kube::Informer::Object& object);
  void refer(const std::string& node, const kube::ResourceType& type, const std::string& key);
  void release(const std::string& node, const std::string& key);
  void forget_pod(Pod& pod);
  void sync_node(const std::string& node);
  void send_pod_list(const std::string& node);
  void want(const std::string& node, const ObjectRef& ref, const std::string& version,
            std::unordered_set<std::string>* wanted);

  io::Loop& loop_;
  kube::Client& client_;
  NodeLink& link_;
  Options options_;
  SyncBook book_;
  ReliableSender sender_;
  std::unordered_map<std::string, Pod> pods_;                                 // by "ns/name"
  std::unordered_map<std::string, std::unordered_set<std::string>> pods_of_;  // node -> keys
  std::unordered_map<std::string, NodeObject> nodes_;
  std::unordered_map<std::string, Config> configs_;  // by "configmap/ns/name"
  std::unordered_map<std::string, bool> connected_;  // whether it said what it holds
  // What nodes said before the book was there.
  std::unordered_map<std::string, std::vector<SyncBook::Entry>> inventories_;
  size_t lists_missing_ = 5;  // four informers and the book
  bool ready_ = false;
  std::vector<std::unique_ptr<kube::Informer>> informers_;
};

}  // namespace edgemesh::cloud
