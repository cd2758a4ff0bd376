#include "proxy/upstream/load_balancer.h"

#include <algorithm>

namespace edgemesh::proxy {

namespace {

constexpr int kDraws = 5;       // for a host that was not tried
constexpr int kWalkSteps = 64;  // along a hash table, for one that can be used

bool is_tried(const PickContext& context, const Host* host) {
  return std::find(context.tried.begin(), context.tried.end(), host) != context.tried.end();
}

// Lamping and Veach: moves 1/n of the keys when n grows by one.
uint32_t jump_hash(uint64_t key, uint32_t n) {
  int64_t at = -1;
  for (int64_t next = 0; next < n;) {
    at = next;
    key = key * 2862933555777941757ULL + 1;
    next = static_cast<int64_t>(static_cast<double>(at + 1) *
                                (double(1LL << 31) / static_cast<double>((key >> 33) + 1)));
  }
  return static_cast<uint32_t>(at);
}

}  // namespace

Host* ClusterState::pick(const PickContext& context) {
  if (retired_) return nullptr;
  if (config().type == model::ClusterType::kOriginalDst)
    return context.destination != nullptr ? original_destination(*context.destination) : nullptr;
  const int subset = choose_subset(context);
  if (subset < 0) {
    stats_.no_host.add();
    return nullptr;
  }
  SubsetState& state = subset_state(subset);
  if (config().lb.client_ip_affinity > Duration::zero() && context.client != nullptr)
    return sticky(subset, state, context);

  Host* host = nullptr;
  for (int i = 0; i < kDraws; ++i) {
    const uint64_t key = context.has_hash ? context.hash : random_.next();
    const Chosen chosen = choose_level(state, mix64(key + 0x632be59bd9b4e019ULL));
    if (chosen.level == nullptr) break;
    if (chosen.kind == kAll) stats_.panic_picks.add();
    host = choose_host(state, subset, chosen, context);
    if (host == nullptr || !is_tried(context, host)) break;
  }
  if (host != nullptr && is_tried(context, host)) {
    if (Host* other = untried(state, context)) host = other;
  }
  if (host == nullptr) stats_.no_host.add();
  if (host != nullptr && !context.tried.empty() && !is_tried(context, host))
    stats_.retried_other_host.add();
  return host;
}

int ClusterState::choose_subset(const PickContext& context) {
  const auto& options = config().lb.subsets;
  if (!options.enabled()) return 0;
  if (!context.labels.empty()) {
    const int found = set_->find_subset(context.labels);
    // The default labels may be no selector's: then their subset is for the fallback only.
    if (found > 0) return found;
  }
  stats_.fallback_picks.add();
  switch (options.fallback) {
    case model::SubsetFallback::kNone: return -1;
    case model::SubsetFallback::kAny: return 0;
    case model::SubsetFallback::kDefault: return set_->default_subset();
  }
  return -1;
}

ClusterState::Chosen ClusterState::choose_level(SubsetState& state, uint64_t key) {
  auto at = static_cast<uint32_t>(key % 100);
  for (int kind = 0; kind < 2; ++kind)
    for (uint32_t i = 0; i < state.levels.size(); ++i) {
      const uint32_t load = state.load[kind][i];
      if (at < load)
        return {&state.levels[i], i, state.levels[i].panic ? kAll : static_cast<Kind>(kind)};
      at -= load;
    }
  return {};
}

ClusterState::Bucket& ClusterState::bucket_of(const Chosen& chosen) {
  Level& level = *chosen.level;
  if (chosen.kind == kAll || level.localities.empty()) return level.buckets[chosen.kind];
  TurnQueue& turns = level.locality_turns[chosen.kind];
  const auto weight = [&](uint32_t i) {
    return std::max(level.localities[i].effective[chosen.kind], 1e-12);
  };
  for (size_t i = 0; i < level.localities.size(); ++i) {
    Bucket& bucket = level.localities[turns.next(weight)].buckets[chosen.kind];
    if (!bucket.hosts.empty()) return bucket;
  }
  return level.buckets[chosen.kind];
}

Host* ClusterState::choose_host(const SubsetState&, int subset, const Chosen& chosen,
                                const PickContext& context) {
  const auto& group = set_->subsets()[static_cast<size_t>(subset)].levels[chosen.index];
  if (group.table != nullptr && context.has_hash)
    return walk(group, chosen.level->buckets[chosen.kind], chosen.kind, context);
  return choose_from(bucket_of(chosen));
}

Host* ClusterState::walk(const HostSet::Group& group, const Bucket& bucket, Kind kind,
                         const PickContext& context) {
  HashTable::Walk step(*group.table, context.hash);
  Host* tried = nullptr;
  for (int i = 0; i < kWalkSteps; ++i, step.next()) {
    Host* host = hosts_[group.hosts[step.host()]].get();
    if (!is_kind(*host, kind)) continue;
    if (!is_tried(context, host)) return host;
    tried = host;
  }
  if (tried != nullptr || bucket.hosts.empty()) return tried;
  return bucket.hosts[jump_hash(context.hash, static_cast<uint32_t>(bucket.hosts.size()))];
}

Host* ClusterState::choose_from(Bucket& bucket) {
  if (bucket.hosts.empty()) return nullptr;
  const auto n = static_cast<uint32_t>(bucket.hosts.size());
  if (n == 1) return bucket.hosts[0];
  switch (config().lb.policy) {
    case model::LbPolicy::kRoundRobin: {
      if (bucket.equal) {
        if (++bucket.turn >= n) bucket.turn = 0;
        return bucket.hosts[bucket.turn];
      }
      const TimePoint now = config().lb.slow_start.enabled() ? clock_.now() : TimePoint{};
      return bucket
          .hosts[bucket.turns.next([&](uint32_t i) { return weight_of(*bucket.hosts[i], now); })];
    }
    case model::LbPolicy::kLeastRequest: return least_request(bucket);
    default: break;  // hash policies without a hash are random
  }
  return draw(bucket, config().lb.slow_start.enabled() ? clock_.now() : TimePoint{});
}

// By weight; a host in slow start is refused in proportion.
Host* ClusterState::draw(Bucket& bucket, TimePoint now) {
  const auto n = static_cast<uint32_t>(bucket.hosts.size());
  if (bucket.equal) return bucket.hosts[random_.below(n)];
  Host* host = nullptr;
  for (int i = 0; i < kWalkSteps; ++i) {
    host = bucket.hosts[bucket.draw.next(random_)];
    const double factor = slow_factor(*host, now);
    if (factor >= 1 || random_.unit() < factor) break;
  }
  return host;
}

Host* ClusterState::least_request(Bucket& bucket) {
  const TimePoint now = config().lb.slow_start.enabled() ? clock_.now() : TimePoint{};
  const auto n = static_cast<uint32_t>(bucket.hosts.size());
  Host* best = draw(bucket, now);
  double best_load = best->active() / weight_of(*best, now);
  for (uint32_t i = 1; i < config().lb.choices; ++i) {
    Host* other = draw(bucket, now);
    // Two different ones where that is cheap: two draws of the same host choose nothing.
    for (int again = 0; other == best && n > 1 && again < 2; ++again) other = draw(bucket, now);
    const double load = other->active() / weight_of(*other, now);
    if (load < best_load) {
      best = other;
      best_load = load;
    }
  }
  return best;
}

// Any host that was not tried, from those that can be used; null: there is none.
Host* ClusterState::untried(const SubsetState& state, const PickContext& context) {
  for (const Level& level : state.levels)
    for (int kind = level.panic ? kAll : kHealthy; kind < (level.panic ? kKinds : kAll); ++kind) {
      const auto& hosts = level.buckets[kind].hosts;
      if (hosts.empty()) continue;
      const size_t n = hosts.size();
      const size_t start = random_.below(static_cast<uint32_t>(n));
      // tried + 1 different ones hold one that was not tried.
      for (size_t i = 0; i < std::min(n, context.tried.size() + 1); ++i) {
        Host* host = hosts[(start + i) % n];
        if (!is_tried(context, host)) return host;
      }
    }
  return nullptr;
}

Host* ClusterState::sticky(int subset, SubsetState& state, const PickContext& context) {
  const TimePoint now = clock_.now();
  Host* host = affinity_.find(*context.client, now);
  if (host != nullptr && is_kind(*host, kHealthy) && !is_tried(context, host)) {
    stats_.affinity_hits.add();
  } else {
    // The client's address decides, so that all workers (and agents) choose alike.
    PickContext by_client = context;
    by_client.hash = hash64(*context.client);
    host = nullptr;
    for (int i = 0; i < kDraws; ++i, by_client.hash = mix64(by_client.hash + 1)) {
      const Chosen chosen = choose_level(state, mix64(by_client.hash));
      if (chosen.level == nullptr) break;
      const auto& group = set_->subsets()[static_cast<size_t>(subset)].levels[chosen.index];
      Bucket& bucket = chosen.level->buckets[chosen.kind];
      if (group.table != nullptr) {
        host = walk(group, bucket, chosen.kind, by_client);
      } else if (!bucket.hosts.empty()) {
        host = bucket.hosts[jump_hash(by_client.hash, static_cast<uint32_t>(bucket.hosts.size()))];
      }
      if (host == nullptr || !is_tried(context, host)) break;
    }
    if (host != nullptr && is_tried(context, host))
      if (Host* other = untried(state, context)) host = other;
  }
  if (host == nullptr) {
    stats_.no_host.add();
    return nullptr;
  }
  affinity_.remember(*context.client, *host, now + config().lb.client_ip_affinity, now);
  return host;
}

}  // namespace edgemesh::proxy
