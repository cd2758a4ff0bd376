// The counters of one worker; one writer, the worker's thread.
#pragma once

#include <array>

#include "core/obs/metrics.h"
#include "proxy/l4_pump.h"

namespace edgemesh::proxy {

struct WorkerMetrics {
  WorkerMetrics(obs::Registry& registry, int worker);

  obs::Counter& opened;
  obs::Gauge& active;
  obs::Counter& to_upstream;  // bytes
  obs::Counter& to_client;
  obs::Counter& retries;  // attempts after the first
  obs::Counter& inbound_opened;
  obs::Counter& inbound_refused;
  obs::Histogram& connect_seconds;
  std::array<obs::Counter*, kEndReasons> ended;

  void count_end(EndReason reason) { ended[static_cast<size_t>(reason)]->add(); }
  uint64_t failed() const;
};

}  // namespace edgemesh::proxy
