#include "proxy/upstream/cluster_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

namespace edgemesh::proxy {

namespace {

struct Field {
  std::string_view name;  // in /clusters
  std::string_view metric;
  std::string_view help;
  uint64_t (*get)(const ClusterStats&);
  bool gauge = false;
};

#define EM_COUNT(member) \
  [](const ClusterStats& s) { return static_cast<uint64_t>(s.member.value()); }
constexpr std::array kFields = {
    Field{"rq_total", "requests_total", "Requests given to an endpoint.", EM_COUNT(requests)},
    Field{"rq_active", "requests_active", "Requests open now.", EM_COUNT(active_requests), true},
    Field{"rq_success", "requests_succeeded_total", "Answers below 500.", EM_COUNT(successes)},
    Field{"rq_error", "requests_failed_total", "Answers from 500, resets, timeouts.",
          EM_COUNT(errors)},
    Field{"rq_retry", "retries_total", "Requests repeated.", EM_COUNT(retries)},
    Field{"rq_retry_overflow", "retries_refused_total", "Retries refused by the limit.",
          EM_COUNT(retries_refused)},
    Field{"rq_overflow", "requests_refused_total", "Requests refused by the limit.",
          EM_COUNT(request_overflow)},
    Field{"rq_pending_total", "pending_total", "Requests that waited for a connection.",
          EM_COUNT(pending_total)},
    Field{"rq_pending_active", "pending_active", "Requests that wait now.",
          EM_COUNT(active_pending), true},
    Field{"rq_pending_overflow", "pending_refused_total", "Requests refused: too many waited.",
          EM_COUNT(pending_overflow)},
    Field{"rq_pending_failure", "pending_failed_total", "Requests that waited in vain.",
          EM_COUNT(pending_failed)},
    Field{"rq_no_host", "no_endpoint_total", "Requests for which no endpoint could be used.",
          EM_COUNT(no_host)},
    Field{"lb_healthy_panic", "panic_picks_total", "Choices among all endpoints, ill ones too.",
          EM_COUNT(panic_picks)},
    Field{"lb_subsets_fallback", "subset_fallbacks_total", "Choices by the subset fallback.",
          EM_COUNT(fallback_picks)},
    Field{"cx_total", "connections_total", "Connections to endpoints begun.",
          EM_COUNT(connections)},
    Field{"cx_active", "connections_active", "Connections to endpoints now.",
          EM_COUNT(active_connections), true},
    Field{"cx_connect_fail", "connect_failures_total", "Connects that failed.",
          EM_COUNT(connect_failures)},
    Field{"cx_connect_timeout", "connect_timeouts_total", "Connects that took too long.",
          EM_COUNT(connect_timeouts)},
    Field{"cx_overflow", "connections_refused_total", "Times that the connection limit was met.",
          EM_COUNT(connection_overflow)},
    Field{"cx_destroy_remote", "connections_closed_by_peer_total",
          "Connections ended by endpoints.", EM_COUNT(closed_by_peer)},
    Field{"cx_idle_timeout", "connections_idle_closed_total", "Connections closed unused.",
          EM_COUNT(closed_idle)},
    Field{"cx_max_requests", "connections_worn_out_total",
          "Connections ended by their request limit.", EM_COUNT(closed_max_requests)},
};
#undef EM_COUNT
using Values = std::array<uint64_t, kFields.size()>;

Values sum_of(const HostSet& set) {
  Values sum{};
  set.shared()->stats.for_each([&](const ClusterStats& stats) {
    for (size_t i = 0; i < kFields.size(); ++i) sum[i] += kFields[i].get(stats);
  });
  return sum;
}

struct HostSum {
  uint64_t requests = 0, successes = 0, errors = 0, connections = 0, connect_failures = 0;
  uint64_t active_requests = 0, active_connections = 0;
};

HostSum sum_of(const SharedHost& host) {
  HostSum sum;
  host.stats.for_each([&](const HostStats& stats) {
    sum.requests += stats.requests.value();
    sum.successes += stats.successes.value();
    sum.errors += stats.errors.value();
    sum.connections += stats.connections.value();
    sum.connect_failures += stats.connect_failures.value();
    sum.active_requests += stats.active_requests.value();
    sum.active_connections += stats.active_connections.value();
  });
  return sum;
}

// "healthy", or why not, in Envoy's words.
std::string health_of(const HostSet::Entry& entry) {
  std::string out;
  if (entry.shared->has(SharedHost::kCheckFailed)) out += "/failed_active_hc";
  if (entry.shared->has(SharedHost::kEjected)) out += "/failed_outlier_check";
  if (entry.endpoint.health == model::Health::kUnhealthy) out += "/failed_eds_health";
  if (entry.endpoint.health == model::Health::kDegraded) out += "/degraded_eds_health";
  if (entry.endpoint.health == model::Health::kDraining) out += "/draining";
  return out.empty() ? "healthy" : out;
}

void put_json(std::string& out, std::string_view text) {
  out += '"';
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20) {
      out += fmt::format("\\u{:04x}", c);
    } else {
      out += static_cast<char>(c);
    }
  }
  out += '"';
}

