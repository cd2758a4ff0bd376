#include "proxy/upstream/health_checker.h"

#include <algorithm>
#include <tuple>

#include "core/base/log.h"
#include "proxy/upstream/health_attempt.h"

namespace edgemesh::proxy {

namespace {

// Endpoints of several nodes may have the same address.
struct HostKey {
  SockAddr addr;
  std::string node;
  explicit HostKey(const model::Endpoint& endpoint) : addr(endpoint.addr), node(endpoint.node) {}
  friend auto operator<=>(const HostKey&, const HostKey&) = default;
};

}  // namespace

// One check of one endpoint.
class HealthChecker::HostCheck final : public ListNode<HostCheck> {
 public:
  HostCheck(HealthChecker& checker, Cluster& cluster, size_t which, const HostKey& host, bool well)
      : checker_(checker),
        cluster_(cluster),
        which_(which),
        host_(host),
        healthy_(well),
        first_(!well),
        timer_(checker.options_.loop, [this] { on_timer(); }) {}
  ~HostCheck() { end_attempt(); }

  void begin();
  bool healthy() const { return healthy_; }

 private:
  friend class HealthChecker;
  const model::HealthCheck& config() const;
  void on_timer();
  void run();
  void on_done(const std::string& reason);
  void end_attempt();

  HealthChecker& checker_;
  Cluster& cluster_;
  size_t which_;  // of the cluster's checks
  HostKey host_;
  bool healthy_;
  bool first_;        // it was never well
  uint32_t row_ = 0;  // results in a row that speak against healthy_
  io::Timer timer_;
  std::unique_ptr<HealthAttempt> attempt_;
};

struct HealthChecker::Cluster {
  std::shared_ptr<const HostSet> set;
  std::map<HostKey, std::vector<std::unique_ptr<HostCheck>>> hosts;

