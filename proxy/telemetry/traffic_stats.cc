#include "proxy/telemetry/traffic_stats.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace edgemesh::proxy {

namespace {

// Bounds of the histograms that are shown: powers of two of microseconds, so that they are the ends of
// our own buckets; 256 us to 67 s.
constexpr int kShifts[] = {8, 10, 12, 14, 16, 18, 20, 22, 24, 26};

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

struct Names {
  const char* prefix;
  const char* label;
};
constexpr Names kNames[] = {{"edgemesh_http_downstream_rq", "listener"},
                            {"edgemesh_http_upstream_rq", "cluster"},
                            {"edgemesh_route_rq", "route"}};

struct Row {
  std::string labels;
  TrafficScope::Totals totals;
};

void append_counter(std::string& out, const std::string& name, const char* help,
                    const std::vector<Row>& rows, uint64_t TrafficScope::Totals::*member) {
  out += fmt::format("# HELP {} {}\n# TYPE {} counter\n", name, help, name);
  for (const Row& row : rows)
    fmt::format_to(std::back_inserter(out), "{}{{{}}} {}\n", name, row.labels, row.totals.*member);
}

void append_classes(std::string& out, const std::string& name, const std::vector<Row>& rows) {
  static constexpr const char* kClasses[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
  out += fmt::format("# HELP {} Requests that ended, by class of the answer.\n# TYPE {} counter\n",
                     name, name);
  for (const Row& row : rows)
    for (size_t i = 0; i < row.totals.by_class.size(); ++i)
      fmt::format_to(std::back_inserter(out), "{}{{{},code_class=\"{}\"}} {}\n", name, row.labels,
                     kClasses[i], row.totals.by_class[i]);
}

void append_times(std::string& out, const std::string& name, const std::vector<Row>& rows) {
  out += fmt::format("# HELP {} Time of requests.\n# TYPE {} histogram\n", name, name);
  for (const Row& row : rows) {
    const auto& latency = row.totals.latency;
    for (const int shift : kShifts)
      fmt::format_to(std::back_inserter(out), "{}_bucket{{{},le=\"{}\"}} {}\n", name, row.labels,
                     static_cast<double>(1 << shift) / 1e6, latency.below_power(shift));
    const uint64_t count = latency.count();
    fmt::format_to(std::back_inserter(out),
                   "{0}_bucket{{{1},le=\"+Inf\"}} {2}\n{0}_sum{{{1}}} {3}\n{0}_count{{{1}}} {2}\n",
                   name, row.labels, count, static_cast<double>(latency.sum_us) / 1e6);
  }
}

}  // namespace

TrafficScope::~TrafficScope() {
  for (auto& slot : slots_) delete slot.load(std::memory_order_relaxed);
}

TrafficScope::Slot& TrafficScope::own(size_t worker) {
  Slot* slot = slots_[worker].load(std::memory_order_relaxed);
  if (slot == nullptr) {
    slot = new Slot;
    slots_[worker].store(slot, std::memory_order_release);
  }
  return *slot;
}

void TrafficScope::record(size_t worker, const Bytes& what) {
  Slot& slot = own(worker);
  if (what.opened > 0) slot.opened.add(what.opened);
  if (what.closed > 0) slot.closed.add(what.closed);
  slot.bytes_received.add(what.received);
  slot.bytes_sent.add(what.sent);
}

void TrafficScope::record(size_t worker, const Finished& what) {
  Slot* slot = &own(worker);
  const int digit = what.status / 100;
  slot->by_class[static_cast<size_t>(digit >= 1 && digit <= 5 ? digit : 0)].add();
  slot->latency.record(what.duration_us);
  slot->bytes_received.add(what.bytes_received);
  slot->bytes_sent.add(what.bytes_sent);
  if (what.retries > 0) slot->retries.add(what.retries);
  if (what.timeout) slot->timeouts.add();
  if (what.reset) slot->resets.add();
}

TrafficScope::Totals TrafficScope::totals() const {
  Totals out;
  for (const auto& each : slots_) {
    const Slot* slot = each.load(std::memory_order_acquire);
    if (slot == nullptr) continue;
    for (size_t i = 0; i < out.by_class.size(); ++i) out.by_class[i] += slot->by_class[i].value();
    out.retries += slot->retries.value();
    out.timeouts += slot->timeouts.value();
    out.resets += slot->resets.value();
    out.bytes_received += slot->bytes_received.value();
    out.bytes_sent += slot->bytes_sent.value();
    out.connections_opened += slot->opened.value();
    out.connections_closed += slot->closed.value();
    out.latency += slot->latency.snapshot();
  }
  return out;
}

TrafficScopePtr TrafficStats::scope(TrafficScope::Kind kind, std::string_view name) {
  const auto which = static_cast<size_t>(kind);
  std::lock_guard lock(mutex_);
  auto& list = scopes_[which];
  if (list.size() >= prune_at_[which] || (list.size() >= max_ && !list.contains(name))) {
    std::erase_if(list, [](const auto& entry) { return entry.second.expired(); });
    prune_at_[which] = std::max<size_t>(64, 2 * list.size());
  }
  constexpr std::string_view kOther = "_other";
  auto it = list.find(name);
  if (it != list.end())
    if (auto held = it->second.lock()) return held;
  if (list.size() >= max_ && it == list.end()) name = kOther;
  it = list.try_emplace(std::string(name)).first;
  if (auto held = it->second.lock()) return held;
  auto made = std::make_shared<TrafficScope>(kind, std::string(name), workers_);
  it->second = made;
  return made;
}

std::vector<std::shared_ptr<const TrafficScope>> TrafficStats::scopes(TrafficScope::Kind kind) const {
  std::vector<std::shared_ptr<const TrafficScope>> out;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, weak] : scopes_[static_cast<size_t>(kind)])
      if (auto held = weak.lock()) out.push_back(std::move(held));
  }
  return out;
}

void TrafficStats::append_text(std::string& out) const {
  for (const auto kind : {TrafficScope::Kind::kListener, TrafficScope::Kind::kCluster,
                          TrafficScope::Kind::kRoute}) {
    const Names& names = kNames[static_cast<size_t>(kind)];
    std::vector<Row> rows;
    for (const auto& scope : scopes(kind)) {
      Row row{fmt::format("{}=\"{}\"", names.label, escape(scope->name())), scope->totals()};
      if (row.totals.requests() + row.totals.connections_opened > 0)
        rows.push_back(std::move(row));
    }
    const std::string prefix = names.prefix;
    using Totals = TrafficScope::Totals;
    append_classes(out, prefix + "_total", rows);
    append_times(out, prefix + "_time_seconds", rows);
    append_counter(out, prefix + "_received_bytes_total", "Bytes of requests' bodies.", rows,
                   &Totals::bytes_received);
    append_counter(out, prefix + "_sent_bytes_total", "Bytes of answers' bodies.", rows,
                   &Totals::bytes_sent);
    if (kind == TrafficScope::Kind::kListener) continue;
    append_counter(out, prefix + "_retry_total", "Tries after the first.", rows, &Totals::retries);
    append_counter(out, prefix + "_timeout_total", "Requests that timed out.", rows,
                   &Totals::timeouts);
    append_counter(out, prefix + "_reset_total", "Requests that the endpoint broke off.", rows,
                   &Totals::resets);
  }
}

}  // namespace edgemesh::proxy
