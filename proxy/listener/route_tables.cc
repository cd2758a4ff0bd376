#include "proxy/listener/route_tables.h"

#include "proxy/listener/l7_proxy.h"
#include "proxy/upstream/connector.h"

namespace edgemesh::proxy {

Result<RouteTables> RouteTables::build(const model::Config& config, const RouteTables& before) {
  RouteTables out;
  for (const auto& [name, routes] : config.routes) {
    const auto old = before.named_.find(name);
    const RouteTable* previous = old != before.named_.end() ? old->second.get() : nullptr;
    if (previous != nullptr && &previous->config() == routes.get()) {
      out.named_[name] = old->second;
      continue;
    }
    auto table = RouteTable::build(routes, previous);
    if (!table) return fail(table.error().with_context(fmt::format("routes {}", name)));
    out.named_[name] = std::move(*table);
  }
  for (const auto& [name, listener] : config.listeners) {
    for (const auto& chain : listener->chains)
      EM_TRY_VOID(out.add_inline(*listener, *chain, before));
    if (listener->default_chain != nullptr)
      EM_TRY_VOID(out.add_inline(*listener, *listener->default_chain, before));
  }
  return out;
}

Result<> RouteTables::add_inline(const model::Listener& listener, const model::FilterChain& chain,
                                 const RouteTables& before) {
  const auto* http = std::get_if<model::HttpChain>(&chain.network);
  if (http == nullptr || http->inline_routes == nullptr) return {};
  const model::RouteConfig* key = http->inline_routes.get();
  if (const auto old = before.inline_.find(key); old != before.inline_.end()) {
    inline_[key] = old->second;
    return {};
  }
  auto table = RouteTable::build(http->inline_routes, nullptr);
  if (!table) return fail(table.error().with_context(fmt::format("listener {}", listener.name)));
  inline_[key] = std::move(*table);
  return {};
}

RouteTables::TablePtr RouteTables::find(const model::HttpChain& chain) const {
  if (chain.inline_routes != nullptr) {
    const auto found = inline_.find(chain.inline_routes.get());
    return found != inline_.end() ? found->second : nullptr;
  }
  const auto found = named_.find(chain.routes);
  return found != named_.end() ? found->second : nullptr;
}

Result<ListenerRuntimePtr> build_listener(const model::ListenerPtr& spec, const RouteTables& tables,
                                          const ListenerRuntime* before,
                                          const TelemetryPlace& telemetry) {
  using Kind = model::Listener::Kind;
  if (spec->kind == Kind::kInternal)
    return fail(ErrorCode::kInvalidArgument, "listener {}: internal listeners are not supported here", spec->name);
  auto routes = [&](const model::HttpChain& chain) -> Result<RouteTables::TablePtr> {
    auto table = tables.find(chain);
    if (table == nullptr)
      return fail(ErrorCode::kNotFound, "listener {}: no routes '{}'", spec->name, chain.routes);
    return table;
  };
  return make_listener_runtime(spec, routes, before, telemetry);
}

Result<> check_config(const model::Config& config) {
  EM_TRY(const RouteTables tables, RouteTables::build(config, {}));
  for (const auto& [name, spec] : config.listeners)
    EM_TRY_VOID(build_listener(spec, tables, nullptr, {nullptr, &config.telemetry}));
  for (const auto& [name, cluster] : config.clusters) {
    if (cluster->tls.get() == nullptr) continue;
    auto context = client_context(*cluster);
    if (!context) return fail(context.error().with_context(fmt::format("cluster {}", name)));
  }
  return {};
}

}  // namespace edgemesh::proxy
