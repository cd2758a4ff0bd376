// NodeApi: what the cloud asks a node about its pods, as kubelet's API has it:
//
//   GET      /containerLogs/<namespace>/<pod>/<container>?follow&previous&tailLines&sinceSeconds&
//            sinceTime&timestamps&limitBytes&stream
//   GET POST /exec/<namespace>/<pod>/<container>?command=...&input&output&error&tty   (upgrade)
//   GET POST /attach/<namespace>/<pod>/<container>?input&output&error&tty             (upgrade)
//   GET POST /portForward/<namespace>/<pod>?port=...                                  (upgrade)
//   GET      /stats/summary
//
// Logs come from the runtime's files. Exec and the like go to the runtime's streaming server: only
// the upgrade is made here, what flows after it is between kubectl and the runtime. It listens
// nowhere: requests come over the cloud's streams. Errors are Kubernetes' Status objects.
// Threads: the loop given.
#pragma once

#include <memory>
#include <string>

#include "agent/cri/runtime_client.h"
#include "core/http/server.h"
#include "core/io/loop.h"

namespace edgemesh::streams {

struct NodeApiOptions {
  std::string node;
  size_t max_streams = 64;
  Duration idle_timeout = std::chrono::hours(4);  // of exec, attach, port-forward without a byte
};

class NodeApi {
 public:
  static std::unique_ptr<NodeApi> create(io::Loop& loop, cri::RuntimeClient& runtime,
                                         NodeApiOptions options);
  virtual ~NodeApi() = default;
  virtual void handle(const http::Request& request,
                      const std::shared_ptr<http::ResponseWriter>& writer) = 0;
  virtual size_t streams() const = 0;
};

}  // namespace edgemesh::streams
