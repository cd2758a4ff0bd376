#include "cmd/proxy_pages/proxy_pages.h"

#include <nlohmann/json.hpp>

#include "proxy/model/regex.h"
#include "proxy/upstream/cluster_report.h"

namespace edgemesh::cmd {

namespace {

using nlohmann::json;
using Kind = proxy::TrafficScope::Kind;
using Writer = AdminServer::Writer;

constexpr const char* kPrometheus = "text/plain; version=0.0.4; charset=utf-8";

bool wants(const http::Request& request, std::string_view format) {
  return request.query("format").value_or("") == format;
}

void send_clusters(const proxy::L7Proxy& l7, const http::Request& request, const Writer& writer) {
  std::string text;
  const auto sets = l7.clusters();
  if (wants(request, "json")) {
    proxy::append_clusters_json(text, sets);
    return AdminServer::send_text(writer, 200, std::move(text), "application/json");
  }
  proxy::append_clusters_text(text, sets);
  AdminServer::send_text(writer, 200, std::move(text));
}

void send_listeners(const proxy::L7Proxy& l7, const http::Request& request, const Writer& writer) {
  json list = json::array();
  std::string text;
  for (const auto& [name, addr] : l7.listen_addrs()) {
    list.push_back({{"name", name}, {"address", addr.to_string()}});
    text += name + "::" + addr.to_string() + "\n";
  }
  if (wants(request, "json")) return AdminServer::send_json(writer, json{{"listeners", list}});
  AdminServer::send_text(writer, 200, std::move(text));
}

std::string routes(const proxy::L7Proxy& l7) {
  std::string text;
  if (l7.config() == nullptr) return text;
  for (const auto& [name, config] : l7.config()->routes)
    for (const auto& host : config->hosts)
      for (const auto& route : host->routes) {
        std::string domains;
        for (const auto& domain : host->domains) domains += (domains.empty() ? "" : ",") + domain;
        text += fmt::format("{}::{}::{}::{} {}\n", name, host->name, domains, route.name,
                            route.match.path.path);
      }
  return text;
}

void send_stats(const ProxyPages& pages, const http::Request& request, const Writer& writer) {
  if (wants(request, "prometheus") && pages.registry != nullptr)
    return AdminServer::send_text(writer, 200, pages.registry->text(), kPrometheus);
  const auto filter = request.query("filter").value_or("");
  const auto pattern = proxy::model::Regex::make(".*(" + filter + ").*");
  if (!pattern) return AdminServer::send_error(writer, 400, "filter: " + pattern.error().message);
  std::string text;
  json list = json::array();
  for (const Stat& stat : stats_of(pages)) {
    if (!pattern->matches(stat.name)) continue;
    text += stat.name + ": " + stat.value + "\n";
    const bool number = stat.value.find_first_not_of("0123456789") == std::string::npos;
    list.push_back({{"name", stat.name}});
    if (number)
      list.back()["value"] = std::stoull(stat.value);
    else
      list.back()["value"] = stat.value;
  }
  if (wants(request, "json")) return AdminServer::send_json(writer, json{{"stats", list}});
  AdminServer::send_text(writer, 200, std::move(text));
}

// As Envoy shows them: the quantiles of all values since the start, in milliseconds.
std::string quantiles(const proxy::LatencyHistogram::Snapshot& latency) {
  if (latency.count() == 0) return "No recorded values";
  static constexpr std::pair<const char*, double> kQuantiles[] = {
      {"P0", 0},   {"P25", 0.25}, {"P50", 0.5},     {"P75", 0.75},    {"P90", 0.9},
      {"P95", 0.95}, {"P99", 0.99}, {"P99.5", 0.995}, {"P99.9", 0.999}, {"P100", 1}};
  std::string out;
  for (const auto& [name, q] : kQuantiles)
    out += fmt::format("{}{}({:.3f})", out.empty() ? "" : " ", name,
                       static_cast<double>(latency.quantile_us(q)) / 1000);
  return out;
}

void add_scope(const proxy::TrafficScope& scope, const std::string& prefix, const char* unit,
               std::vector<Stat>* out) {
  const auto totals = scope.totals();
  const auto put = [&](std::string_view name, uint64_t value) {
    out->push_back({fmt::format("{}.{}", prefix, name), std::to_string(value)});
  };
  const std::string rq = fmt::format("{}_rq", unit), cx = fmt::format("{}_cx", unit);
  put(rq + "_completed", totals.requests());
  for (size_t i = 1; i < totals.by_class.size(); ++i)
    put(fmt::format("{}_{}xx", rq, i), totals.by_class[i]);
  put(rq + "_no_answer", totals.by_class[0]);
  put(rq + "_retry", totals.retries);
  put(rq + "_timeout", totals.timeouts);
  put(rq + "_reset", totals.resets);
  put(cx + "_tcp_total", totals.connections_opened);
  put(cx + "_tcp_active", totals.connections_opened - totals.connections_closed);
  put(cx + "_rx_bytes_total", totals.bytes_received);
  put(cx + "_tx_bytes_total", totals.bytes_sent);
  out->push_back({fmt::format("{}.{}_time", prefix, rq), quantiles(totals.latency)});
}

}  // namespace

std::string service_text(std::string_view cluster) {
  constexpr std::string_view kOutbound = "outbound|";
  if (!cluster.starts_with(kOutbound)) return std::string(cluster);
  const std::string_view rest = cluster.substr(kOutbound.size());
  const size_t bar = rest.find('|'), last = rest.rfind('|');
  if (bar == std::string_view::npos || last == bar || last + 1 == rest.size())
    return std::string(cluster);
  std::string_view host = rest.substr(last + 1);
  host = host.substr(0, host.find(".svc."));
  const std::string_view subset = rest.substr(bar + 1, last - bar - 1);
  return fmt::format("{}:{}{}{}", host, rest.substr(0, bar), subset.empty() ? "" : "/", subset);
}

std::vector<Stat> stats_of(const ProxyPages& pages) {
  std::vector<Stat> out;
  if (pages.l7 != nullptr) {
    const auto totals = pages.l7->totals();
    out.push_back({"http.downstream_cx_total", std::to_string(totals.connections)});
    out.push_back({"http.downstream_cx_active", std::to_string(totals.active_connections)});
    out.push_back({"http.downstream_rq_total", std::to_string(totals.requests)});
    out.push_back({"http.downstream_rq_active", std::to_string(totals.active_requests)});
  }
  if (pages.telemetry == nullptr) return out;
  const auto& traffic = pages.telemetry->traffic();
  for (const auto& scope : traffic.scopes(Kind::kListener))
    add_scope(*scope, "listener." + scope->name(), "downstream", &out);
  for (const auto& scope : traffic.scopes(Kind::kCluster))
    add_scope(*scope, "cluster." + scope->name(), "upstream", &out);
  for (const auto& scope : traffic.scopes(Kind::kRoute))
    add_scope(*scope, "route." + scope->name(), "upstream", &out);
  return out;
}

json traffic_json(const proxy::TrafficStats& traffic, TimePoint now) {
  json services = json::array();
  for (const auto& scope : traffic.scopes(Kind::kCluster)) {
    const auto totals = scope->totals();
    if (totals.requests() + totals.connections_opened == 0) continue;
    json buckets = json::array();
    for (size_t i = 0; i < totals.latency.buckets.size(); ++i)
      if (totals.latency.buckets[i] > 0)
        buckets.push_back({proxy::LatencyHistogram::lower_us(i),
                           proxy::LatencyHistogram::lower_us(i + 1), totals.latency.buckets[i]});
    services.push_back({{"service", service_text(scope->name())},
                        {"cluster", scope->name()},
                        {"requests", totals.requests()},
                        {"errors", totals.by_class[0] + totals.by_class[5]},
                        {"connections", totals.connections_opened},
                        {"connectionsClosed", totals.connections_closed},
                        {"bytesReceived", totals.bytes_received},
                        {"bytesSent", totals.bytes_sent},
                        {"latencyUs", buckets}});
  }
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch());
  return {{"timeUs", us.count()}, {"services", services}};
}

void add_proxy_pages(AdminServer& admin, const ProxyPages& pages) {
  admin.get("/stats", [pages](const http::Request& request, const Writer& writer) {
    send_stats(pages, request, writer);
  });
  admin.get_json("/traffic", [pages] {
    static const proxy::TrafficStats kNone(1);
    return traffic_json(pages.telemetry != nullptr ? pages.telemetry->traffic() : kNone,
                        std::chrono::steady_clock::now());
  });
  if (pages.l7 == nullptr) return;
  admin.get("/clusters", [l7 = pages.l7](const http::Request& request, const Writer& writer) {
    send_clusters(*l7, request, writer);
  });
  admin.get("/listeners", [l7 = pages.l7](const http::Request& request, const Writer& writer) {
    send_listeners(*l7, request, writer);
  });
  admin.get("/routes", [l7 = pages.l7](const http::Request&, const Writer& writer) {
    AdminServer::send_text(writer, 200, routes(*l7));
  });
}

}  // namespace edgemesh::cmd
