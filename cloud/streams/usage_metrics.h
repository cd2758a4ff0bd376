// UsageMetrics: metrics.k8s.io/v1beta1, what `kubectl top` reads: CPU and memory of nodes and pods.
// Nodes are asked when somebody wants to know, over their streams, at most `max_asked` at a time;
// what they said counts for a moment. A node that is away or does not answer in time is left out,
// as metrics-server does. Threads: the loop given.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "cloud/api/request.h"
#include "cloud/api/store.h"
#include "cloud/streams/node_streams.h"
#include "core/http/forward.h"
#include "core/http/server.h"

namespace edgemesh::cloud {

// What a node or a container uses.
struct Usage {
  uint64_t nano_cores = 0;
  uint64_t memory_bytes = 0;
};
struct PodUsage {
  std::string ns, name, time;
  std::map<std::string, Usage> containers;
};
struct NodeUsage {
  std::string time;  // RFC 3339
  Usage node;
  std::vector<PodUsage> pods;
};
// Of kubelet's /stats/summary.
Result<NodeUsage> parse_summary(std::string_view text);

class UsageMetrics {
 public:
  struct Options {
    Duration fresh = std::chrono::seconds(5);
    Duration answer_timeout = std::chrono::seconds(8);  // of all nodes together
    size_t max_asked = 64;
    size_t max_summary = 4 << 20;  // bytes
  };
  UsageMetrics(io::Loop& loop, NodeStreams& streams, const NodeLink& link, const ApiStore& store,
               const ResourceRegistry& registry, Options options);
  ~UsageMetrics();

  // For ApiServerOptions::on_computed.
  void handle(const http::Request& request, const std::shared_ptr<http::ResponseWriter>& writer,
              const ResourcePath& path);

 private:
  struct Known {
    TimePoint at{};
    NodeUsage usage;
  };
  // A request that waits for nodes.
  struct Gather {
    std::set<std::string> missing;
    UniqueFunction<void()> done;
    std::unique_ptr<io::Timer> timer;
  };

  std::vector<ObjectPtr> objects(const http::Request& request, const ResourcePath& path) const;
  void gather(std::set<std::string> nodes, UniqueFunction<void()> done);
  void finish(Gather& gather);
  void ask_next();
  void ask(const std::string& node);
  void answered(const std::string& node, const http::Response& response);
  const NodeUsage* known(const std::string& node) const;
  nlohmann::json render(const StoredObject& object, bool nodes) const;

  io::Loop& loop_;
  NodeStreams& streams_;
  const NodeLink& link_;
  const ApiStore& store_;
  const ResourceRegistry& registry_;
  Options options_;
  std::map<std::string, Known> known_;
  std::vector<std::shared_ptr<Gather>> gathers_;
  std::deque<std::string> to_ask_;
  std::map<std::string, std::unique_ptr<http::Forward>> asked_;  // null: its stream is being opened
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
