#include "proxy/listener/listener_runtime.h"

#include "proxy/listener/chain_match.h"

namespace edgemesh::proxy {

namespace {

Result<> check_supported(const model::Listener& spec, const model::FilterChain& chain) {
  const auto* tcp = std::get_if<model::TcpChain>(&chain.network);
  if (tcp != nullptr && !tcp->tunnel_host.empty())
    return fail(ErrorCode::kInvalidArgument, "listener {}, chain {}: tunnelHost is not supported",
                spec.name, chain.name);
  return {};
}

Result<ChainRuntime> make_chain(const model::Listener& spec, const model::FilterChainPtr& chain,
                                const FindRoutes& routes, const ChainRuntime* previous,
                                const TelemetryPlace& telemetry) {
  EM_TRY_VOID(check_supported(spec, *chain));
  ChainRuntime made;
  made.chain = chain;
  if (chain->tls.get() != nullptr) {
    if (previous != nullptr && previous->chain->tls == chain->tls) {
      made.tls = previous->tls;
    } else {
      auto tls = TlsRuntime::make(chain->tls);
      if (!tls)
        return fail(tls.error().with_context(
            fmt::format("listener {}, chain {}", spec.name, chain->name)));
      made.tls = std::move(*tls);
    }
  }
  if (const auto* http = std::get_if<model::HttpChain>(&chain->network)) {
    EM_TRY(auto table, routes(*http));
    EM_TRY(made.http, make_http_runtime(spec, chain, std::move(table),
                                        previous != nullptr ? previous->http.get() : nullptr,
                                        telemetry));
    return made;
  }
  const auto& tcp = std::get<model::TcpChain>(chain->network);
  if (tcp.rbac.get() != nullptr) {
    EM_TRY(made.rbac, RbacEngine::make(tcp.rbac));
  }
  EM_TRY(made.told, ChainTelemetry::make(spec, tcp.access_log, telemetry));
  return made;
}

}  // namespace

const ChainRuntime* ListenerRuntime::find(const std::string& name) const {
  for (const ChainRuntime& chain : chains)
    if (chain.chain->name == name) return &chain;
  return nullptr;
}

Result<ListenerRuntimePtr> make_listener_runtime(model::ListenerPtr spec, const FindRoutes& routes,
                                                 const ListenerRuntime* previous,
                                                 const TelemetryPlace& telemetry) {
  auto out = std::make_shared<ListenerRuntime>();
  for (const auto& chain : spec->chains) {
    const ChainRuntime* before = previous != nullptr ? previous->find(chain->name) : nullptr;
    EM_TRY(auto made, make_chain(*spec, chain, routes, before, telemetry));
    out->chains.push_back(std::move(made));
  }
  if (spec->default_chain != nullptr) {
    const bool had = previous != nullptr && previous->fallback.chain != nullptr;
    EM_TRY(out->fallback,
           make_chain(*spec, spec->default_chain, routes, had ? &previous->fallback : nullptr,
                      telemetry));
  }
  out->inspect_tls = needs_tls_inspection(*spec);
  out->inspect_http = needs_http_inspection(*spec);
  out->spec = std::move(spec);
  return ListenerRuntimePtr(std::move(out));
}

}  // namespace edgemesh::proxy
