// What an L7Proxy counts, for operators.
#include "proxy/listener/l7_side.h"
#include "proxy/upstream/cluster_report.h"

namespace edgemesh::proxy {

namespace {

uint64_t sum(const ListenerShared& shared, obs::Counter ListenerStats::*counter) {
  uint64_t total = 0;
  for (const auto& stats : shared.stats) total += ((*stats).*counter).value();
  return total;
}

void head(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
  out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

}  // namespace

void L7Proxy::for_each_listening(
    const std::function<void(const std::string&, const ListenerShared&)>& visit) const {
  for (const auto& [name, listening] : listeners_) visit(name, *listening.shared);
  for (const auto& [key, service] : services_) visit(key, *service.listening.shared);
}

L7Totals L7Proxy::totals() const {
  L7Totals totals;
  for (const auto& side : sides_) {
    const L7Stats& stats = side->stats;
    totals.requests += stats.requests.value();
    totals.active_requests += stats.active_requests.value();
    totals.active_connections += stats.active_connections.value();
  }
  for_each_listening([&](const std::string&, const ListenerShared& shared) {
    totals.connections += sum(shared, &ListenerStats::connections);
  });
  return totals;
}

std::vector<CertificateInUse> L7Proxy::certificates() const {
  std::vector<CertificateInUse> out;
  for (const auto& [name, listening] : listeners_) {
    const auto add = [&, &listener = name](const ChainRuntime& chain) {
      if (chain.tls == nullptr) return;
      chain.tls->each_certificate(
          [&](const std::vector<std::string>& names, const tls::Context& context) {
            out.push_back({listener, "", names.empty() ? "" : names.front(), context.not_after()});
          });
    };
    for (const ChainRuntime& chain : listening.runtime->chains) add(chain);
    add(listening.runtime->fallback);
  }
  for (const auto& set : clusters()) {
    if (set->tls() != nullptr && set->tls()->not_after() != 0)
      out.push_back({"", set->cluster().name, "", set->tls()->not_after()});
  }
  return out;
}

void L7Proxy::append_metrics(std::string& out) const {
  struct Row {
    const char* name;
    const char* help;
    obs::Counter ListenerStats::*counter;
  };
  static constexpr Row kRows[] = {
      {"edgemesh_listener_connections_total", "Connections taken.", &ListenerStats::connections},
      {"edgemesh_listener_refused_total", "Connections over a limit or that no chain takes.",
       &ListenerStats::refused},
      {"edgemesh_listener_tls_errors_total", "TLS handshakes that failed.",
       &ListenerStats::tls_errors},
      {"edgemesh_listener_tcp_failures_total", "Connections of bytes that failed.",
       &ListenerStats::tcp_failures},
      {"edgemesh_http_requests_total", "Requests.", &ListenerStats::requests},
      {"edgemesh_http_bad_requests_total", "Requests that could not be read.",
       &ListenerStats::bad_requests},
  };
  for (const Row& row : kRows) {
    head(out, row.name, "counter", row.help);
    for_each_listening([&](const std::string& name, const ListenerShared& shared) {
      out += fmt::format("{}{{listener=\"{}\"}} {}\n", row.name, name, sum(shared, row.counter));
    });
  }
  head(out, "edgemesh_http_answers_total", "counter", "Answers by the first digit of the status.");
  for_each_listening([&](const std::string& name, const ListenerShared& shared) {
    for (int i = 0; i < 6; ++i) {
      uint64_t total = 0;
      for (const auto& stats : shared.stats) total += stats->by_class[i].value();
      out += fmt::format("edgemesh_http_answers_total{{listener=\"{}\",class=\"{}\"}} {}\n", name,
                         i == 0 ? "none" : fmt::format("{}xx", i), total);
    }
  });
  struct Total {
    const char* name;
    const char* help;
    obs::Counter L7Stats::*counter;
  };
  static constexpr Total kTotals[] = {
      {"edgemesh_http_retries_total", "Tries after the first.", &L7Stats::retries},
      {"edgemesh_http_timeouts_total", "Requests and tries that timed out.", &L7Stats::timeouts},
      {"edgemesh_http_overloaded_total", "Requests refused as too many are open.",
       &L7Stats::overloaded},
      {"edgemesh_http_mirrored_total", "Requests that were mirrored.", &L7Stats::mirrored},
      {"edgemesh_http_mirrors_dropped_total", "Mirrors that could not be sent.",
       &L7Stats::mirrors_dropped},
      {"edgemesh_http_repeated_total", "Requests sent again as no endpoint had looked at them.",
       &L7Stats::repeated},
      {"edgemesh_http_hedged_total", "Tries beside another one.", &L7Stats::hedged},
      {"edgemesh_http_rbac_denied_total", "Requests refused by RBAC.", &L7Stats::rbac_denied},
      {"edgemesh_http_rbac_shadow_denied_total", "Requests that shadow rules would refuse.",
       &L7Stats::rbac_shadow_denied},
      {"edgemesh_http_rate_limited_total", "Requests over a rate limit.", &L7Stats::rate_limited},
      {"edgemesh_http_jwt_denied_total", "Requests refused for their token.", &L7Stats::jwt_denied},
      {"edgemesh_http_authz_denied_total", "Requests refused by external authorization.",
       &L7Stats::authz_denied},
      {"edgemesh_http_authz_failed_total", "External authorizations without a verdict.",
       &L7Stats::authz_failed},
  };
  for (const Total& row : kTotals) {
    uint64_t total = 0;
    for (const auto& side : sides_) total += (side->stats.*row.counter).value();
    head(out, row.name, "counter", row.help);
    out += fmt::format("{} {}\n", row.name, total);
  }
  head(out, "edgemesh_http_worker_requests_total", "counter",
       "Requests by the worker that has them.");
  for (size_t i = 0; i < sides_.size(); ++i)
    out += fmt::format("edgemesh_http_worker_requests_total{{worker=\"{}\"}} {}\n", i,
                       sides_[i]->stats.requests.value());
  head(out, "edgemesh_certificate_not_after_seconds", "gauge",
       "When a certificate that is shown to others ends, since the epoch.");
  for (const CertificateInUse& one : certificates())
    out += fmt::format(
        "edgemesh_certificate_not_after_seconds{{listener=\"{}\",cluster=\"{}\",name=\"{}\"}} {}\n",
        one.listener, one.cluster, one.name, one.not_after);
  head(out, "edgemesh_overload_refused_connections_total", "counter",
       "Connections closed at once over a limit of the process.");
  out += fmt::format("edgemesh_overload_refused_connections_total {}\n", overload_->refused());
  head(out, "edgemesh_overload_connections", "gauge",
       "Open connections that count towards the limit of the process.");
  out += fmt::format("edgemesh_overload_connections {}\n", overload_->connections());
  head(out, "edgemesh_overload_level", "gauge",
       "Memory: 0 fine, 1 tight (kept connections end), 2 requests are shed.");
  out += fmt::format("edgemesh_overload_level {}\n", static_cast<int>(overload_->level()));
  const auto sets = clusters();
  append_clusters_prometheus(out, sets);
}

}  // namespace edgemesh::proxy
