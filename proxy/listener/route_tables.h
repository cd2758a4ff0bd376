// RouteTables: the compiled routes of a configuration. A table whose routes are the same object as
// before is taken over, one that changed shares what it can. Immutable once built.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "proxy/listener/listener_runtime.h"
#include "proxy/model/config.h"

namespace edgemesh::proxy {

class RouteTables {
 public:
  using TablePtr = std::shared_ptr<const RouteTable>;
  // Errors name the routes, or the listener whose own routes are wrong.
  static Result<RouteTables> build(const model::Config& config, const RouteTables& before);
  // Null: there is none.
  TablePtr find(const model::HttpChain& chain) const;

 private:
  Result<> add_inline(const model::Listener& listener, const model::FilterChain& chain,
                      const RouteTables& before);
  std::map<std::string, TablePtr, std::less<>> named_;
  std::map<const model::RouteConfig*, TablePtr> inline_;
};
using RouteTablesPtr = std::shared_ptr<const RouteTables>;

Result<ListenerRuntimePtr> build_listener(const model::ListenerPtr& spec, const RouteTables& tables,
                                          const ListenerRuntime* before,
                                          const TelemetryPlace& telemetry = {});

}  // namespace edgemesh::proxy
