// HandlerRunner: does once what a probe or a life-cycle hook says: a command in the container, an
// HTTP request, a TCP connection, a gRPC health check, a sleep. Good is: exit code 0; status 200 to
// 399; connected; SERVING. Threads: the loop given.
#pragma once

#include <memory>
#include <string>

#include "agent/cri/runtime_client.h"
#include "agent/edged/spec/pod_spec.h"
#include "core/http/client.h"

namespace edgemesh::edged {

struct HandlerTarget {
  std::string container_id;
  std::string ip;                        // the pod's
  const Container* container = nullptr;  // named ports; used during the call only
};

class HandlerRunner {
 public:
  using Done = UniqueFunction<void(Result<>)>;
  HandlerRunner(io::Loop& loop, cri::RuntimeClient& runtime);
  ~HandlerRunner();

  // `done` runs once, in a later turn, and never after this was destroyed. The error's message is
  // what events and logs tell. `timeout` zero: a hook's, as long as it takes (at most 10 minutes).
  void run(const Handler& handler, const HandlerTarget& target, Duration timeout, Done done);

 private:
  struct Shared;
  void later(Result<> result, Done done);
  void run_exec(const Handler& handler, const HandlerTarget& target, Duration timeout, Done done);
  void run_http(const Handler& handler, const HandlerTarget& target, Duration timeout, Done done);
  void run_tcp(const SockAddr& to, Duration timeout, Done done);
  void run_grpc(const Handler& handler, const SockAddr& to, Duration timeout, Done done);

  io::Loop& loop_;
  cri::RuntimeClient& runtime_;
  http::Client http_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
