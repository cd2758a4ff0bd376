// SyncBook: which version of which object every node has confirmed, kept in the Kubernetes API as
// KubeEdge keeps it: ObjectSync "<node>.<uid>" in the object's namespace, ClusterObjectSync for
// cluster-wide objects (reliablesyncs.kubeedge.io/v1alpha1), status.objectResourceVersion. So
// another replica, or the cloud after a restart, or a KubeEdge cloudcore, goes on where this one
// was.
//
// The book in memory is what the senders use. Writes follow it: one at a time for each object, the
// newest version only, a bounded number in all; a failed one is tried again. What was not written
// when the process ends is sent to the node once more, which does no harm. Where the API does not
// know these resources (a cluster without KubeEdge's CRDs) the book lives in memory alone, which is
// logged once. Threads: the loop given.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cloud/edge/object_ref.h"
#include "core/io/loop.h"
#include "kube/client.h"
#include "kube/informer.h"

namespace edgemesh::cloud {

inline const kube::ResourceType kObjectSyncs{"reliablesyncs.kubeedge.io", "v1alpha1", "objectsyncs",
                                             "ObjectSync", true};
inline const kube::ResourceType kClusterObjectSyncs{
    "reliablesyncs.kubeedge.io", "v1alpha1", "clusterobjectsyncs", "ClusterObjectSync", false};

class SyncBook {
 public:
  struct Entry {
    ObjectRef ref;
    std::string version;  // confirmed; "0": sent but never confirmed
  };
  struct Options {
    size_t max_in_flight = 32;
    Duration retry = std::chrono::seconds(5);
  };

  SyncBook(io::Loop& loop, kube::Client& client, Options options);
  SyncBook(io::Loop& loop, kube::Client& client);
  ~SyncBook();

  // `on_loaded` once, when what the API holds is in memory.
  void start(UniqueFunction<void()> on_loaded);
  bool loaded() const { return loaded_; }

  // Null: the node has not confirmed any version of it.
  const Entry* find(const std::string& node, const std::string& uid) const;
  // The pointers are valid until the next change.
  std::vector<const Entry*> of_node(const std::string& node) const;

  void record(const std::string& node, const ObjectRef& ref, std::string version);
  void forget(const std::string& node, const std::string& uid);
  // The node said what it holds: from now on that is the truth.
  void replace(const std::string& node, std::vector<Entry> entries);
  void forget_node(const std::string& node);

  size_t unwritten() const { return dirty_.size(); }

 private:
  using NodeBook = std::unordered_map<std::string, Entry>;  // by uid
  // What the API shall say about one object of one node.
  struct Write {
    ObjectRef ref;
    std::string version;   // empty: delete
    bool running = false;  // else it stands in queue_ or failed_
    bool again = false;    // changed while it ran
  };

  std::unique_ptr<kube::Informer> inform(const kube::ResourceType& type);
  void load(const kube::Informer::Object& object);
  void unload(const kube::Informer::Object& object);
  void on_list(const kube::ResourceType& type);
  void go_without(const Error& error);
  void mark(const std::string& node, const ObjectRef& ref, std::string version);
  void pump();
  void begin(const std::string& key, Write& write);
  void create(const std::string& key, const Write& write);
  void write_status(const std::string& key, const Write& write, bool may_create);
  void finish(const std::string& key, const Result<std::string>& result);
  kube::Client::Callback guarded(UniqueFunction<void(Result<std::string>)> then);

  io::Loop& loop_;
  kube::Client& client_;
  Options options_;
  std::unordered_map<std::string, NodeBook> nodes_;
  std::unordered_map<std::string, Write> dirty_;  // by object name "<node>.<uid>"
  std::deque<std::string> queue_;
  std::deque<std::string> failed_;  // until the retry timer
  size_t in_flight_ = 0;
  bool listed_namespaced_ = false, listed_cluster_ = false;
  bool loaded_ = false;
  bool persistent_ = true;
  UniqueFunction<void()> on_loaded_;
  io::Timer retry_timer_;
  std::unique_ptr<kube::Informer> namespaced_;
  std::unique_ptr<kube::Informer> cluster_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
