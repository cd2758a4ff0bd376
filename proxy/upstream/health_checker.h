// HealthChecker: asks endpoints now and then whether they work, and sets SharedHost::kCheckFailed.
// One a process, for all workers; it needs nothing but this node, so it works with the cloud away.
//
// - An endpoint is ill until its first check passed; that one counts alone. Later it takes
//   unhealthy_threshold failures in a row to make it ill and healthy_threshold successes to heal
//   it. With several checks all must pass.
// - Each check makes a connection of its own (so that the connect is tested, too) with the
// cluster's
//   TLS and PROXY settings. HTTP: a status that is not expected is a failure like any other. gRPC:
//   grpc.health.v1.Health/Check must answer SERVING.
// - Not more than max_parallel run at a time; the others wait their turn.
// Threads: one loop, the one of the connector: the loop that owns the tunnels where endpoints on
// other nodes are to be checked, else the main loop.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "core/io/loop.h"
#include "proxy/upstream/list.h"
#include "proxy/upstream/pool.h"

namespace edgemesh::proxy {

struct HealthCheckerOptions {
  io::Loop& loop;
  Connector& connector;
  MakeClient make_h1;
  MakeClient make_h2;
  size_t max_parallel = 256;
  uint64_t seed = 0;  // 0: from the clock
};

class HealthChecker {
 public:
  explicit HealthChecker(HealthCheckerOptions options);
  ~HealthChecker();
  HealthChecker(const HealthChecker&) = delete;
  HealthChecker& operator=(const HealthChecker&) = delete;

  // A cluster's endpoints or settings changed. Endpoints that stay keep their rows of results
  // unless the checks changed.
  void set(std::shared_ptr<const HostSet> set);
  void remove(const std::string& cluster);
  size_t running() const { return running_; }
  size_t hosts() const;

 private:
  struct Cluster;
  class HostCheck;
  friend class HostCheck;
  // Starts the next ones that wait, while there is room.
  void start_waiting();

  HealthCheckerOptions options_;
  Random random_;
  size_t running_ = 0;
  List<HostCheck> waiting_;
  std::map<std::string, std::unique_ptr<Cluster>> clusters_;
};

}  // namespace edgemesh::proxy
