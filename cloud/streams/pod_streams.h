// PodStreams: the subresources of pods that are served by the pod's node: log, exec, attach,
// portforward. A request becomes one of kubelet's API, sent to the node over a stream; its answer,
// and for exec and the like the upgraded connection, goes back as it comes. Threads: the loop
// given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "cloud/api/error.h"
#include "cloud/api/request.h"
#include "cloud/streams/node_streams.h"
#include "core/http/forward.h"
#include "core/http/server.h"

namespace edgemesh::cloud {

// What the node is asked, or the error for the client. `pod` is the object's JSON text.
struct NodeRequest {
  std::string node;
  http::ForwardRequest request;
};
ApiResult<NodeRequest> node_request(const http::Request& request, const ResourcePath& path,
                                    const std::string& pod);

class PodStreams {
 public:
  struct Options {
    size_t max_streams = 1024;  // of all clients and nodes
    http::ForwardOptions forward;
  };
  // The pod's JSON text; empty: there is none.
  using FindPod = std::function<std::string(const std::string& ns, const std::string& name)>;
  PodStreams(io::Loop& loop, NodeStreams& nodes, FindPod find, Options options);
  ~PodStreams();

  // For ApiServerOptions::on_subresource. False: not one of ours.
  bool handle(const http::Request& request, const std::shared_ptr<http::ResponseWriter>& writer,
              const ResourcePath& path);
  void drain();  // cuts what is open
  size_t open() const { return running_.size(); }

 private:
  void begin(NodeRequest what, const std::shared_ptr<http::ResponseWriter>& writer,
             std::unique_ptr<io::Stream> stream);

  io::Loop& loop_;
  NodeStreams& nodes_;
  FindPod find_;
  Options options_;
  uint64_t next_ = 1;
  std::unordered_map<uint64_t, std::unique_ptr<http::Forward>> running_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
