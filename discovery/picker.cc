#include "discovery/picker.h"

#include <algorithm>

namespace edgemesh::discovery {

namespace {
constexpr size_t kMaxEndpoints = 65'536;
constexpr size_t kMaxFailures = 16'384;
constexpr size_t kMaxTurns = 65'536;
constexpr size_t kMaxAffinity = 65'536;
constexpr Duration kFirstBlock = std::chrono::seconds(1);
constexpr uint32_t kMaxDoublings = 5;  // 32 s, cut to 30
constexpr Duration kLongestBlock = std::chrono::seconds(30);
// After the end of a block. Longer than the longest one, so that an endpoint that fails whenever it is
// tried again goes on from where it was.
constexpr Duration kRemember = std::chrono::seconds(60);
constexpr Duration kForgetPace = std::chrono::seconds(1);  // the table is not looked through more often
constexpr int kTiers = 3;

// Every bit of the result depends on every bit of x (the finalizer of splitmix64).
uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

bool old(TimePoint blocked_until, TimePoint now) { return now >= blocked_until + kRemember; }
}  // namespace

Picker::Picker(std::string node, std::string zone, Clock& clock)
    : node_(std::move(node)),
      zone_(std::move(zone)),
      clock_(clock),
      seed_(static_cast<uint64_t>(clock.now().time_since_epoch().count()) |
            1) {}

uint32_t Picker::random(uint32_t below) {
  // xorshift64*: spreading load needs no better, and the hot path no lock.
  seed_ ^= seed_ >> 12;
  seed_ ^= seed_ << 25;
  seed_ ^= seed_ >> 27;
  return static_cast<uint32_t>(((seed_ * 0x2545f4914f6cdd1dULL) >> 32) * below >> 32);
}

int Picker::tier(const Endpoint& endpoint) const {
  if (!node_.empty() && endpoint.node == node_) return 0;
  if (!zone_.empty() && endpoint.zone == zone_) return 1;
  return 2;
}

bool Picker::blocked(const Endpoint& endpoint, TimePoint now) const {
  if (failures_.empty()) return false;
  auto it = failures_.find(endpoint);
  return it != failures_.end() && it->second.blocked_until > now;
}

uint32_t Picker::active(const Endpoint& endpoint) const {
  auto it = active_.find(endpoint);
  return it == active_.end() ? 0 : it->second;
}

const Endpoint* Picker::nth(const Port& port, int wanted_tier, bool use_blocked, uint32_t n,
                            TimePoint now, const std::vector<const Endpoint*>& exclude) const {
  for (const Endpoint& e : port.endpoints) {
    if (tier(e) != wanted_tier || (!use_blocked && blocked(e, now))) continue;
    if (std::find(exclude.begin(), exclude.end(), &e) != exclude.end()) continue;
    if (n-- == 0) return &e;
  }
  return nullptr;
}

const Endpoint* Picker::choose(const Snapshot::Target& target, int wanted_tier, bool use_blocked,
                               uint32_t count, TimePoint now,
                               const std::vector<const Endpoint*>& exclude) {
  auto at = [&](uint32_t n) { return nth(*target.port, wanted_tier, use_blocked, n, now, exclude); };
  if (count == 1) return at(0);
  switch (target.service->policy) {
    case LbPolicy::kRandom: return at(random(count));
    case LbPolicy::kLeastRequest: {
      uint32_t first = random(count);
      uint32_t second = (first + 1 + random(count - 1)) % count;
      const Endpoint* a = at(first);
      const Endpoint* b = at(second);
      return active(*b) < active(*a) ? b : a;
    }
    case LbPolicy::kRoundRobin: break;
  }
  if (turns_.size() > kMaxTurns) turns_.clear();
  uint64_t key = target.service->id << 16 | target.port->index;
  auto [it, fresh] = turns_.try_emplace(key, 0);
  if (fresh) it->second = random(count);  // many nodes must not all begin with the same endpoint
  return at(it->second++ % count);
}

const Endpoint* Picker::pick(const Snapshot::Target& target, const IpAddr& client,
                             const std::vector<const Endpoint*>& exclude) {
  bool needs_time = !failures_.empty() || target.service->client_ip_affinity;
  TimePoint now = needs_time ? clock_.now() : TimePoint{};
  if (!failures_.empty() && now >= next_forget_) forget_failures(now);
  if (target.service->client_ip_affinity)
    if (const Endpoint* e = sticky(target, client, now, exclude)) return e;
  for (bool use_blocked : {false, true}) {
    uint32_t counts[kTiers] = {};
    for (const Endpoint& e : target.port->endpoints) {
      if (!use_blocked && blocked(e, now)) continue;
      if (std::find(exclude.begin(), exclude.end(), &e) != exclude.end()) continue;
      ++counts[tier(e)];
    }
    for (int t = 0; t < kTiers; ++t) {
      if (counts[t] == 0) continue;
      if (!target.service->client_ip_affinity)
        return choose(target, t, use_blocked, counts[t], now, exclude);
      const Endpoint* e = computed(target, client, t, use_blocked, now, exclude);
      if (e != nullptr) remember(target, client, *e, now);
      return e;
    }
  }
  return nullptr;
}

const Endpoint* Picker::computed(const Snapshot::Target& target, const IpAddr& client, int wanted_tier,
                                 bool use_blocked, TimePoint now,
                                 const std::vector<const Endpoint*>& exclude) const {
  const uint64_t from = mix(std::hash<IpAddr>()(client) + 0x9e3779b97f4a7c15ULL);
  const Endpoint* best = nullptr;
  uint64_t best_weight = 0;
  for (const Endpoint& e : target.port->endpoints) {
    if (tier(e) != wanted_tier || (!use_blocked && blocked(e, now))) continue;
    if (std::find(exclude.begin(), exclude.end(), &e) != exclude.end()) continue;
    uint64_t weight = mix(from ^ EndpointHash()(e));
    if (best != nullptr && weight <= best_weight) continue;
    best = &e;
    best_weight = weight;
  }
  return best;
}

const Endpoint* Picker::sticky(const Snapshot::Target& target, const IpAddr& client, TimePoint now,
                               const std::vector<const Endpoint*>& exclude) {
  auto it = affinity_.find({client, target.service->id << 16 | target.port->index});
  if (it == affinity_.end() || it->second.until <= now) return nullptr;
  for (const Endpoint& e : target.port->endpoints) {
    if (!has_key(e, it->second.endpoint)) continue;
    if (blocked(e, now) || std::find(exclude.begin(), exclude.end(), &e) != exclude.end()) return nullptr;
    it->second.until = now + std::chrono::seconds(target.service->affinity_timeout_s);
    return &e;
  }
  return nullptr;
}

void Picker::remember(const Snapshot::Target& target, const IpAddr& client, const Endpoint& endpoint,
                      TimePoint now) {
  if (affinity_.size() >= kMaxAffinity) {
    std::erase_if(affinity_, [&](const auto& item) { return item.second.until <= now; });
    if (affinity_.size() >= kMaxAffinity) affinity_.clear();
  }
  affinity_[{client, target.service->id << 16 | target.port->index}] = {
      key_of(endpoint), now + std::chrono::seconds(target.service->affinity_timeout_s)};
}

void Picker::on_start(const Endpoint& endpoint) {
  auto it = active_.find(endpoint);
  if (it == active_.end()) {
    if (active_.size() >= kMaxEndpoints)
      std::erase_if(active_, [](const auto& item) { return item.second == 0; });
    it = active_.emplace(key_of(endpoint), 0).first;
  }
  ++it->second;
}

void Picker::on_end(const Endpoint& endpoint) {
  auto it = active_.find(endpoint);
  if (it != active_.end() && it->second > 0) --it->second;
}

void Picker::on_failure(const Endpoint& endpoint) {
  TimePoint now = clock_.now();
  auto it = failures_.find(endpoint);
  if (it == failures_.end()) {
    if (failures_.size() >= kMaxFailures) forget_failures(now);
    if (failures_.size() >= kMaxFailures) failures_.clear();  // that many: it is not the endpoints
    if (failures_.empty()) next_forget_ = now + kRemember;
    it = failures_.try_emplace(key_of(endpoint)).first;
  }
  Failures& f = it->second;
  if (f.in_a_row > 0 && old(f.blocked_until, now)) f = {};
  Duration block = kFirstBlock * (1 << std::min(f.in_a_row, kMaxDoublings));
  ++f.in_a_row;
  f.blocked_until = now + std::min(block, kLongestBlock);
}

void Picker::on_success(const Endpoint& endpoint) {
  if (failures_.empty()) return;
  auto it = failures_.find(endpoint);
  if (it != failures_.end()) failures_.erase(it);
}

// Endpoints that nobody picks any more (their service is gone, nearer ones are back) never succeed:
// what is known of them ends here.
void Picker::forget_failures(TimePoint now) {
  TimePoint next = TimePoint::max();
  std::erase_if(failures_, [&](const auto& item) {
    if (old(item.second.blocked_until, now)) return true;
    next = std::min(next, item.second.blocked_until + kRemember);
    return false;
  });
  next_forget_ = std::max(next, now + kForgetPace);
}

}  // namespace edgemesh::discovery
