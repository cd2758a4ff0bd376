// RouteTable: a RouteConfig made ready to be asked. Immutable and thread-safe; asking takes no lock
// and allocates nothing.
//
// A table shares with the one before it the hosts that did not change (compared by pointer, so the
// configuration must keep their objects) and the parts of the look-up that they alone are in: a
// change to one host of 10,000 compiles one. What a policy counts (tokens of a rate limit) lives on
// in a host that changed, as long as the policy is the same.
//
// Look-up of a host: exact name, the longest "*suffix", the longest "prefix*", "*". Names compare
// without case. The port is a part of the name unless ignore_port. Within a host the first route
// that matches counts; hosts with many routes have an index by path.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/result.h"
#include "proxy/model/route.h"
#include "proxy/route/matchers.h"
#include "proxy/route/mutations.h"
#include "proxy/route/policies.h"
#include "proxy/route/retry.h"
#include "proxy/route/rewrite.h"

namespace edgemesh::proxy {

class CompiledHost;

// What the process counts of a route, hung on it when its first request ended. Thread-safe.
class RouteNote {
 public:
  RouteNote() = default;
  RouteNote(RouteNote&& other) noexcept : note_(other.note_.exchange(nullptr)) {}
  RouteNote& operator=(RouteNote&&) = delete;
  ~RouteNote() { delete note_.load(); }
  void* get() const {
    const auto* note = note_.load(std::memory_order_acquire);
    return note != nullptr ? note->get() : nullptr;
  }
  std::shared_ptr<void> share() const {
    const auto* note = note_.load(std::memory_order_acquire);
    return note != nullptr ? *note : nullptr;
  }
  // The first one stays.
  void set(std::shared_ptr<void> note) const {
    auto made = std::make_unique<std::shared_ptr<void>>(std::move(note));
    std::shared_ptr<void>* none = nullptr;
    if (note_.compare_exchange_strong(none, made.get(), std::memory_order_acq_rel))
      static_cast<void>(made.release());
  }

 private:
  mutable std::atomic<std::shared_ptr<void>*> note_{nullptr};
};

// A route, compiled. It lives as long as its host: a request keeps a CompiledHostPtr.
struct RouteEntry {
  const model::Route* route = nullptr;
  const CompiledHost* host = nullptr;
  RequestMatcher matcher;
  MutationsPtr request_headers, response_headers;  // null: none
  std::unique_ptr<const Rewriter> rewriter;        // null: none
  std::unique_ptr<const Redirector> redirector;    // of a Redirect
  // The route's, else the host's; null: none.
  std::shared_ptr<const RetryRules> retry;
  // Of the route's own, filled up from the host's; null: those of the listener count.
  std::shared_ptr<const Policies> policies;
  struct ClusterMutations {
    MutationsPtr request, response;
  };
  std::vector<ClusterMutations> clusters;  // as Forward::clusters; empty: none has any
  RouteNote note;  // goes on in a host that changed

  const model::Forward* forward() const { return std::get_if<model::Forward>(&route->action); }
  // Index into forward()->clusters, by weight.
  size_t pick_cluster(uint64_t random) const;
};

class CompiledHost : public std::enable_shared_from_this<CompiledHost> {
 public:
  static Result<std::shared_ptr<const CompiledHost>> make(model::VirtualHostPtr spec,
                                                          const CompiledHost* previous);
  const RouteEntry* match(const Head& head, const Facts& facts) const;
  const model::VirtualHost& spec() const { return *spec_; }
  const Mutations* request_headers() const { return request_headers_.get(); }
  const Mutations* response_headers() const { return response_headers_.get(); }
  const std::vector<RouteEntry>& routes() const { return routes_; }

 private:
  // Routes of the version before, by former_key(): looking for one must not cost a walk over all.
  using Former = std::unordered_map<uint64_t, std::vector<const RouteEntry*>>;
  static uint64_t former_key(const model::Route& route);
  Result<> add_route(const model::Route& route, const Former& former,
                     const std::shared_ptr<const RetryRules>& retry);
  void build_index();
  model::VirtualHostPtr spec_;
  std::vector<RouteEntry> routes_;
  MutationsPtr request_headers_, response_headers_;
  // Routes whose path begins with a text, by that text's hash (its length is a part of it); other_
  // are those that must be looked at for every path. Numbers ascend.
  std::unordered_map<uint64_t, std::vector<uint32_t>> by_prefix_;
  std::vector<uint32_t> lengths_;
  std::vector<uint32_t> other_;
};
using CompiledHostPtr = std::shared_ptr<const CompiledHost>;

class RouteTable {
 public:
  // Errors: a regex that does not compile, a domain twice, a field that may not be set. `previous`
  // may be null.
  static Result<std::shared_ptr<const RouteTable>> build(model::RouteConfigPtr config,
                                                         const RouteTable* previous);
  // Null: no such host. Hold it (shared_from_this) while one of its entries is in use.
  const CompiledHost* find_host(std::string_view authority) const;
  // Null: no host or no route.
  const RouteEntry* match(const Head& head, const Facts& facts) const;
  // The configuration's own, and those of host and route, in the order that it asks for.
  void apply_request(const RouteEntry& entry, Head* head, const LogFacts& facts) const;
  void apply_response(const RouteEntry& entry, Head* head, const LogFacts& facts) const;
  const model::RouteConfig& config() const { return *config_; }
  const std::vector<CompiledHostPtr>& hosts() const { return hosts_; }

 private:
  static constexpr size_t kShards = 256;
  static constexpr size_t kMaxDomain = 255;
  enum Kind : uint8_t { kExact, kSuffix, kPrefix };
  struct Item {
    const CompiledHost* host;
    uint32_t domain;  // of its spec
  };
  using Shard = std::unordered_multimap<uint64_t, Item>;
  struct Lookup;

  Result<> take_hosts(const RouteTable* previous);
  Result<> index_host(const CompiledHost& host, std::array<bool, kShards>& own);
  void forget_host(const CompiledHost& host, std::array<bool, kShards>& own);
  Shard& own_shard(size_t at, std::array<bool, kShards>& own);
  const CompiledHost* find(Kind kind, std::string_view name) const;
  static std::string_view split_domain(std::string_view domain, Kind* kind);
  void note_lengths();

  model::RouteConfigPtr config_;
  std::vector<CompiledHostPtr> hosts_;
  std::array<std::shared_ptr<Shard>, kShards> shards_;
  std::array<std::array<uint32_t, kMaxDomain + 1>, 3> count_{};  // domains by kind and length
  std::vector<uint8_t> lengths_[3];                              // descending
  const CompiledHost* any_ = nullptr;
  MutationsPtr request_headers_, response_headers_;
};

}  // namespace edgemesh::proxy
