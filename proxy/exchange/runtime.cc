#include "proxy/exchange/runtime.h"

namespace edgemesh::proxy {

Result<ChainTelemetry> ChainTelemetry::make(const model::Listener& listener,
                                            const std::vector<model::AccessLog>& logs,
                                            const TelemetryPlace& place) {
  ChainTelemetry out;
  const bool own = !logs.empty() || place.defaults == nullptr;
  const auto& specs = own ? logs : place.defaults->access_log;
  if (place.process == nullptr) {
    if (auto checked = AccessLogger::check(specs); !checked)
      return fail(checked.error().with_context(fmt::format("listener {}", listener.name)));
    return out;
  }
  auto log = AccessLogger::make(specs, place.process->logs());
  if (!log) return fail(log.error().with_context(fmt::format("listener {}", listener.name)));
  out.log = std::move(*log);
  if (place.process->requests() != nullptr)
    out.listener = place.process->traffic().scope(TrafficScope::Kind::kListener, listener.name);
  return out;
}

Result<HttpRuntimePtr> make_http_runtime(const model::Listener& listener,
                                         model::FilterChainPtr chain,
                                         std::shared_ptr<const RouteTable> routes,
                                         const HttpRuntime* previous,
                                         const TelemetryPlace& telemetry) {
  auto runtime = std::make_shared<HttpRuntime>();
  runtime->spec = &std::get<model::HttpChain>(chain->network);
  runtime->chain = std::move(chain);
  runtime->listener = listener.name;
  runtime->direction = listener.direction;
  runtime->routes = std::move(routes);
  auto policies = Policies::make(*runtime->spec, previous ? previous->policies.get() : nullptr);
  if (!policies)
    return fail(policies.error().with_context(fmt::format("listener {}", listener.name)));
  runtime->policies = std::move(*policies);
  if (runtime->spec->jwt.get() != nullptr) {
    auto gate = JwtGate::make(runtime->spec->jwt);
    if (!gate) return fail(gate.error().with_context(fmt::format("listener {}", listener.name)));
    runtime->jwt = std::move(*gate);
  }
  EM_TRY(runtime->told, ChainTelemetry::make(listener, runtime->spec->access_log, telemetry));
  runtime->trace_share = runtime->spec->trace_share;
  if (runtime->trace_share == 0 && telemetry.process != nullptr)
    runtime->trace_share = telemetry.process->spec().tracing.share;
  return HttpRuntimePtr(std::move(runtime));
}

}  // namespace edgemesh::proxy
