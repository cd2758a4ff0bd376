#include "proxy/exchange/runtime.h"

namespace edgemesh::proxy {

Result<HttpRuntimePtr> make_http_runtime(const model::Listener& listener,
                                         model::FilterChainPtr chain,
                                         std::shared_ptr<const RouteTable> routes,
                                         const HttpRuntime* previous) {
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
  return HttpRuntimePtr(std::move(runtime));
}

}  // namespace edgemesh::proxy
