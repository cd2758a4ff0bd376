// HttpRuntime: a filter chain that speaks HTTP, made ready to serve: its routes and policies
// compiled. Immutable, shared by all workers. ChainSlot: what one worker's connections of that chain
// look through to the newest runtime; a request keeps the version it began with.
#pragma once

#include <memory>
#include <string>

#include "core/base/result.h"
#include "core/obs/metrics.h"
#include "proxy/model/listener.h"
#include "proxy/route/jwt_gate.h"
#include "proxy/route/policies.h"
#include "proxy/route/route_table.h"
#include "proxy/telemetry/telemetry.h"
#include "proxy/upstream/host.h"

namespace edgemesh::proxy {

// Where a process tells of its traffic; both may be null.
struct TelemetryPlace {
  Telemetry* process = nullptr;               // outlives all runtimes
  const model::Telemetry* defaults = nullptr;  // of chains that say nothing; for the call
};
// What a chain's requests or connections are told to.
struct ChainTelemetry {
  std::shared_ptr<const AccessLogger> log;  // null: none
  TrafficScopePtr listener;                 // null: not counted
  static Result<ChainTelemetry> make(const model::Listener& listener,
                                     const std::vector<model::AccessLog>& logs,
                                     const TelemetryPlace& place);
};

struct HttpRuntime {
  model::FilterChainPtr chain;
  const model::HttpChain* spec = nullptr;  // of `chain`
  std::string listener;                    // name
  model::Listener::Direction direction = model::Listener::Direction::kUnspecified;
  std::shared_ptr<const RouteTable> routes;
  std::shared_ptr<const Policies> policies;  // of the chain itself; null: none
  std::shared_ptr<const JwtGate> jwt;        // null: none
  ChainTelemetry told;
  model::PerMillion trace_share = 0;
};
using HttpRuntimePtr = std::shared_ptr<const HttpRuntime>;

// Errors: what RouteTable and Policies say. What `previous` counted (tokens) goes on.
Result<HttpRuntimePtr> make_http_runtime(const model::Listener& listener,
                                         model::FilterChainPtr chain,
                                         std::shared_ptr<const RouteTable> routes,
                                         const HttpRuntime* previous,
                                         const TelemetryPlace& telemetry = {});

// A runtime as one worker holds it: counted without atomics. Threads: that worker's loop.
class ChainVersion {
 public:
  explicit ChainVersion(HttpRuntimePtr runtime) : runtime_(std::move(runtime)) {}
  const HttpRuntime& operator*() const { return *runtime_; }
  const HttpRuntime* operator->() const { return runtime_.get(); }

 private:
  friend class LocalRef<ChainVersion>;
  void ref() { ++refs_; }
  void unref() {
    if (--refs_ == 0) delete this;
  }
  uint32_t refs_ = 0;
  HttpRuntimePtr runtime_;
};
using ChainVersionRef = LocalRef<ChainVersion>;

// One worker's counts of a listener.
struct ListenerStats {
  obs::Counter connections, requests, bad_requests;
  obs::Counter by_class[6];  // answers by the first digit of the status; 0: none was sent
  obs::Counter refused;      // connections over the limit, or that no chain takes
  obs::Counter tls_errors, tcp_failures;
};

struct ChainSlot {
  ChainVersionRef version;
  ListenerStats* stats = nullptr;
  std::shared_ptr<const void> keep;  // owns `stats`
  const void* owner = nullptr;       // the listener, to find its connections
  bool draining = false;             // connections that come to it yet have one request
};
using ChainSlotPtr = std::shared_ptr<ChainSlot>;

}  // namespace edgemesh::proxy
