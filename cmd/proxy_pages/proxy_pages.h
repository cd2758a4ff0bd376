// The admin pages of a data plane, the same in all programs that have one.
//   GET /clusters /listeners [?format=json]
//   GET /routes
//   GET /stats [?format=json|prometheus] [&filter=REGEX]   Envoy's form: "cluster.web.upstream_rq_2xx: 7"
//   GET /traffic   what `edgemesh top` reads: counts and times by service, in JSON
// Threads: the admin server's loop, which is the L7Proxy's main loop.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cmd/admin/admin_server.h"
#include "proxy/listener/l7_proxy.h"
#include "proxy/telemetry/telemetry.h"

namespace edgemesh::cmd {

// Borrowed; they outlive the server. Null: the program has none.
struct ProxyPages {
  proxy::L7Proxy* l7 = nullptr;
  proxy::Telemetry* telemetry = nullptr;
  obs::Registry* registry = nullptr;
};
void add_proxy_pages(AdminServer& admin, const ProxyPages& pages);

// What the proxy was told, without keys: listeners, routes, clusters.
nlohmann::json config_dump(const proxy::L7Proxy& l7);

nlohmann::json traffic_json(const proxy::TrafficStats& traffic, TimePoint now);

struct Stat {
  std::string name, value;
};
std::vector<Stat> stats_of(const ProxyPages& pages);

// "web.shop:80" of "outbound|80||web.shop"; other names as they are.
std::string service_text(std::string_view cluster);

}  // namespace edgemesh::cmd
