#include "proxy/upstream/outlier.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/log.h"

namespace edgemesh::proxy {

namespace {

// One more may be out. Counted by compare and exchange: two workers may try at once.
bool take_place(SharedCluster& cluster, size_t hosts, uint32_t max_percent) {
  uint32_t out = cluster.ejected.load(std::memory_order_relaxed);
  do {
    if (max_percent == 0) return false;
    if (out > 0 && (uint64_t{out} + 1) * 100 > uint64_t{max_percent} * hosts) return false;
  } while (!cluster.ejected.compare_exchange_weak(out, out + 1, std::memory_order_relaxed));
  return true;
}

void forget_failures(SharedHost& host) {
  host.consecutive_5xx.store(0, std::memory_order_relaxed);
  host.consecutive_gateway.store(0, std::memory_order_relaxed);
  host.consecutive_local.store(0, std::memory_order_relaxed);
}

void eject(const HostSet& set, SharedHost& host, TimePoint now, std::string_view why) {
  const auto& options = *set.cluster().outlier;
  if (host.has(SharedHost::kEjected)) return;
  if (!take_place(*set.shared(), set.entries().size(), options.max_ejection_percent)) return;
  if (!host.set(SharedHost::kEjected, true)) {  // another worker did
    set.shared()->ejected.fetch_sub(1, std::memory_order_relaxed);
    return;
  }
  const uint32_t times = host.ejections.fetch_add(1, std::memory_order_relaxed) + 1;
  const double wanted = static_cast<double>(options.base_ejection.count()) * times;
  const auto lasts =
      static_cast<int64_t>(std::min(wanted, static_cast<double>(options.max_ejection.count())));
  host.ejected_until.store(now.time_since_epoch().count() + lasts, std::memory_order_relaxed);
  host.ejected_total.fetch_add(1, std::memory_order_relaxed);
  set.shared()->raise_epoch();
  EM_LOG(kInfo, "upstream", "cluster={} endpoint={} ejected for {} ms: {}", set.cluster().name,
         host.addr.to_string(), lasts / 1'000'000, why);
}

// Adds to a row; true when that reached the threshold (the row then begins anew).
bool reaches(std::atomic<uint32_t>& row, uint32_t threshold) {
  if (threshold == 0) return false;
  if (row.fetch_add(1, std::memory_order_relaxed) + 1 < threshold) return false;
  row.store(0, std::memory_order_relaxed);
  return true;
}

void end_row(std::atomic<uint32_t>& row) {
  // A read first: in the steady state nothing is written, and the line stays shared.
  if (row.load(std::memory_order_relaxed) != 0) row.store(0, std::memory_order_relaxed);
}

bool chance(uint32_t percent, const SharedHost& host) {
  if (percent >= 100) return true;
  const auto seed = static_cast<uint64_t>(system_clock().now().time_since_epoch().count());
  return mix64(seed ^ hash64(host.addr)) % 100 < percent;
}

void note_failure(const HostSet& set, SharedHost& host, Outcome outcome, TimePoint now) {
  const auto& options = *set.cluster().outlier;
  if (outcome == Outcome::kLocalFailure && options.split_local_origin) {
    if (reaches(host.consecutive_local, options.consecutive_local_origin) &&
        chance(options.enforce_local_origin, host))
      eject(set, host, now, "local failures in a row");
    return;
  }
  // Without the split a failure of ours counts like an answer 503.
  if (outcome == Outcome::kServerError)
    end_row(host.consecutive_gateway);
  else if (reaches(host.consecutive_gateway, options.consecutive_gateway) &&
           chance(options.enforce_gateway, host))
    eject(set, host, now, "gateway errors in a row");
  if (reaches(host.consecutive_5xx, options.consecutive_5xx) &&
      chance(options.enforce_consecutive_5xx, host))
    eject(set, host, now, "5xx in a row");
}

struct Rate {
  SharedHost* host;
  double percent;
};

// The share of good answers of each endpoint in the last interval.
std::vector<Rate> measure(const HostSet& set) {
  std::vector<Rate> rates;
  for (const auto& entry : set.entries()) {
    SharedHost& host = *entry.shared;
    uint64_t good = 0;
    uint64_t all = 0;
    host.stats.for_each([&](const HostStats& stats) {
      good += stats.successes.value();
      all += stats.successes.value() + stats.errors.value();
    });
    const uint64_t requests = all - host.swept_requests;
    const uint64_t successes = good - host.swept_successes;
    host.swept_requests = all;
    host.swept_successes = good;
    host.success_rate = -1;
    if (requests < set.cluster().outlier->success_rate_min_requests) continue;
    host.success_rate = 100.0 * static_cast<double>(successes) / static_cast<double>(requests);
    if (!host.has(SharedHost::kEjected)) rates.push_back({&host, host.success_rate});
  }
  return rates;
}

void compare_rates(const HostSet& set, TimePoint now) {
  const auto& options = *set.cluster().outlier;
  const auto rates = measure(set);
  if (options.enforce_success_rate == 0 || rates.size() < options.success_rate_min_hosts) return;
  double mean = 0;
  for (const Rate& rate : rates) mean += rate.percent / static_cast<double>(rates.size());
  double variance = 0;
  for (const Rate& rate : rates)
    variance += (rate.percent - mean) * (rate.percent - mean) / static_cast<double>(rates.size());
  const double least = mean - options.success_rate_stdev_factor * std::sqrt(variance);
  for (const Rate& rate : rates)
    if (rate.percent < least && chance(options.enforce_success_rate, *rate.host))
      eject(set, *rate.host, now, "success rate far below the others'");
}

}  // namespace

void report_outcome(Host& host, Outcome outcome) {
  SharedHost& shared = host.shared();
  ClusterState& cluster = host.cluster();
  if (outcome == Outcome::kConnected) return end_row(shared.consecutive_local);
  const bool good = outcome == Outcome::kSuccess;
  (good ? host.stats().successes : host.stats().errors).add();
  (good ? cluster.stats().successes : cluster.stats().errors).add();
  if (cluster.config().outlier == nullptr || host.removed()) return;
  if (!good) return note_failure(cluster.set(), shared, outcome, cluster.clock().now());
  end_row(shared.consecutive_5xx);
  end_row(shared.consecutive_gateway);
  end_row(shared.consecutive_local);
}

void sweep_outliers(const HostSet& set, TimePoint now) {
  if (set.cluster().outlier == nullptr) return;
  compare_rates(set, now);
  uint32_t still_out = 0;
  bool changed = false;
  for (const auto& entry : set.entries()) {
    SharedHost& host = *entry.shared;
    if (!host.has(SharedHost::kEjected)) {
      if (host.ejections.load(std::memory_order_relaxed) > 0) host.ejections.fetch_sub(1);
      continue;
    }
    if (host.ejected_until.load(std::memory_order_relaxed) > now.time_since_epoch().count()) {
      ++still_out;
      continue;
    }
    forget_failures(host);
    host.fresh_since.store(now.time_since_epoch().count(), std::memory_order_relaxed);
    changed |= host.set(SharedHost::kEjected, false);
    EM_LOG(kInfo, "upstream", "cluster={} endpoint={} is back after its ejection",
           set.cluster().name, host.addr.to_string());
  }
  // Counted anew: endpoints may have been removed while they were out.
  set.shared()->ejected.store(still_out, std::memory_order_relaxed);
  if (changed) set.shared()->raise_epoch();
}

}  // namespace edgemesh::proxy
