// Parts for the DNS tests: queries as bytes, answers as text, and a small cluster.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "discovery/dns_wire.h"
#include "discovery/registry.h"

namespace edgemesh::discovery::testing_parts {

using Bytes = std::vector<uint8_t>;

inline Bytes raw_query(std::string_view name, uint16_t type, uint16_t klass = 1) {
  Bytes q = {0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0};
  while (!name.empty()) {
    size_t dot = name.find('.');
    std::string_view label = name.substr(0, dot);
    q.push_back(static_cast<uint8_t>(label.size()));
    q.insert(q.end(), label.begin(), label.end());
    name = dot == std::string_view::npos ? std::string_view() : name.substr(dot + 1);
  }
  q.push_back(0);
  for (uint16_t v : {type, klass}) {
    q.push_back(static_cast<uint8_t>(v >> 8));
    q.push_back(static_cast<uint8_t>(v));
  }
  return q;
}

inline Bytes with_edns(Bytes q, uint16_t payload, uint8_t version = 0) {
  ++q[11];
  Bytes opt = {0, 0, 41, static_cast<uint8_t>(payload >> 8), static_cast<uint8_t>(payload), 0, version,
               0, 0, 0, 0};
  q.insert(q.end(), opt.begin(), opt.end());
  return q;
}

inline std::string text_of(const dns::Name& name) {
  std::string out;
  for (size_t i = 0; i < name.labels; ++i) out += std::string(name.label(i)) + ".";
  return out;
}

struct Reply {
  uint16_t id = 0, flags = 0, rcode = 0;
  std::vector<std::string> answers, authority, additional;  // "name type data"; OPT: "OPT <payload>"
  bool has(uint16_t flag) const { return (flags & flag) != 0; }
};

inline std::string text_of_data(std::span<const uint8_t> m, uint16_t type, size_t at, size_t size) {
  dns::Name name;
  switch (type) {
    case dns::kA: return "A " + IpAddr::v4(&m[at]).to_string();
    case dns::kAaaa: return "AAAA " + IpAddr::v6(&m[at]).to_string();
    case dns::kCname:
    case dns::kPtr:
    case dns::kNs:
      if (!dns::expand_name(m, at, name)) return "bad name";
      return (type == dns::kPtr ? "PTR " : type == dns::kNs ? "NS " : "CNAME ") + text_of(name);
    case dns::kSrv:
      if (!dns::expand_name(m, at + 6, name)) return "bad name";
      return fmt::format("SRV {} {} {} {}", dns::get16(&m[at]), dns::get16(&m[at + 2]),
                         dns::get16(&m[at + 4]), text_of(name));
    case dns::kSoa: return "SOA";
    default: return fmt::format("TYPE{} {} bytes", type, size);
  }
}

// Fails by "malformed" in `answers`.
inline Reply read_reply(std::span<const uint8_t> m) {
  Reply r;
  if (m.size() < 12) return r.answers = {"malformed"}, r;
  r.id = dns::get16(&m[0]);
  r.flags = dns::get16(&m[2]);
  r.rcode = r.flags & 15;
  size_t at = 12;
  dns::Name name;
  for (int q = dns::get16(&m[4]); q > 0; --q) {
    auto behind = dns::expand_name(m, at, name);
    if (!behind) return r.answers = {"malformed"}, r;
    at = *behind + 4;
  }
  std::vector<std::string>* sections[] = {&r.answers, &r.authority, &r.additional};
  for (int s = 0; s < 3; ++s) {
    for (int n = dns::get16(&m[6 + 2 * static_cast<size_t>(s)]); n > 0; --n) {
      auto behind = dns::expand_name(m, at, name);
      if (!behind || *behind + 10 > m.size()) return r.answers = {"malformed"}, r;
      uint16_t type = dns::get16(&m[*behind]);
      size_t size = dns::get16(&m[*behind + 8]);
      at = *behind + 10 + size;
      if (at > m.size()) return r.answers = {"malformed"}, r;
      if (type == dns::kOpt) {
        r.rcode = static_cast<uint16_t>(r.rcode | m[*behind + 4] << 4);
        sections[s]->push_back(fmt::format("OPT {}", dns::get16(&m[*behind + 2])));
      } else {
        sections[s]->push_back(text_of(name) + " " + text_of_data(m, type, *behind + 10, size));
      }
    }
  }
  if (at != m.size()) r.answers = {"malformed"};
  return r;
}

inline kube::Service service(const std::string& name, std::vector<std::string> vips,
                             const std::string& ns = "default") {
  kube::Service s;
  s.ns = ns;
  s.name = name;
  s.cluster_ips = vips;
  s.cluster_ip = vips.empty() ? "None" : vips[0];
  kube::ServicePort port;
  port.name = "http";
  port.port = 80;
  s.ports = {port};
  return s;
}

struct Pod {
  std::string address, node, hostname, zone;
  bool ready = true, serving = true, terminating = false;
};

inline kube::EndpointSlice slice(const std::string& of, const std::vector<Pod>& pods, int number = 0,
                                 uint16_t port = 8080, const std::string& ns = "default") {
  kube::EndpointSlice s;
  s.ns = ns;
  s.name = of + "-" + std::to_string(number);
  s.service_name = of;
  s.ports = {{"http", "TCP", "", port}};
  for (const Pod& pod : pods) {
    kube::SliceEndpoint e;
    e.addresses = {pod.address};
    e.node_name = pod.node;
    e.hostname = pod.hostname;
    e.zone = pod.zone;
    e.ready = pod.ready;
    e.serving = pod.serving;
    e.terminating = pod.terminating;
    s.endpoints.push_back(e);
  }
  return s;
}

// hello: ClusterIP; dual: both families; db: headless; ext, loop, alias: ExternalName.
inline void fill(Registry& registry) {
  registry.upsert_service(service("hello", {"10.96.0.10"}));
  registry.upsert_slice(slice("hello", {{"10.1.0.1", "a"}, {"10.1.0.2", "b"}}));
  registry.upsert_service(service("dual", {"10.96.0.11", "fd00:96::11"}));
  registry.upsert_service(service("db", {}));
  registry.upsert_slice(slice("db", {{"10.1.0.5", "a", "db-0"}, {"10.1.0.6", "b"}}));
  registry.upsert_service(service("empty", {}));
  for (auto [name, target] : {std::pair{"ext", "www.example.com"}, {"loop", "loop.default.svc.cluster.local"},
                              {"alias", "hello.default.svc.cluster.local"}}) {
    kube::Service s = service(name, {});
    s.type = "ExternalName";
    s.cluster_ip.clear();
    s.external_name = target;
    s.ports.clear();
    registry.upsert_service(s);
  }
}

}  // namespace edgemesh::discovery::testing_parts
