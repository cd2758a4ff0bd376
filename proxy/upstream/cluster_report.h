// What the admin shows of clusters: /clusters as text or JSON, and the counters in the Prometheus
// format. Reads the workers' counters by atomics: may run while they work. Threads: the main loop.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "proxy/upstream/host_set.h"

namespace edgemesh::proxy {

using HostSetPtr = std::shared_ptr<const HostSet>;

// Envoy's form: "reviews::10.0.0.1:80::cx_active::2".
void append_clusters_text(std::string& out, std::span<const HostSetPtr> sets);
// {"clusters":[{"name":...,"stats":{...},"endpoints":[...]}]}
void append_clusters_json(std::string& out, std::span<const HostSetPtr> sets);

// Counters by cluster, the workers summed. Not more than `max_clusters` get lines of their own,
// those with the most requests; the others are added up under cluster="_other". Clusters that were
// never used have no lines.
void append_clusters_prometheus(std::string& out, std::span<const HostSetPtr> sets,
                                size_t max_clusters = 200);

}  // namespace edgemesh::proxy
