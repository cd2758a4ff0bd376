// DnsCluster: the addresses of a cluster's DNS name, asked for again when the answer gets old. A
// look-up that fails changes nothing: the last good answer stays, and the next try comes soon, then
// later and later up to the refresh time. Threads: one loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/function.h"
#include "core/io/loop.h"
#include "core/io/resolver.h"
#include "proxy/model/cluster.h"
#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

// As Resolver::resolve_with_ttl(); never calls back from within.
using DnsLookup = std::function<void(const std::string& name, model::DnsFamily family,
                                     io::Resolver::OnResolved done)>;
// The resolver is borrowed.
DnsLookup lookup_by(io::Resolver& resolver);

class DnsCluster {
 public:
  static constexpr size_t kMaxAddresses = 1024;  // more are left out

  // `on_change` gets the sorted addresses when they differ from what it got before.
  using OnChange = UniqueFunction<void(const std::vector<IpAddr>& addresses)>;
  // Asks in the next turn of the loop.
  DnsCluster(io::Loop& loop, model::DnsOptions options, DnsLookup lookup, uint64_t seed,
             OnChange on_change);
  ~DnsCluster();
  DnsCluster(const DnsCluster&) = delete;
  DnsCluster& operator=(const DnsCluster&) = delete;

  const model::DnsOptions& options() const { return options_; }
  bool answered() const { return answered_; }
  // Of the last look-up; empty when it was good.
  const std::string& error() const { return error_; }

 private:
  void ask();
  void on_answer(Result<std::vector<IpAddr>> result, Duration ttl);
  Duration with_jitter(Duration wait);

  io::Loop& loop_;
  model::DnsOptions options_;
  DnsLookup lookup_;
  Random random_;
  OnChange on_change_;
  io::Timer timer_;
  bool answered_ = false;
  Duration failure_wait_{};
  std::string error_;
  std::vector<IpAddr> addresses_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::proxy