  const HostSet::Entry* find(const HostKey& host) const {
    const auto& entries = set->entries();  // sorted by address and node
    auto it = std::lower_bound(entries.begin(), entries.end(), host,
                               [](const HostSet::Entry& entry, const HostKey& key) {
                                 return std::tie(entry.endpoint.addr, entry.endpoint.node) <
                                        std::tie(key.addr, key.node);
                               });
    const bool found = it != entries.end() && it->endpoint.addr == host.addr &&
                       it->endpoint.node == host.node;
    return found ? &*it : nullptr;
  }
  void publish(const HostKey& host, TimePoint now, std::string_view reason);
};

// A host is well when all its checks say so.
void HealthChecker::Cluster::publish(const HostKey& key, TimePoint now, std::string_view reason) {
  const auto* entry = find(key);
  if (entry == nullptr) return;
  const auto& checks = hosts[key];
  const bool failed = std::any_of(checks.begin(), checks.end(),
                                  [](const auto& check) { return !check->healthy(); });
  SharedHost& host = *entry->shared;
  if (!host.set(SharedHost::kCheckFailed, failed)) return;
  if (!failed) {
    // At the start all begin together; who comes later, or back, may have to start slowly.
    if (host.was_healthy || host.fresh_since != 0)
      host.fresh_since = now.time_since_epoch().count();
    host.was_healthy = true;
  }
  set->shared()->raise_epoch();
  EM_LOG(kInfo, "upstream", "cluster={} endpoint={} is {}{}{}", set->cluster().name,
         key.addr.to_string(), failed ? "ill" : "well", reason.empty() ? "" : ": ", reason);
}

const model::HealthCheck& HealthChecker::HostCheck::config() const {
  return cluster_.set->cluster().health_checks[which_];
}

void HealthChecker::HostCheck::begin() {
  const auto spread = static_cast<double>(config().initial_jitter.count());
  timer_.start(Duration(static_cast<int64_t>(checker_.random_.unit() * spread)));
}

void HealthChecker::HostCheck::on_timer() {
  if (checker_.running_ >= checker_.options_.max_parallel)
    checker_.waiting_.push_back(*this);
  else
    run();
}

void HealthChecker::HostCheck::run() {
  const auto* entry = cluster_.find(host_);
  if (entry == nullptr) return;
  ++checker_.running_;
  auto& options = checker_.options_;
  attempt_ =
      std::make_unique<HealthAttempt>(options.loop, cluster_.set, entry->endpoint, config(),
                                      [this](const std::string& reason) { on_done(reason); });
  entry->shared->checks.fetch_add(1, std::memory_order_relaxed);
  attempt_->start(options.connector, options.make_h1, options.make_h2);
}

void HealthChecker::HostCheck::end_attempt() {
  if (attempt_ == nullptr) return;
  --checker_.running_;
  attempt_->abandon();
  // It may be what calls us.
  checker_.options_.loop.defer([gone = std::move(attempt_)] {});
}

void HealthChecker::HostCheck::on_done(const std::string& reason) {
  end_attempt();
  const auto& check = config();
  const bool passed = reason.empty();
  const auto* entry = cluster_.find(host_);
  if (!passed && entry != nullptr)
    entry->shared->check_failures.fetch_add(1, std::memory_order_relaxed);
  row_ = passed == healthy_ ? 0 : row_ + 1;
  const uint32_t needed = first_ ? 1 : passed ? check.healthy_threshold : check.unhealthy_threshold;
  const bool changes = passed != healthy_ && row_ >= needed;
  if (changes) {
    healthy_ = passed;
    row_ = 0;
  }
  // Until it was well once, a single success is enough.
  if (passed) first_ = false;
  Duration wait = !healthy_ && check.unhealthy_interval > Duration::zero()
                      ? check.unhealthy_interval
                      : check.interval;
  wait += Duration(static_cast<int64_t>(static_cast<double>(wait.count()) * check.jitter_percent /
                                        100 * checker_.random_.unit()));
  timer_.start(wait);
  if (changes) cluster_.publish(host_, checker_.options_.loop.now(), reason);
  checker_.start_waiting();
}

HealthChecker::HealthChecker(HealthCheckerOptions options)
    : options_(std::move(options)),
      random_(options_.seed != 0
                  ? options_.seed
                  : static_cast<uint64_t>(
                        options_.loop.clock().wall_now().time_since_epoch().count())) {}

HealthChecker::~HealthChecker() = default;

void HealthChecker::start_waiting() {
  while (running_ < options_.max_parallel) {
    HostCheck* check = waiting_.front();
    if (check == nullptr) return;
    check->unlink();
    check->run();
  }
}

void HealthChecker::set(std::shared_ptr<const HostSet> set) {
  const auto& config = set->cluster();
  if (config.health_checks.empty()) return remove(config.name);
  auto& slot = clusters_[config.name];
  // A running attempt looks at the old settings: they live with its set.
  if (slot != nullptr && slot->set->cluster().health_checks != config.health_checks) slot.reset();
  if (slot == nullptr) slot = std::make_unique<Cluster>();
  Cluster& cluster = *slot;
  cluster.set = std::move(set);
  std::erase_if(cluster.hosts,
                [&](const auto& item) { return cluster.find(item.first) == nullptr; });
  for (const auto& entry : cluster.set->entries()) {
    const HostKey host(entry.endpoint);
    auto& checks = cluster.hosts[host];
    if (!checks.empty()) continue;
    // An endpoint that was used before it had checks is used until they fail.
    const bool well = !entry.shared->has(SharedHost::kCheckFailed);
    for (size_t i = 0; i < cluster.set->cluster().health_checks.size(); ++i) {
      checks.push_back(std::make_unique<HostCheck>(*this, cluster, i, host, well));
      checks.back()->begin();
    }
  }
}

void HealthChecker::remove(const std::string& cluster) {
  clusters_.erase(cluster);
  start_waiting();
}

size_t HealthChecker::hosts() const {
  size_t sum = 0;
  for (const auto& [name, cluster] : clusters_) sum += cluster->hosts.size();
  return sum;
}

}  // namespace edgemesh::proxy
