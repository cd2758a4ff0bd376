// ClusterState: its hosts, who of them can be used, and how the load is shared between priorities.
#include <algorithm>
#include <cmath>

#include "proxy/upstream/load_balancer.h"

namespace edgemesh::proxy {

namespace {
constexpr size_t kMaxOriginal = 4096;  // original destinations remembered
}

Host::Host(ClusterState& cluster, std::shared_ptr<const HostSet> set, uint32_t index)
    : cluster_(&cluster),
      endpoint_(set, &set->entries()[index].endpoint),
      shared_(set->entries()[index].shared),
      stats_(shared_->stats.own(cluster.worker())) {}

Host::Host(ClusterState& cluster, const SockAddr& addr)
    : cluster_(&cluster),
      endpoint_([&addr] {
        auto endpoint = std::make_shared<model::Endpoint>();
        endpoint->addr = addr;
        return endpoint;
      }()),
      shared_(std::make_shared<SharedHost>(addr, cluster.worker() + 1)),
      stats_(shared_->stats.own(cluster.worker())) {}

Host::~Host() = default;

ClusterRef ClusterState::create(std::shared_ptr<const HostSet> set, int worker, Clock& clock,
                                uint64_t seed) {
  return ClusterRef(new ClusterState(std::move(set), worker, clock, seed));
}

ClusterState::ClusterState(std::shared_ptr<const HostSet> set, int worker, Clock& clock,
                           uint64_t seed)
    : worker_(worker),
      clock_(clock),
      random_(seed != 0 ? seed
                        : static_cast<uint64_t>(clock.wall_now().time_since_epoch().count()) +
                              hash64(set->cluster().name, static_cast<uint64_t>(worker))),
      set_(std::move(set)),
      shared_(set_->shared()),
      stats_(shared_->stats.own(worker)) {
  ref();  // while hosts are made, which refer to this
  adopt_hosts(nullptr);
  --refs_;
}

ClusterState::~ClusterState() {
  for (int i = 0; i < 2; ++i) shared_->breakers[i].requests -= credit_[i].have;
}

void ClusterState::update(std::shared_ptr<const HostSet> set) {
  ClusterRef keep(this);
  const auto before = std::exchange(set_, std::move(set));
  adopt_hosts(before.get());
}

void ClusterState::retire() {
  ClusterRef keep(this);
  retired_ = true;
  subsets_.clear();
  affinity_.clear();
  auto hosts = std::move(hosts_);
  hosts_.clear();
  auto original = std::move(original_);
  original_.clear();
  for (auto& [addr, host] : original) hosts.push_back(host);
  for (auto& host : hosts) {
    host->removed_ = true;
    if (host->attachment_) host->attachment_->on_host_removed();
  }
}

// Both lists are sorted by address and node.
void ClusterState::adopt_hosts(const HostSet*) {
  auto before = std::move(hosts_);
  hosts_.clear();
  hosts_.reserve(set_->entries().size());
  size_t old = 0;
  std::vector<HostRef> gone;
  for (uint32_t i = 0; i < set_->entries().size(); ++i) {
    const auto& entry = set_->entries()[i];
    while (old < before.size() && model::before(before[old]->endpoint(), entry.endpoint))
      gone.push_back(std::move(before[old++]));
    if (old < before.size() && model::same(before[old]->endpoint(), entry.endpoint) &&
        before[old]->shared_ == entry.shared) {
      before[old]->endpoint_ = {set_, &entry.endpoint};
      hosts_.push_back(std::move(before[old++]));
    } else {
      hosts_.emplace_back(new Host(*this, set_, i));
    }
  }
  while (old < before.size()) gone.push_back(std::move(before[old++]));
  subsets_.clear();
  subsets_.resize(set_->subsets().size());
  noted_epoch_ = shared_->epoch.load(std::memory_order_acquire);
  note_health();
  for (auto& host : gone) {
    host->removed_ = true;
    affinity_.forget(*host);
    if (host->attachment_) host->attachment_->on_host_removed();
  }
}

// Tells the pool of hosts whose check has begun to fail.
void ClusterState::note_health() {
  for (auto& host : hosts_) {
    const bool failed = host->shared_->has(SharedHost::kCheckFailed);
    if (failed && !host->check_failed_ && host->attachment_) host->attachment_->on_host_unhealthy();
    host->check_failed_ = failed;
  }
}

bool ClusterState::is_kind(const Host& host, Kind kind) {
  const auto health = host.endpoint_->health;
  if (kind == kAll) return health != model::Health::kDraining;
  if (host.shared_->flags.load(std::memory_order_relaxed) != 0) return false;
  return health == (kind == kHealthy ? model::Health::kHealthy : model::Health::kDegraded);
}

bool ClusterState::is_fresh(const Host& host, TimePoint now) const {
  const auto& slow = config().lb.slow_start;
  const int64_t since = host.shared_->fresh_since.load(std::memory_order_relaxed);
  return slow.enabled() && since != 0 &&
         now.time_since_epoch().count() - since < slow.window.count();
}

double ClusterState::slow_factor(const Host& host, TimePoint now) const {
  if (!is_fresh(host, now)) return 1;
  const auto& slow = config().lb.slow_start;
  const double part =
      static_cast<double>(now.time_since_epoch().count() -
                          host.shared_->fresh_since.load(std::memory_order_relaxed)) /
      static_cast<double>(slow.window.count());
  return std::max(std::pow(std::max(part, 0.0), 1 / slow.aggression),
                  slow.min_weight_percent / 100.0);
}

double ClusterState::weight_of(const Host& host, TimePoint now) const {
  return host.endpoint_->weight * slow_factor(host, now);
}

ClusterState::SubsetState& ClusterState::subset_state(int index) {
  const uint32_t epoch = shared_->epoch.load(std::memory_order_acquire);
  if (epoch != noted_epoch_) {
    noted_epoch_ = epoch;
    note_health();
  }
  auto& state = subsets_[static_cast<size_t>(index)];
  if (state == nullptr) {
    state = std::make_unique<SubsetState>();
    refresh(*state, index);
  } else if (state->epoch != epoch ||
             (state->slow_until != TimePoint{} && clock_.now() >= state->slow_until)) {
    refresh(*state, index);
  }
  return *state;
}

void ClusterState::refresh(SubsetState& state, int index) {
  const auto& subset = set_->subsets()[static_cast<size_t>(index)];
  state.epoch = noted_epoch_;
  state.slow_until = {};
  state.levels.resize(subset.levels.size());
  const TimePoint now = clock_.now();
  for (size_t i = 0; i < state.levels.size(); ++i) {
    Level& level = state.levels[i];
    fill(level, subset.levels[i]);
    for (auto& bucket : level.buckets) prepare(bucket, now, state);
    for (auto& locality : level.localities)
      for (auto& bucket : locality.buckets) prepare(bucket, now, state);
  }
  share_loads(state);
}

void ClusterState::fill(Level& level, const HostSet::Group& group) {
  level.total = 0;
  for (int kind = 0; kind < kKinds; ++kind) {
    auto& hosts = level.buckets[kind].hosts;
    hosts.clear();
    for (uint32_t i : group.hosts)
      if (is_kind(*hosts_[i], static_cast<Kind>(kind))) hosts.push_back(hosts_[i].get());
  }
  level.total = static_cast<uint32_t>(level.buckets[kAll].hosts.size());
  if (!group.localities.empty()) fill_localities(level, group);
}

void ClusterState::fill_localities(Level& level, const HostSet::Group& group) {
  level.localities.resize(group.localities.size());
  for (size_t i = 0; i < group.localities.size(); ++i) {
    auto& state = level.localities[i];
    state.weight = group.localities[i].weight;
    for (int kind = 0; kind < 2; ++kind) {
      auto& hosts = state.buckets[kind].hosts;
      hosts.clear();
      for (uint32_t host : group.localities[i].hosts)
        if (is_kind(*hosts_[host], static_cast<Kind>(kind))) hosts.push_back(hosts_[host].get());
      // Weight times the usable share, with the same reserve that priorities have.
      const double share = static_cast<double>(hosts.size()) /
                           static_cast<double>(group.localities[i].hosts.size()) *
                           config().lb.overprovisioning_percent / 100.0;
      state.effective[kind] = state.weight * std::min(share, 1.0);
    }
  }
  for (int kind = 0; kind < 2; ++kind)
    level.locality_turns[kind].reset(static_cast<uint32_t>(level.localities.size()), random_,
                                     [&](uint32_t i) {
                                       // Those without a host stay in the queue and are passed
                                       // over: a turn far away.
                                       return std::max(level.localities[i].effective[kind], 1e-12);
                                     });
}

void ClusterState::prepare(Bucket& bucket, TimePoint now, SubsetState& state) {
  bucket.equal = true;
  if (bucket.hosts.empty()) return;
  const uint32_t first = bucket.hosts.front()->endpoint().weight;
  for (Host* host : bucket.hosts) {
    if (host->endpoint().weight != first) bucket.equal = false;
    if (is_fresh(*host, now)) {
      bucket.equal = false;
      const TimePoint until =
          TimePoint(Duration(host->shared_->fresh_since.load())) + config().lb.slow_start.window;
      // The first that ends has the lists made anew, and so on: the last ends them all.
      if (state.slow_until == TimePoint{} || until < state.slow_until) state.slow_until = until;
    }
  }
  const auto n = static_cast<uint32_t>(bucket.hosts.size());
  bucket.turn = random_.below(n);
  if (bucket.equal) return;
  if (config().lb.policy == model::LbPolicy::kRoundRobin) {
    bucket.turns.reset(n, random_, [&](uint32_t i) { return weight_of(*bucket.hosts[i], now); });
  } else {
    bucket.draw.reset(n, [&](uint32_t i) { return double(bucket.hosts[i]->endpoint().weight); });
  }
}

void ClusterState::share_loads(SubsetState& state) const {
  const size_t n = state.levels.size();
  const auto& lb = config().lb;
  uint32_t usable[2][512] = {};
  uint32_t sum = 0;
  for (int kind = 0; kind < 2; ++kind) {
    state.load[kind].assign(n, 0);
    for (size_t i = 0; i < n; ++i) {
      const Level& level = state.levels[i];
      if (level.total > 0)
        usable[kind][i] =
            std::min<uint64_t>(100, uint64_t{lb.overprovisioning_percent} *
                                        level.buckets[kind].hosts.size() / level.total);
      sum += usable[kind][i];
    }
  }
  const uint32_t available = std::min<uint32_t>(sum, 100);
  bool all_panic = true;
  for (Level& level : state.levels) {
    const size_t good =
        level.buckets[kHealthy].hosts.size() + level.buckets[kDegraded].hosts.size();
    level.panic =
        available < 100 && level.total > 0 && good * 100 < size_t{lb.panic_percent} * level.total;
    if (level.total > 0 && !level.panic) all_panic = false;
  }
  if (all_panic) return share_by_size(state);
  if (available == 0) return;

  uint32_t left = 100;
  uint8_t* first = nullptr;
  for (int kind = 0; kind < 2; ++kind)
    for (size_t i = 0; i < n; ++i) {
      const uint32_t part = std::min(left, usable[kind][i] * 100 / available);
      state.load[kind][i] = static_cast<uint8_t>(part);
      if (first == nullptr && part > 0) first = &state.load[kind][i];
      left -= part;
    }
  if (first != nullptr) *first = static_cast<uint8_t>(*first + left);  // what rounding left over
}

// All are in panic: by the number of endpoints.
void ClusterState::share_by_size(SubsetState& state) const {
  uint64_t sum = 0;
  for (const Level& level : state.levels) sum += level.total;
  if (sum == 0) return;
  uint32_t left = 100;
  uint8_t* first = nullptr;
  for (size_t i = 0; i < state.levels.size(); ++i) {
    const auto part = static_cast<uint32_t>(uint64_t{state.levels[i].total} * 100 / sum);
    state.load[kHealthy][i] = static_cast<uint8_t>(part);
    if (first == nullptr && state.levels[i].total > 0) first = &state.load[kHealthy][i];
    left -= part;
  }
  if (first != nullptr) *first = static_cast<uint8_t>(*first + left);
}

Host* ClusterState::original_destination(const SockAddr& addr) {
  if (addr.port == 0 || addr.ip.is_unspecified()) return nullptr;
  const TimePoint now = clock_.now();
  auto it = original_.find(addr);
  if (it == original_.end()) {
    if (original_.size() >= kMaxOriginal) {
      // Half of them that nobody uses: rare, and then there is room for long.
      size_t drop = kMaxOriginal / 2;
      for (auto i = original_.begin(); i != original_.end() && drop > 0;) {
        if (i->second->refs_ > 1) {
          ++i;
          continue;
        }
        i = original_.erase(i);
        --drop;
      }
      if (original_.size() >= kMaxOriginal) return nullptr;
    }
    it = original_.emplace(addr, HostRef(new Host(*this, addr))).first;
  }
  it->second->last_used_ = now;
  return it->second.get();
}

}  // namespace edgemesh::proxy
