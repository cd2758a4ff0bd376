#include "proxy/listener/chain_match.h"

#include <algorithm>

#include "core/http/message.h"

namespace edgemesh::proxy {

namespace {

using model::ChainMatch;

// How well a criterion fits: more is more specific; 0: it asks for nothing; -1: it does not fit.
constexpr int kNo = -1, kAny = 0;

int fit_cidrs(const std::vector<Cidr>& cidrs, const IpAddr& ip) {
  if (cidrs.empty()) return kAny;
  int best = kNo;
  for (const Cidr& cidr : cidrs)
    if (cidr.contains(ip)) best = std::max(best, cidr.bits + 1);
  return best;
}

int fit_port(const ChainMatch& match, const ChainFacts& facts) {
  if (match.destination_port == 0) return kAny;
  return match.destination_port == facts.destination.port ? 1 : kNo;
}

int fit_name(const ChainMatch& match, const ChainFacts& facts) {
  if (match.server_names.empty()) return kAny;
  int best = kNo;
  for (const std::string& name : match.server_names) {
    if (!name.starts_with("*.")) {
      if (http::equals_ignore_case(name, facts.server_name)) return 1 << 20;
      continue;
    }
    const std::string_view suffix = std::string_view(name).substr(1);
    const std::string_view asked = facts.server_name;
    if (asked.size() > suffix.size() &&
        http::equals_ignore_case(asked.substr(asked.size() - suffix.size()), suffix))
      best = std::max(best, static_cast<int>(suffix.size()));
  }
  return best;
}

int fit_transport(const ChainMatch& match, const ChainFacts& facts) {
  if (match.transport == ChainMatch::Transport::kAny) return kAny;
  return (match.transport == ChainMatch::Transport::kTls) == facts.tls ? 1 : kNo;
}

int fit_protocols(const ChainMatch& match, const ChainFacts& facts) {
  if (match.application_protocols.empty()) return kAny;
  for (const std::string& wanted : match.application_protocols)
    if (std::find(facts.protocols.begin(), facts.protocols.end(), wanted) != facts.protocols.end())
      return 1;
  return kNo;
}

int fit_source_type(const ChainMatch& match, const ChainFacts& facts) {
  if (match.source_type == ChainMatch::SourceType::kAny) return kAny;
  const bool local = facts.source.ip.is_loopback() || facts.source.ip == facts.destination.ip;
  return (match.source_type == ChainMatch::SourceType::kLocal) == local ? 1 : kNo;
}

int fit_source_port(const ChainMatch& match, const ChainFacts& facts) {
  if (match.source_ports.empty()) return kAny;
  const auto& ports = match.source_ports;
  return std::find(ports.begin(), ports.end(), facts.source.port) != ports.end() ? 1 : kNo;
}

int fit(int criterion, const ChainMatch& match, const ChainFacts& facts) {
  switch (criterion) {
    case 0: return fit_port(match, facts);
    case 1: return fit_cidrs(match.destinations, facts.destination.ip);
    case 2: return fit_name(match, facts);
    case 3: return fit_transport(match, facts);
    case 4: return fit_protocols(match, facts);
    case 5: return fit_cidrs(match.direct_sources, facts.direct.ip);
    case 6: return fit_source_type(match, facts);
    case 7: return fit_cidrs(match.sources, facts.source.ip);
    default: return fit_source_port(match, facts);
  }
}
constexpr int kCriteria = 9;

}  // namespace

int match_chain(std::span<const model::FilterChainPtr> chains, const ChainFacts& facts) {
  thread_local std::vector<int> left;
  left.clear();
  for (size_t i = 0; i < chains.size(); ++i) left.push_back(static_cast<int>(i));
  for (int criterion = 0; criterion < kCriteria && !left.empty(); ++criterion) {
    int best = kNo;
    thread_local std::vector<int> fits;
    fits.clear();
    for (const int i : left) {
      fits.push_back(fit(criterion, chains[static_cast<size_t>(i)]->match, facts));
      best = std::max(best, fits.back());
    }
    if (best == kNo) return -1;
    size_t kept = 0;
    for (size_t i = 0; i < left.size(); ++i)
      if (fits[i] == best) left[kept++] = left[i];
    left.resize(kept);
  }
  return left.empty() ? -1 : left.front();
}

bool needs_tls_inspection(const model::Listener& listener) {
  if (listener.tls_inspector) return true;
  for (const auto& chain : listener.chains) {
    const ChainMatch& match = chain->match;
    if (!match.server_names.empty() || match.transport != ChainMatch::Transport::kAny ||
        !match.application_protocols.empty())
      return true;
    if (chain->tls.get() != nullptr && !chain->tls->more.empty()) return true;
  }
  return false;
}

bool needs_http_inspection(const model::Listener& listener) {
  if (listener.http_inspector) return true;
  return std::any_of(listener.chains.begin(), listener.chains.end(), [](const auto& chain) {
    return !chain->match.application_protocols.empty();
  });
}

}  // namespace edgemesh::proxy
