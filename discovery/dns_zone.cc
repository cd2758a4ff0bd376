#include "discovery/dns_zone.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

namespace edgemesh::discovery::dns {

namespace {

using Section = Writer::Section;

constexpr int kMaxAliases = 8;
constexpr uint16_t kSrvWeight = 100;
constexpr std::string_view kSpecVersion = "\x05" "1.1.0";  // a TXT string with its length

bool equal_ignoring_case(std::string_view lower_case, std::string_view other) {
  return lower_case.size() == other.size() &&
         std::equal(other.begin(), other.end(), lower_case.begin(), [](char a, char b) {
           return (a >= 'A' && a <= 'Z' ? static_cast<char>(a + 32) : a) == b;
         });
}

// "10-1-2-3" and "fd00--1": the name of a pod that has no host name.
std::string_view dashed(const IpAddr& ip, std::span<char, INET6_ADDRSTRLEN> buffer) {
  if (inet_ntop(ip.is_v6() ? AF_INET6 : AF_INET, ip.bytes(), buffer.data(), INET6_ADDRSTRLEN) == nullptr)
    return {};
  std::string_view text(buffer.data());
  for (size_t i = 0; i < text.size(); ++i)
    if (buffer[i] == '.' || buffer[i] == ':') buffer[i] = '-';
  return text;
}

bool has_label(const Endpoint& endpoint, std::string_view label) {
  if (!endpoint.hostname.empty()) return equal_ignoring_case(label, endpoint.hostname.str());
  char buffer[INET6_ADDRSTRLEN];
  return dashed(endpoint.addr.ip, buffer) == label;
}

// Calls visit(endpoint) for each ready endpoint of a headless service, once an address and node. The
// ports of a service mostly list the same addresses in the same order, which makes the check cheap.
template <class Visit>
void each_address(const ServiceEntry& service, uint32_t turn, Visit visit) {
  auto seen_before = [&](size_t port, size_t at, const IpAddr& ip) {
    for (size_t p = 0; p < port; ++p) {
      const auto& list = service.ports[p].endpoints;
      if (at < list.size() && list[at].addr.ip == ip && list[at].ready) return true;
      for (const Endpoint& e : list)
        if (e.addr.ip == ip && e.ready) return true;
    }
    return false;
  };
  auto walk = [&](const std::vector<Endpoint>& list, size_t port) {
    for (size_t i = 0; i < list.size(); ++i) {
      size_t at = (i + turn) % list.size();
      if (list[at].ready && !seen_before(port, at, list[at].addr.ip)) visit(list[at]);
    }
  };
  walk(service.portless_endpoints, 0);
  for (size_t p = 0; p < service.ports.size(); ++p) walk(service.ports[p].endpoints, p);
}

bool wants(uint16_t type, const IpAddr& ip) { return type == (ip.is_v6() ? kAaaa : kA); }

bool same_protocol(std::string_view label, std::string_view protocol) {
  return !label.empty() && label[0] == '_' && equal_ignoring_case(label.substr(1), protocol);
}

}  // namespace

Zone::Zone(const Name& domain, uint32_t ttl_s, std::vector<IpAddr> servers)
    : domain_(domain),
      reverse_v4_(*Name::parse("in-addr.arpa")),
      reverse_v6_(*Name::parse("ip6.arpa")),
      ttl_(ttl_s),
      servers_(std::move(servers)) {}

Zone::Outcome Zone::answer(const Query& query, const Snapshot* snapshot, Writer& out, Name& chase) {
  if (!query.name.ends_with(domain_)) {
    auto ip = reverse_address(query.name);
    return ip ? reverse(query, *ip, snapshot, out) : Outcome::kForward;
  }
  if (snapshot == nullptr) {
    out.set_rcode(kServFail);
    return Outcome::kAnswered;
  }
  out.set_authoritative();
  ++turn_;
  Name name = query.name;
  uint16_t owner = Writer::kQuestion;
  for (int i = 0; i < kMaxAliases; ++i) {
    Name alias;
    Found found = find({*snapshot, name, query.type, out, owner}, alias, owner);
    if (found == Found::kAlias) {
      if (out.truncated() || (query.type != kA && query.type != kAaaa)) return Outcome::kAnswered;
      if (!alias.ends_with(domain_)) {
        chase = alias;
        return Outcome::kChase;
      }
      name = alias;
      continue;
    }
    if (found == Found::kNoName) out.set_rcode(kNxDomain);
    bool empty = out.count(Section::kAnswer) == i;  // nothing but the aliases
    if (empty && !out.truncated())
      out.soa(Section::kAuthority, domain_, ttl_, static_cast<uint32_t>(snapshot->version()));
    return Outcome::kAnswered;
  }
  out.set_rcode(kServFail);  // aliases in a circle
  return Outcome::kAnswered;
}

// The labels in front of the domain: none, svc, <ns>.svc, <service>.<ns>.svc, and below services.
Zone::Found Zone::find(const Lookup& l, Name& alias, uint16_t& alias_at) {
  size_t front = l.name.labels - domain_.labels;
  if (front == 0) return find_apex(l);
  std::string_view last = l.name.label(front - 1);
  if (front == 1 && last == "dns-version") {
    if (l.type == kTxt) l.out.text(Section::kAnswer, l.owner, kTxt, ttl_, kSpecVersion);
    return Found::kName;
  }
  if (last == "dns" && front <= 2) {
    if (front == 1) return Found::kName;
    if (l.name.label(0) != "ns") return Found::kNoName;
    for (const IpAddr& ip : servers_)
      if (wants(l.type, ip)) l.out.address(Section::kAnswer, l.owner, ttl_, ip);
    return Found::kName;
  }
  if (last != "svc") return Found::kNoName;
  if (front == 1) return Found::kName;
  if (front == 2) return l.snapshot.has_namespace(l.name.label(0)) ? Found::kName : Found::kNoName;
  return find_service(l, front - 3, alias, alias_at);
}

Zone::Found Zone::find_apex(const Lookup& l) {
  if (l.type == kSoa)
    l.out.soa(Section::kAnswer, domain_, ttl_, static_cast<uint32_t>(l.snapshot.version()));
  if (l.type == kNs)
    if (auto server = Name::join({"ns", "dns"}, domain_))
      l.out.name_record(Section::kAnswer, l.owner, kNs, ttl_, *server);
  return Found::kName;
}

// `below`: how many labels stand in front of the service's.
Zone::Found Zone::find_service(const Lookup& l, size_t below, Name& alias, uint16_t& alias_at) {
  const ServiceEntry* service = l.snapshot.by_name(l.name.label(below + 1), l.name.label(below));
  if (service == nullptr) return Found::kNoName;
  if (!service->external_name.empty()) {
    auto target = Name::parse(service->external_name);
    if (below > 0) return Found::kNoName;
    if (!target) return Found::kName;
    alias = *target;
    l.out.name_record(Section::kAnswer, l.owner, kCname, ttl_, alias, &alias_at);
    return l.type == kCname ? Found::kName : Found::kAlias;
  }
  if (service->headless) {
    bool any = false;
    each_address(*service, 0, [&](const Endpoint&) { any = true; });
    if (!any) return Found::kNoName;
  }
  if (below > 0) return find_below_service(l, *service, below);
  if (l.type == kA || l.type == kAaaa) add_addresses(l, *service);
  if (l.type == kSrv)
    for (const Port& port : service->ports)
      if (!port.name.empty()) add_srv(l, *service, port);
  return Found::kName;
}

Zone::Found Zone::find_below_service(const Lookup& l, const ServiceEntry& service, size_t below) {
  if (below > 2) return Found::kNoName;
  if (below == 2) return find_srv(l, service, l.name.label(0), l.name.label(1));
  std::string_view label = l.name.label(0);
  for (const Port& port : service.ports)
    if (!port.name.empty() && same_protocol(label, port.protocol)) return Found::kName;
  return service.headless ? find_pod(l, service, label) : Found::kNoName;
}

Zone::Found Zone::find_srv(const Lookup& l, const ServiceEntry& service, std::string_view port,
                           std::string_view protocol) {
  for (const Port& p : service.ports) {
    if (p.name.empty() || !same_protocol(protocol, p.protocol)) continue;
    if (port.empty() || port[0] != '_' || !equal_ignoring_case(port.substr(1), p.name)) continue;
    if (l.type == kSrv) add_srv(l, service, p);
    return Found::kName;
  }
  return Found::kNoName;
}

Zone::Found Zone::find_pod(const Lookup& l, const ServiceEntry& service, std::string_view label) {
  bool any = false;
  each_address(service, 0, [&](const Endpoint& e) {
    if (!has_label(e, label)) return;
    any = true;
    // Pods of two sites may share an address; by different host names they are found both.
    if (e.same_ip && e.hostname.empty()) return;
    if (wants(l.type, e.addr.ip)) l.out.address(Section::kAnswer, l.owner, ttl_, e.addr.ip);
  });
  return any ? Found::kName : Found::kNoName;
}

void Zone::add_addresses(const Lookup& l, const ServiceEntry& service) {
  if (!service.headless) {
    for (const IpAddr& ip : service.vips)
      if (wants(l.type, ip)) l.out.address(Section::kAnswer, l.owner, ttl_, ip);
    return;
  }
  each_address(service, turn_, [&](const Endpoint& e) {
    if (!e.same_ip && wants(l.type, e.addr.ip))
      l.out.address(Section::kAnswer, l.owner, ttl_, e.addr.ip);
  });
}

std::optional<Name> Zone::name_of(const ServiceEntry& service, const Endpoint* endpoint) const {
  if (endpoint == nullptr) return Name::join({service.name, service.ns, "svc"}, domain_);
  char buffer[INET6_ADDRSTRLEN];
  std::string_view label =
      endpoint->hostname.empty() ? dashed(endpoint->addr.ip, buffer) : std::string_view(endpoint->hostname.str());
  return Name::join({label, service.name, service.ns, "svc"}, domain_);
}

void Zone::add_srv(const Lookup& l, const ServiceEntry& service, const Port& port) {
  // The targets' addresses follow in the additional section, after all SRV records.
  constexpr size_t kMaxExtra = 64;
  struct Extra {
    uint16_t owner;
    const IpAddr* ip;
  };
  std::array<Extra, kMaxExtra> extras;
  size_t extra = 0;
  uint16_t at = 0;
  if (!service.headless) {
    auto target = name_of(service, nullptr);
    if (!target || !l.out.srv(l.owner, ttl_, 0, kSrvWeight, port.port, *target, &at)) return;
    for (const IpAddr& ip : service.vips)
      if (extra < kMaxExtra) extras[extra++] = {at, &ip};
  } else {
    size_t n = std::max<size_t>(port.endpoints.size(), 1);
    auto weight = static_cast<uint16_t>(std::max<size_t>(kSrvWeight / n, 1));
    // A pod with a host name and two addresses is one target.
    auto is_twin = [&](const Endpoint& e) {
      return e.addr.ip.is_v6() && !e.hostname.empty() &&
             std::any_of(port.endpoints.begin(), port.endpoints.end(), [&](const Endpoint& other) {
               return other.ready && !other.addr.ip.is_v6() && other.addr.port == e.addr.port &&
                      other.hostname == e.hostname;
             });
    };
    for (const Endpoint& e : port.endpoints) {
      if (!e.ready || is_twin(e) || (e.same_ip && e.hostname.empty())) continue;
      auto target = name_of(service, &e);
      if (!target || !l.out.srv(l.owner, ttl_, 0, weight, e.addr.port, *target, &at)) continue;
      if (extra < kMaxExtra && at < 0x4000) extras[extra++] = {at, &e.addr.ip};
    }
  }
  if (l.name.labels - domain_.labels == 3) return;  // more ports follow in the answer section
  for (size_t i = 0; i < extra; ++i)
    l.out.address(Section::kAdditional, extras[i].owner, ttl_, *extras[i].ip);
}

Zone::Outcome Zone::reverse(const Query& query, const IpAddr& ip, const Snapshot* snapshot, Writer& out) {
  bool ours = std::any_of(cidrs_.begin(), cidrs_.end(), [&](const Cidr& c) { return c.contains(ip); });
  if (snapshot == nullptr) {
    if (!ours) return Outcome::kForward;
    out.set_rcode(kServFail);
    return Outcome::kAnswered;
  }
  std::optional<Name> name;
  if (const ServiceEntry* service = snapshot->by_vip(ip))
    name = name_of(*service, nullptr);
  else if (auto pod = snapshot->by_endpoint_ip(ip))
    name = name_of(*pod->service, pod->endpoint);
  if (!name && !ours) return Outcome::kForward;
  out.set_authoritative();
  if (!name) out.set_rcode(kNxDomain);
  if (name && query.type == kPtr)
    out.name_record(Section::kAnswer, Writer::kQuestion, kPtr, ttl_, *name);
  else
    out.soa(Section::kAuthority, ip.is_v6() ? reverse_v6_ : reverse_v4_, ttl_,
            static_cast<uint32_t>(snapshot->version()));
  return Outcome::kAnswered;
}

std::optional<IpAddr> reverse_address(const Name& name) {
  if (name.labels < 2 || name.label(name.labels - 1u) != "arpa") return std::nullopt;
  std::string_view zone = name.label(name.labels - 2u);
  if (zone == "in-addr" && name.labels == 6) {
    uint8_t bytes[4];
    for (size_t i = 0; i < 4; ++i) {
      std::string_view label = name.label(3 - i);
      unsigned value = 0;
      if (label.empty() || label.size() > 3 || (label.size() > 1 && label[0] == '0')) return std::nullopt;
      for (char c : label) {
        if (c < '0' || c > '9') return std::nullopt;
        value = value * 10 + static_cast<unsigned>(c - '0');
      }
      if (value > 255) return std::nullopt;
      bytes[i] = static_cast<uint8_t>(value);
    }
    return IpAddr::v4(bytes);
  }
  if (zone != "ip6" || name.labels != 34) return std::nullopt;
  uint8_t bytes[16] = {};
  for (size_t i = 0; i < 32; ++i) {
    std::string_view label = name.label(31 - i);
    if (label.size() != 1) return std::nullopt;
    char c = label[0];
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    bytes[i / 2] = static_cast<uint8_t>(bytes[i / 2] << 4 | digit);
  }
  return IpAddr::v6(bytes);
}

}  // namespace edgemesh::discovery::dns
