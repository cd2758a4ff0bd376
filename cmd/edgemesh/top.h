// `edgemesh top`: requests, errors, latency and bytes by service, as they come. Reads /traffic of the
// agent's or the proxy's admin endpoint; what it shows is the difference of two answers.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cmd/edgemesh/commands.h"

namespace edgemesh::cli {

// One answer of /traffic.
struct TrafficSnapshot {
  struct Bucket {
    uint64_t from_us = 0, to_us = 0, count = 0;
  };
  struct Service {
    uint64_t requests = 0, errors = 0, connections = 0, closed = 0, received = 0, sent = 0;
    std::vector<Bucket> latency;  // by time
  };
  int64_t time_us = 0;
  std::map<std::string, Service> services;
};
// Errors: what is no such answer.
Result<TrafficSnapshot> parse_traffic(const nlohmann::json& answer);

struct TopRow {
  std::string service;
  double requests = 0, errors = 0;                      // a second
  double error_percent = 0;
  double p50_ms = -1, p99_ms = -1;                      // < 0: no request
  double connections = 0;                               // opened a second
  uint64_t open = 0;                                    // of bytes, now
  double received = 0, sent = 0;                        // bytes a second
};
// What came between the two, the busiest first. A counter that went back began again from zero.
std::vector<TopRow> top_rows(const TrafficSnapshot& before, const TrafficSnapshot& now);

std::string top_text(const std::vector<TopRow>& rows);
nlohmann::json top_json(const std::vector<TopRow>& rows);
// For a screen of that many columns and lines.
std::string top_screen(const std::vector<TopRow>& rows, const std::string& head, size_t columns,
                       size_t lines);

struct TopFlags {
  double interval = 1;  // seconds
  bool once = false;
};
// Until q or Ctrl-C; `once`: one interval. Where standard output is no terminal, rows are printed.
Result<> top(const TopFlags& flags, const Common& common);

}  // namespace edgemesh::cli
