// What a process tells of its traffic, apart from what chains say for themselves. Immutable once made.
#pragma once

#include <string>
#include <vector>

#include "proxy/model/match.h"

namespace edgemesh::proxy::model {

// One access log.
struct AccessLog {
  std::string path;    // "-": standard output
  std::string format;  // Envoy's operators; empty: the default format
  std::vector<std::pair<std::string, std::string>> json;  // name, format; instead of `format`
  int min_status = 0;                                     // only answers from this on
  friend bool operator==(const AccessLog&, const AccessLog&) = default;
};

struct Tracing {
  std::string url;  // OTLP over HTTP, "http://127.0.0.1:4318/v1/traces"; empty: no spans
  std::string service_name = "edgemesh";
  PerMillion share = 0;  // of requests without a decision, where the chain says nothing
  friend bool operator==(const Tracing&, const Tracing&) = default;
};

// Metrics and tracing are taken when the process starts, logs with every configuration.
struct Telemetry {
  bool metrics = true;                // counts by label set, listener, cluster, route
  std::vector<AccessLog> access_log;  // of chains without logs of their own
  Tracing tracing;
  friend bool operator==(const Telemetry&, const Telemetry&) = default;
};

}  // namespace edgemesh::proxy::model
