// Clusters and endpoints for tests.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "proxy/upstream/load_balancer.h"

namespace edgemesh::proxy {

inline model::Endpoint endpoint(int n, uint32_t weight = 1, uint32_t priority = 0) {
  model::Endpoint made;
  made.addr = SockAddr{IpAddr::v4(0x0a000000u + static_cast<uint32_t>(n)), 80};
  made.weight = weight;
  made.priority = priority;
  return made;
}

inline std::vector<model::Endpoint> endpoints(int n) {
  std::vector<model::Endpoint> made;
  for (int i = 1; i <= n; ++i) made.push_back(endpoint(i));
  return made;
}

inline int number_of(const Host& host) {
  return static_cast<int>(host.addr().ip.v4_host_order() - 0x0a000000u);
}

// A cluster with its state on worker 0. Change `config` before set().
struct TestCluster {
  ~TestCluster() {
    if (state) state->retire();
  }
  void set(std::vector<model::Endpoint> list) {
    auto shared_config = std::make_shared<model::Cluster>(config);
    hosts = HostSet::build(shared_config, std::move(list), {place, 2, clock.now(), nullptr},
                           hosts.get());
    if (state)
      state->update(hosts);
    else
      state = ClusterState::create(hosts, 0, clock, 42);
  }
  Host* pick(const PickContext& context = {}) { return state->pick(context); }
  Host* pick_hash(uint64_t hash) {
    PickContext context;
    context.has_hash = true;
    context.hash = hash;
    return state->pick(context);
  }
  // How often each host is picked; 0 counts picks of nothing.
  std::map<int, int> count(int picks, const PickContext& context = {}) {
    std::map<int, int> counts;
    for (int i = 0; i < picks; ++i) {
      Host* host = state->pick(context);
      ++counts[host != nullptr ? number_of(*host) : 0];
    }
    return counts;
  }
  Host& host(int n) {
    for (const auto& h : state->hosts())
      if (number_of(*h) == n) return *h;
    EM_CHECK(false);
  }
  void fail(int n, bool failed = true) {
    host(n).shared().set(SharedHost::kCheckFailed, failed);
    hosts->shared()->raise_epoch();
  }

  ManualClock clock;
  Place place;
  model::Cluster config;
  std::shared_ptr<const HostSet> hosts;
  ClusterRef state;
};

}  // namespace edgemesh::proxy
