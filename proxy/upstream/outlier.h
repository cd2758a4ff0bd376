// Outlier detection: endpoints that answer badly are left out for a while.
//
// Workers report how each request ended. Counts of failures in a row are shared by all workers and
// written only while something fails; the worker whose report reaches the threshold ejects. The
// main loop sweeps once an interval: it brings back whose time is over, and compares success rates.
// - An ejection lasts base_ejection times the number of ejections in a row, at most max_ejection;
// an
//   interval without one takes one off.
// - Not more than max_ejection_percent of the endpoints are out at a time, but one may always be.
#pragma once

#include <cstdint>

#include "proxy/upstream/load_balancer.h"

namespace edgemesh::proxy {

enum class Outcome : uint8_t {
  kSuccess,       // an answer below 500
  kServerError,   // 5xx, but not the three below
  kGatewayError,  // 502, 503, 504
  kLocalFailure,  // no connection, a reset, a timeout
  kConnected,     // a connection was made: ends a row of local failures, when they are split
};
inline Outcome outcome_of_status(int status) {
  if (status < 500) return Outcome::kSuccess;
  return status >= 502 && status <= 504 ? Outcome::kGatewayError : Outcome::kServerError;
}

// On the host's worker, once a request (kConnected: once a connection). Counts it in the
// statistics, too.
void report_outcome(Host& host, Outcome outcome);

// On the main loop, every `interval` of the cluster's settings.
void sweep_outliers(const HostSet& set, TimePoint now);

}  // namespace edgemesh::proxy
