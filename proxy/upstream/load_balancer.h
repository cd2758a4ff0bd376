// ClusterState: a cluster as one worker sees it: which endpoint a request goes to, and whether the
// limits let it go at all.
//
// Choice, in the order that Envoy documents:
//   subset      by the request's labels, else the fallback
//   priority    priority 0 takes all while its healthy share times the overprovisioning factor is
//   100 %
//               or more; what is missing spills over to the next, and so on; degraded ones come
//               after
//   panic       when all priorities together cannot reach 100 % and a priority's usable share is
//   under
//               the threshold, all its endpoints are used, ill or not
//   locality    with weights: a locality in proportion to weight times its usable share
//   policy      round robin (as even as weights allow), random, least request (the best of a few
//   that
//               were drawn by weight, compared by open requests per weight), ring hash, Maglev
// An endpoint in slow start counts less. A retry passes over the hosts in `tried` where another one
// is left.
//
// pick() allocates nothing in the steady state and costs O(1), O(log n) with unequal weights. After
// a change of health the next pick looks at all endpoints of its subset once (O(n)).
//
// Limits (circuit breakers) hold for the process: shared atomics, exact for connections, pending
// requests and retries. Open requests are taken from the shared count in small batches when the
// limit is large (1/256 of it, at most 16), so that workers seldom touch the same cache line: the
// limit is never passed, but a worker may refuse while others hold back up to two batches each.
// Threads: the worker's loop.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/base/clock.h"
#include "proxy/upstream/affinity.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/host_set.h"
#include "proxy/upstream/schedule.h"

namespace edgemesh::proxy {

struct PickContext {
  bool has_hash = false;
  uint64_t hash = 0;                      // ring hash, Maglev
  std::span<const LabelView> labels;      // subset, sorted by key
  const IpAddr* client = nullptr;         // affinity
  const SockAddr* destination = nullptr;  // original destination
  std::span<const Host* const> tried;     // by earlier attempts of this request
};

class ClusterState {
 public:
  // `worker` is this worker's number, 0 to workers - 1 of the set. Held by ClusterRef.
  static ClusterRef create(std::shared_ptr<const HostSet> set, int worker,
                           Clock& clock = system_clock(), uint64_t seed = 0);

  const model::Cluster& config() const { return set_->cluster(); }
  const std::string& name() const { return set_->cluster().name; }
  const HostSet& set() const { return *set_; }
  SharedCluster& shared() const { return *shared_; }
  ClusterStats& stats() const { return stats_; }
  int worker() const { return worker_; }
  Clock& clock() const { return clock_; }
  const std::vector<HostRef>& hosts() const { return hosts_; }
  bool retired() const { return retired_; }
  // What telemetry counts of it on this worker; null: nothing yet.
  const std::shared_ptr<void>& note() const { return note_; }
  void set_note(std::shared_ptr<void> note) { note_ = std::move(note); }

  // The endpoints or the configuration changed. Hosts whose address stays are kept with all they
  // hold.
  void update(std::shared_ptr<const HostSet> set);
  // The cluster was removed: hosts are told, nothing more is picked. Required before the last ref
  // goes.
  void retire();

  // Null: none can be used. Valid until update(); a HostRef keeps it longer.
  Host* pick(const PickContext& context);

  // Limits. What was taken is given back with the same arguments.
  bool take_connection(model::RequestPriority priority);
  void force_connection(model::RequestPriority priority);  // counts it, whatever the limit
  void give_connection(model::RequestPriority priority);
  bool take_pending(model::RequestPriority priority);
  void give_pending(model::RequestPriority priority);
  bool take_retry(model::RequestPriority priority);
  void give_retry(model::RequestPriority priority);

 private:
  friend class LocalRef<ClusterState>;
  friend class RequestTicket;

