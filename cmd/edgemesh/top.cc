#include "cmd/edgemesh/top.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cmd/edgemesh/print.h"

namespace edgemesh::cli {

namespace {

using nlohmann::json;
using Service = TrafficSnapshot::Service;

bool is_count(const json& value) {
  return value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0);
}

uint64_t number(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && is_count(*it) ? it->get<uint64_t>() : 0;
}

uint64_t since(uint64_t before, uint64_t now) { return now >= before ? now - before : now; }

std::vector<TrafficSnapshot::Bucket> new_values(const Service& before, const Service& now) {
  std::map<uint64_t, uint64_t> old;
  if (now.requests >= before.requests)
    for (const auto& bucket : before.latency) old[bucket.from_us] = bucket.count;
  auto out = now.latency;
  for (auto& bucket : out) bucket.count = since(old[bucket.from_us], bucket.count);
  return out;
}

// The middle of the bucket in which the share is reached.
double quantile_ms(const std::vector<TrafficSnapshot::Bucket>& buckets, double share) {
  uint64_t total = 0, seen = 0;
  for (const auto& bucket : buckets) total += bucket.count;
  for (const auto& bucket : buckets) {
    seen += bucket.count;
    if (bucket.count > 0 && static_cast<double>(seen) >= share * static_cast<double>(total))
      return static_cast<double>(bucket.from_us + bucket.to_us) / 2000;
  }
  return -1;
}

std::string ms_text(double ms) {
  if (ms < 0) return "-";
  return fmt::format("{:.{}f} ms", ms, ms < 10 ? 2 : ms < 100 ? 1 : 0);
}

std::string rate_text(double bytes) {
  static constexpr const char* kUnits[] = {"B/s", "KiB/s", "MiB/s", "GiB/s"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string count_text(double value) { return fmt::format("{:.{}f}", value, value < 100 ? 1 : 0); }

// Names come from the configuration and the cloud: nothing in them may steer the terminal.
std::string clean(std::string text) {
  for (char& c : text)
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) c = '?';
  return text;
}

}  // namespace

Result<TrafficSnapshot> parse_traffic(const json& answer) {
  const auto services = answer.is_object() ? answer.find("services") : answer.end();
  if (!answer.is_object() || services == answer.end() || !services->is_array() ||
      !answer.contains("timeUs") || !answer["timeUs"].is_number_integer())
    return fail(ErrorCode::kProtocol, "the answer of /traffic is not what was expected");
  TrafficSnapshot out;
  out.time_us = answer["timeUs"].get<int64_t>();
  for (const json& item : *services) {
    if (!item.is_object() || !item.contains("service") || !item["service"].is_string()) continue;
    Service one;
    one.requests = number(item, "requests");
    one.errors = number(item, "errors");
    one.connections = number(item, "connections");
    one.closed = number(item, "connectionsClosed");
    one.received = number(item, "bytesReceived");
    one.sent = number(item, "bytesSent");
    for (const json& bucket : item.value("latencyUs", json::array())) {
      if (!bucket.is_array() || bucket.size() != 3) continue;
      if (std::all_of(bucket.begin(), bucket.end(), is_count))
        one.latency.push_back({bucket[0], bucket[1], bucket[2]});
    }
    out.services[item["service"].get<std::string>()] = std::move(one);
  }
  return out;
}

std::vector<TopRow> top_rows(const TrafficSnapshot& before, const TrafficSnapshot& now) {
  std::vector<TopRow> out;
  const double seconds = static_cast<double>(now.time_us - before.time_us) / 1e6;
  if (seconds <= 0) return out;
  for (const auto& [name, service] : now.services) {
    const auto found = before.services.find(name);
    const Service old = found != before.services.end() ? found->second : Service{};
    const auto per_second = [&](uint64_t Service::*member) {
      return static_cast<double>(since(old.*member, service.*member)) / seconds;
    };
    TopRow row;
    row.service = name;
    row.requests = per_second(&Service::requests);
    row.errors = per_second(&Service::errors);
    row.error_percent = row.requests > 0 ? 100 * row.errors / row.requests : 0;
    row.connections = per_second(&Service::connections);
    row.open = service.connections - std::min(service.closed, service.connections);
    row.received = per_second(&Service::received);
    row.sent = per_second(&Service::sent);
    const auto values = new_values(old, service);
    row.p50_ms = quantile_ms(values, 0.5);
    row.p99_ms = quantile_ms(values, 0.99);
    out.push_back(std::move(row));
  }
  std::stable_sort(out.begin(), out.end(), [](const TopRow& a, const TopRow& b) {
    if (a.requests != b.requests) return a.requests > b.requests;
    return a.received + a.sent > b.received + b.sent;
  });
  return out;
}

std::string top_text(const std::vector<TopRow>& rows) {
  std::vector<std::vector<std::string>> cells{
      {"SERVICE", "REQ/S", "ERR/S", "ERR%", "P50", "P99", "CONN/S", "OPEN", "IN", "OUT"}};
  for (const TopRow& row : rows)
    cells.push_back({clean(row.service), count_text(row.requests), count_text(row.errors),
                     fmt::format("{:.1f}", row.error_percent), ms_text(row.p50_ms),
                     ms_text(row.p99_ms), count_text(row.connections), std::to_string(row.open),
                     rate_text(row.received), rate_text(row.sent)});
  return table(cells);
}

json top_json(const std::vector<TopRow>& rows) {
  json out = json::array();
  for (const TopRow& row : rows) {
    json one{{"service", row.service},
             {"requestsPerSecond", row.requests},
             {"errorsPerSecond", row.errors},
             {"connectionsPerSecond", row.connections},
             {"openConnections", row.open},
             {"bytesReceivedPerSecond", row.received},
             {"bytesSentPerSecond", row.sent},
             {"p50Ms", nullptr},
             {"p99Ms", nullptr}};
    if (row.p50_ms >= 0) one["p50Ms"] = row.p50_ms;
    if (row.p99_ms >= 0) one["p99Ms"] = row.p99_ms;
    out.push_back(std::move(one));
  }
  return out;
}

std::string top_screen(const std::vector<TopRow>& rows, const std::string& head, size_t columns,
                       size_t lines) {
  std::string out;
  std::string text = head + "\n" + (rows.empty() ? "no traffic yet\n" : top_text(rows));
  size_t line = 0;
  while (!text.empty() && line + 1 < lines) {
    const size_t end = text.find('\n');
    // The rest of the line is cleared, so that nothing of the picture before shines through.
    out += text.substr(0, std::min(end, columns)) + "\x1b[K\r\n";
    text.erase(0, end + 1);
    ++line;
  }
  return out + "\x1b[J";
}

}  // namespace edgemesh::cli