void put_host_text(std::string& out, std::string_view cluster, const HostSet::Entry& entry) {
  const HostSum sum = sum_of(*entry.shared);
  const auto& endpoint = entry.endpoint;
  const std::string prefix = fmt::format("{}::{}::", cluster, endpoint.addr.to_string());
  const auto line = [&](std::string_view name, const auto& value) {
    fmt::format_to(std::back_inserter(out), "{}{}::{}\n", prefix, name, value);
  };
  line("cx_active", sum.active_connections);
  line("cx_connect_fail", sum.connect_failures);
  line("cx_total", sum.connections);
  line("rq_active", sum.active_requests);
  line("rq_error", sum.errors);
  line("rq_success", sum.successes);
  line("rq_total", sum.requests);
  line("health_flags", health_of(entry));
  line("weight", endpoint.weight);
  line("region", endpoint.locality.region);
  line("zone", endpoint.locality.zone);
  line("sub_zone", endpoint.locality.subzone);
  line("node", endpoint.node);
  line("priority", entry.level);
  line("success_rate", entry.shared->success_rate);
  line("ejections", entry.shared->ejected_total.load());
}

void put_host_json(std::string& out, const HostSet::Entry& entry) {
  const HostSum sum = sum_of(*entry.shared);
  const auto& endpoint = entry.endpoint;
  out += "{\"address\":";
  put_json(out, endpoint.addr.to_string());
  out += ",\"node\":";
  put_json(out, endpoint.node);
  out += ",\"zone\":";
  put_json(out, endpoint.locality.zone);
  out += ",\"health\":";
  put_json(out, health_of(entry));
  fmt::format_to(std::back_inserter(out),
                 ",\"priority\":{},\"weight\":{},\"requests\":{},\"requestsActive\":{},"
                 "\"successes\":{},\"errors\":{},\"connections\":{},\"connectionsActive\":{},"
                 "\"connectFailures\":{},\"checks\":{},\"checkFailures\":{},\"ejections\":{}}}",
                 entry.level, endpoint.weight, sum.requests, sum.active_requests, sum.successes,
                 sum.errors, sum.connections, sum.active_connections, sum.connect_failures,
                 entry.shared->checks.load(), entry.shared->check_failures.load(),
                 entry.shared->ejected_total.load());
}

}  // namespace

void append_clusters_text(std::string& out, std::span<const HostSetPtr> sets) {
  for (const auto& set : sets) {
    const auto& config = set->cluster();
    const auto line = [&](std::string_view name, const auto& value) {
      fmt::format_to(std::back_inserter(out), "{}::{}::{}\n", config.name, name, value);
    };
    line("type", model::to_string(config.type));
    line("lb_policy", model::to_string(config.lb.policy));
    for (int i = 0; i < 2; ++i) {
      const std::string_view priority = i == 0 ? "default_priority" : "high_priority";
      const auto& limits = config.breaker[i];
      line(fmt::format("{}::max_connections", priority), limits.max_connections);
      line(fmt::format("{}::max_pending_requests", priority), limits.max_pending);
      line(fmt::format("{}::max_requests", priority), limits.max_requests);
      line(fmt::format("{}::max_retries", priority), limits.max_retries);
    }
    const Values values = sum_of(*set);
    for (size_t i = 0; i < kFields.size(); ++i) line(kFields[i].name, values[i]);
    for (const auto& entry : set->entries()) put_host_text(out, config.name, entry);
  }
}

void append_clusters_json(std::string& out, std::span<const HostSetPtr> sets) {
  out += "{\"clusters\":[";
  bool first_set = true;
  for (const auto& set : sets) {
    if (!std::exchange(first_set, false)) out += ',';
    out += "{\"name\":";
    put_json(out, set->cluster().name);
    out += ",\"type\":";
    put_json(out, model::to_string(set->cluster().type));
    out += ",\"policy\":";
    put_json(out, model::to_string(set->cluster().lb.policy));
    out += ",\"stats\":{";
    const Values values = sum_of(*set);
    for (size_t i = 0; i < kFields.size(); ++i)
      fmt::format_to(std::back_inserter(out), "{}\"{}\":{}", i > 0 ? "," : "", kFields[i].name,
                     values[i]);
    out += "},\"endpoints\":[";
    bool first_host = true;
    for (const auto& entry : set->entries()) {
      if (!std::exchange(first_host, false)) out += ',';
      put_host_json(out, entry);
    }
    out += "]}";
  }
  out += "]}";
}

void append_clusters_prometheus(std::string& out, std::span<const HostSetPtr> sets,
                                size_t max_clusters) {
  struct Row {
    std::string_view name;
    Values values;
  };
  std::vector<Row> rows;
  for (const auto& set : sets) {
    Row row{set->cluster().name, sum_of(*set)};
    if (std::any_of(row.values.begin(), row.values.end(), [](uint64_t v) { return v > 0; }))
      rows.push_back(row);
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.values[0] > b.values[0]; });
  if (rows.size() > max_clusters) {
    Row other{"_other", {}};
    for (size_t i = max_clusters; i < rows.size(); ++i)
      for (size_t k = 0; k < kFields.size(); ++k) other.values[k] += rows[i].values[k];
    rows.resize(max_clusters);
    rows.push_back(other);
  }
  for (size_t k = 0; k < kFields.size() && !rows.empty(); ++k) {
    fmt::format_to(std::back_inserter(out),
                   "# HELP edgemesh_cluster_{0} {1}\n# TYPE edgemesh_cluster_{0} {2}\n",
                   kFields[k].metric, kFields[k].help, kFields[k].gauge ? "gauge" : "counter");
    for (const Row& row : rows) {
      fmt::format_to(std::back_inserter(out), "edgemesh_cluster_{}{{cluster=", kFields[k].metric);
      put_json(out, row.name);
      fmt::format_to(std::back_inserter(out), "}} {}\n", row.values[k]);
    }
  }
}

}  // namespace edgemesh::proxy
