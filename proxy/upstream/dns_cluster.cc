#include "proxy/upstream/dns_cluster.h"

#include <algorithm>

#include "core/base/log.h"

namespace edgemesh::proxy {

DnsLookup lookup_by(io::Resolver& resolver) {
  return
      [&resolver](const std::string& name, model::DnsFamily family, io::Resolver::OnResolved done) {
        auto asked = io::Resolver::Family::kAny;
        if (family == model::DnsFamily::kV4) asked = io::Resolver::Family::kV4;
        if (family == model::DnsFamily::kV6) asked = io::Resolver::Family::kV6;
        resolver.resolve_with_ttl(name, asked, std::move(done));
      };
}

DnsCluster::DnsCluster(io::Loop& loop, model::DnsOptions options, DnsLookup lookup, uint64_t seed,
                       OnChange on_change)
    : loop_(loop),
      options_(std::move(options)),
      lookup_(std::move(lookup)),
      random_(seed ^ hash64(options_.host)),
      on_change_(std::move(on_change)),
      timer_(loop, [this] { ask(); }),
      failure_wait_(options_.failure_refresh) {
  timer_.start(Duration::zero());
}

DnsCluster::~DnsCluster() {
  *alive_ = false;
}

void DnsCluster::ask() {
  lookup_(options_.host, options_.family,
          [this, alive = alive_](Result<std::vector<IpAddr>> result, Duration ttl) {
            if (*alive) on_answer(std::move(result), ttl);
          });
}

// Later by up to the jitter, so that many names (and agents) do not ask all at once.
Duration DnsCluster::with_jitter(Duration wait) {
  return wait + Duration(static_cast<int64_t>(static_cast<double>(wait.count()) *
                                              options_.jitter_percent / 100 * random_.unit()));
}

void DnsCluster::on_answer(Result<std::vector<IpAddr>> result, Duration ttl) {
  if (!result) {
    if (error_.empty())
      EM_LOG(kWarn, "upstream", "look-up of {}: {}{}", options_.host, result.error().message,
             answered_ ? "; the last answer stays" : "");
    error_ = result.error().message;
    timer_.start(with_jitter(failure_wait_));
    failure_wait_ =
        std::min(failure_wait_ * 2, std::max(options_.refresh, options_.failure_refresh));
    return;
  }
  error_.clear();
  failure_wait_ = options_.failure_refresh;
  Duration wait = options_.refresh;
  if (options_.respect_ttl && ttl > Duration::zero())
    wait = std::clamp(ttl, options_.min_ttl, options_.max_ttl);
  timer_.start(with_jitter(wait));

  auto addresses = std::move(*result);
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  if (addresses.size() > kMaxAddresses) addresses.resize(kMaxAddresses);
  const bool changed = !answered_ || addresses != addresses_;
  answered_ = true;
  if (!changed) return;
  addresses_ = std::move(addresses);
  on_change_(addresses_);  // may destroy this
}

}  // namespace edgemesh::proxy
