// DynamicController: requests to the Kubernetes API that come up from the local API of a node
// (KubeEdge's dynamiccontroller; core/channel/application.h has the messages).
//
// Each is made as the node that asked, by the name in its certificate: the API's own rules for
// nodes decide, whatever runs on the node and asks. Requests in work are limited per node, answers
// in size: beyond, the node is told so. Watches are not served here: a node watches what it holds.
// Threads: one loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "cloud/node_link.h"
#include "core/base/function.h"
#include "core/base/result.h"
#include "core/channel/application.h"

namespace edgemesh::cloud {

// One HTTP request to the API.
struct NodeCall {
  std::string node;
  std::string method, target, content_type, body;
};
struct NodeCallAnswer {
  int status = 500;
  std::string body;  // JSON; of an error a Status object
};
// Makes the call with the rights of `system:node:<node>`. An error: the API was not reached.
using CallAsNode = std::function<void(NodeCall, UniqueFunction<void(Result<NodeCallAnswer>)>)>;

// kInvalidArgument: no verb of ours, or options that cannot be read.
Result<NodeCall> node_call(const channel::Application& request);

class DynamicController {
 public:
  struct Options {
    size_t max_in_flight = 16;    // a node
    size_t max_answer = 2 << 20;  // bytes; a message may have 4 MiB, in base64
  };
  DynamicController(NodeLink& link, CallAsNode call, Options options);
  DynamicController(NodeLink& link, CallAsNode call);
  ~DynamicController();
  void on_message(const std::string& node, const channel::Message& message);

 private:
  void finish(const std::string& node, const channel::Message& to, channel::Application request,
              Result<NodeCallAnswer> answer);
  void send(const std::string& node, const channel::Message& to,
            const channel::Application& answer);

  NodeLink& link_;
  CallAsNode call_;
  Options options_;
  std::unordered_map<std::string, size_t> in_flight_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
