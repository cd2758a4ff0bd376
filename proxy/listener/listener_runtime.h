// ListenerRuntime: a listener made ready to take connections. Immutable, shared by the workers;
// what they count in common is ListenerShared, which lives on over changes.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proxy/exchange/overload.h"
#include "proxy/exchange/runtime.h"
#include "proxy/listener/tls_runtime.h"
#include "proxy/model/config.h"

namespace edgemesh::proxy {

struct ChainRuntime {
  model::FilterChainPtr chain;
  std::shared_ptr<const TlsRuntime> tls;   // null: no TLS
  HttpRuntimePtr http;                     // null: it forwards bytes
  std::shared_ptr<const RbacEngine> rbac;  // of a chain of bytes; null: none
  ChainTelemetry told;                     // of a chain of bytes
};

struct ListenerRuntime {
  model::ListenerPtr spec;
  std::vector<ChainRuntime> chains;  // as spec->chains
  ChainRuntime fallback;             // the default chain; its `chain` may be null
  bool inspect_tls = false;
  bool inspect_http = false;

  // Null: no chain of this name.
  const ChainRuntime* find(const std::string& chain) const;
};
using ListenerRuntimePtr = std::shared_ptr<const ListenerRuntime>;

using FindRoutes =
    std::function<Result<std::shared_ptr<const RouteTable>>(const model::HttpChain& chain)>;
// `previous` (may be null): parts that did not change are taken over. Errors name the listener and
// what is not supported or wrong.
Result<ListenerRuntimePtr> make_listener_runtime(model::ListenerPtr spec, const FindRoutes& routes,
                                                 const ListenerRuntime* previous,
                                                 const TelemetryPlace& telemetry = {});

struct ListenerShared {
  // `overload` may be null.
  ListenerShared(std::string listener, int workers, std::shared_ptr<Overload> limits = nullptr)
      : name(std::move(listener)), overload(std::move(limits)) {
    for (int i = 0; i < workers; ++i) stats.push_back(std::make_unique<ListenerStats>());
  }
  const std::string name;
  const std::shared_ptr<Overload> overload;           // of the process
  std::atomic<uint32_t> connections{0};               // open, of all workers
  std::vector<std::unique_ptr<ListenerStats>> stats;  // by worker
};

}  // namespace edgemesh::proxy
