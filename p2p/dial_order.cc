#include "p2p/dial_order.h"

#include <algorithm>
#include <bit>

namespace edgemesh::p2p {

namespace {

// A shorter common prefix says nothing about the way there.
constexpr int kNearBitsV4 = 16;
constexpr int kNearBitsV6 = 48;

int common_bits(const IpAddr& a, const IpAddr& b) {
  int bits = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    auto differ = static_cast<uint8_t>(a.bytes()[i] ^ b.bytes()[i]);
    bits += std::countl_zero(differ);
    if (differ != 0) break;
  }
  return bits;
}

// -1: this machine has no address of the family.
int nearness(const IpAddr& ip, const std::vector<IpAddr>& own) {
  int best = -1;
  for (const IpAddr& mine : own) {
    if (mine.is_v6() != ip.is_v6()) continue;
    int bits = common_bits(ip, mine);
    best = std::max(best, bits >= (ip.is_v6() ? kNearBitsV6 : kNearBitsV4) ? bits : 0);
  }
  return best;
}

}  // namespace

std::vector<SockAddr> dial_order(const std::vector<SockAddr>& peer, const std::vector<IpAddr>& own,
                                 const SockAddr& last) {
  struct Ranked {
    SockAddr addr;
    int near;
  };
  std::vector<Ranked> ranked;
  ranked.reserve(peer.size());
  for (const SockAddr& addr : peer)
    ranked.push_back({addr, last.port != 0 && addr == last ? 1000 : nearness(addr.ip, own)});
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const Ranked& a, const Ranked& b) { return a.near > b.near; });
  std::vector<SockAddr> out;
  bool v6 = !ranked.empty() && ranked.front().addr.ip.is_v6();
  while (!ranked.empty() && out.size() < kMaxDialAddresses) {
    auto next = std::find_if(ranked.begin(), ranked.end(), [v6](const Ranked& r) {
      return r.addr.ip.is_v6() == v6 && r.near >= 0;
    });
    if (next == ranked.end()) next = ranked.begin();
    if (std::find(out.begin(), out.end(), next->addr) == out.end()) out.push_back(next->addr);
    ranked.erase(next);
    v6 = !v6;
  }
  return out;
}

}  // namespace edgemesh::p2p