  enum Kind : uint8_t { kHealthy, kDegraded, kAll, kKinds };
  // Hosts among which one is chosen by the policy.
  struct Bucket {
    std::vector<Host*> hosts;
    bool equal = true;  // all weigh the same, now and later
    uint32_t turn = 0;
    TurnQueue turns;    // round robin, unequal
    WeightedDraw draw;  // random and least request, unequal
  };
  struct LocalityState {
    double weight = 1;
    double effective[2] = {};  // by kind, without kAll
    Bucket buckets[2];
  };
  struct Level {
    uint32_t total = 0;
    bool panic = false;
    Bucket buckets[kKinds];
    std::vector<LocalityState> localities;
    TurnQueue locality_turns[2];
  };
  struct SubsetState {
    std::vector<Level> levels;
    std::vector<uint8_t> load[2];  // percent of the requests by kind and level
    uint32_t epoch = 0;
    TimePoint slow_until{};  // a host is in slow start until then
  };
  struct Credit {
    uint32_t have = 0;
  };

  ClusterState(std::shared_ptr<const HostSet> set, int worker, Clock& clock, uint64_t seed);
  ~ClusterState();
  void ref() { ++refs_; }
  void unref() {
    if (--refs_ == 0) delete this;
  }

  // cluster_hosts.cc: lists, loads.
  void adopt_hosts(const HostSet* before);
  SubsetState& subset_state(int index);
  void refresh(SubsetState& state, int index);
  void fill(Level& level, const HostSet::Group& group);
  void fill_localities(Level& level, const HostSet::Group& group);
  void prepare(Bucket& bucket, TimePoint now, SubsetState& state);
  void share_loads(SubsetState& state) const;
  void share_by_size(SubsetState& state) const;
  static bool is_kind(const Host& host, Kind kind);
  double weight_of(const Host& host, TimePoint now) const;
  bool is_fresh(const Host& host, TimePoint now) const;
  double slow_factor(const Host& host, TimePoint now) const;
  void note_health();

  // load_balancer.cc: choosing.
  int choose_subset(const PickContext& context);
  struct Chosen {
    Level* level = nullptr;
    uint32_t index = 0;
    Kind kind = kHealthy;
  };
  Chosen choose_level(SubsetState& state, uint64_t key);
  Host* choose_host(const SubsetState& state, int subset, const Chosen& chosen,
                    const PickContext& context);
  Host* walk(const HostSet::Group& group, const Bucket& bucket, Kind kind,
             const PickContext& context);
  Host* choose_from(Bucket& bucket);
  Host* least_request(Bucket& bucket);
  Host* draw(Bucket& bucket, TimePoint now);
  Bucket& bucket_of(const Chosen& chosen);
  Host* untried(const SubsetState& state, const PickContext& context);
  Host* sticky(int subset, SubsetState& state, const PickContext& context);
  Host* original_destination(const SockAddr& addr);

  bool take_request(model::RequestPriority priority);
  void give_request(model::RequestPriority priority);
  uint32_t request_batch(model::RequestPriority priority) const;

  uint32_t refs_ = 0;
  int worker_;
  bool retired_ = false;
  Clock& clock_;
  Random random_;
  std::shared_ptr<const HostSet> set_;
  std::shared_ptr<SharedCluster> shared_;
  ClusterStats& stats_;
  std::vector<HostRef> hosts_;                         // by index of the set's entries
  std::vector<std::unique_ptr<SubsetState>> subsets_;  // made when first used
  uint32_t noted_epoch_ = 0;
  AffinityTable affinity_;
  std::unordered_map<SockAddr, HostRef> original_;  // hosts that no set lists
  Credit credit_[2];
  std::shared_ptr<void> note_;
};

// An open request: counts against the limits and for the host, for as long as it lives.
class RequestTicket {
 public:
  RequestTicket() = default;
  // Not valid when the limit is reached.
  static RequestTicket take(Host& host, model::RequestPriority priority);
  RequestTicket(RequestTicket&& other) noexcept
      : host_(std::move(other.host_)), priority_(other.priority_) {}
  RequestTicket& operator=(RequestTicket&& other) noexcept {
    std::swap(host_, other.host_);
    std::swap(priority_, other.priority_);
    return *this;
  }
  ~RequestTicket();
  explicit operator bool() const { return static_cast<bool>(host_); }
  Host* host() const { return host_.get(); }

 private:
  HostRef host_;
  model::RequestPriority priority_ = model::RequestPriority::kDefault;
};

}  // namespace edgemesh::proxy
