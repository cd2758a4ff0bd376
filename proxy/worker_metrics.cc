#include "proxy/worker_metrics.h"

namespace edgemesh::proxy {

namespace {
obs::Labels with(int worker, obs::Labels more = {}) {
  more.emplace_back("worker", std::to_string(worker));
  return more;
}
}  // namespace

WorkerMetrics::WorkerMetrics(obs::Registry& registry, int worker)
    : opened(registry.counter("edgemesh_proxy_connections_opened_total",
                              "Connections taken by the proxy.", with(worker))),
      active(registry.gauge("edgemesh_proxy_connections_active", "Connections open now.",
                            with(worker))),
      to_upstream(registry.counter("edgemesh_proxy_bytes_total", "Bytes passed on.",
                                   with(worker, {{"direction", "to_upstream"}}))),
      to_client(registry.counter("edgemesh_proxy_bytes_total", "Bytes passed on.",
                                 with(worker, {{"direction", "to_client"}}))),
      retries(registry.counter("edgemesh_proxy_connect_retries_total",
                               "Further endpoints tried after one failed.", with(worker))),
      inbound_opened(registry.counter("edgemesh_proxy_inbound_opened_total",
                                      "Connections that came from other nodes.", with(worker))),
      inbound_refused(registry.counter("edgemesh_proxy_inbound_refused_total",
                                       "CONNECTs of other nodes to what is no endpoint here.",
                                       with(worker))),
      connect_seconds(registry.histogram(
          "edgemesh_proxy_connect_seconds", "Time until an endpoint was connected.",
          {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5},
          with(worker))) {
  for (size_t i = 0; i < kEndReasons; ++i)
    ended[i] = &registry.counter(
        "edgemesh_proxy_connections_ended_total", "Connections that ended, by reason.",
        with(worker, {{"reason", std::string(to_string(static_cast<EndReason>(i)))}}));
}

uint64_t WorkerMetrics::failed() const {
  uint64_t sum = 0;
  for (size_t i = 0; i < kEndReasons; ++i)
    if (is_failure(static_cast<EndReason>(i))) sum += ended[i]->value();
  return sum;
}

}  // namespace edgemesh::proxy
