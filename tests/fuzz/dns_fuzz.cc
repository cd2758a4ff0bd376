// DNS messages from clients (queries through parser, zone and writer) and from upstreams (answers
// through the checker, the cache's writer and the copying of records).
#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "discovery/dns_cache.h"
#include "discovery/dns_wire.h"
#include "discovery/dns_zone.h"
#include "discovery/registry.h"

namespace {

using namespace edgemesh;
using namespace edgemesh::discovery;

struct Cluster {
  Cluster() {
    kube::Service s;
    s.ns = "default";
    s.name = "hello";
    s.cluster_ip = "10.96.0.10";
    s.cluster_ips = {"10.96.0.10", "fd00::10"};
    kube::ServicePort port;
    port.name = "http";
    port.port = 80;
    s.ports = {port};
    registry.upsert_service(s);
    s.name = "db";
    s.cluster_ip = "None";
    s.cluster_ips = {};
    registry.upsert_service(s);
    kube::EndpointSlice e;
    e.ns = "default";
    e.name = "db-1";
    e.service_name = "db";
    e.ports = {{"http", "TCP", "", 8080}};
    for (int i = 1; i < 60; ++i) {
      kube::SliceEndpoint one;
      one.addresses = {"10.1.0." + std::to_string(i)};
      one.hostname = i % 2 == 0 ? "" : "db-" + std::to_string(i);
      e.endpoints.push_back(one);
    }
    registry.upsert_slice(e);
    s = {};
    s.ns = "default";
    s.name = "ext";
    s.type = "ExternalName";
    s.external_name = "www.example.com";
    registry.upsert_service(s);
    snapshot = registry.snapshot();
    zone.set_service_cidrs({*Cidr::parse("10.96.0.0/12")});
  }
  std::unique_ptr<io::Loop> loop = *io::Loop::create();
  Registry registry{*loop};
  std::shared_ptr<const Snapshot> snapshot;
  dns::Zone zone{*dns::Name::parse("cluster.local"), 5, {}};
};

void must(bool ok) {
  if (!ok) std::abort();
}

void fuzz_query(Cluster& cluster, std::span<const uint8_t> data, size_t limit) {
  static std::array<uint8_t, 65535> out;
  dns::Query query;
  if (dns::parse_query(data, query) != dns::Parsed::kQuery) return;
  dns::Writer writer(out, limit, query);
  dns::Name chase;
  auto outcome = cluster.zone.answer(query, cluster.snapshot.get(), writer, chase);
  auto answer = writer.finish();
  must(answer.size() <= limit);
  must(outcome != dns::Zone::Outcome::kChase || chase.size > 0);
}

void fuzz_answer(std::span<const uint8_t> data) {
  static std::array<uint8_t, 65535> out;
  // The question as the message itself has it: the rest is what an upstream may do with it.
  dns::Query query;
  auto behind = dns::expand_name(data, dns::kHeaderBytes, query.name);
  if (!behind || *behind + 4 > data.size()) return;
  query.question = data.subspan(dns::kHeaderBytes, *behind + 4 - dns::kHeaderBytes);
  if (query.question.size() != query.name.size + 4u) return;  // a pointer: we never ask so
  query.edns = true;
  auto answer = dns::parse_answer(data, query.question, {}, {});
  if (!answer) return;
  for (size_t limit : {512u, 1232u, 65535u})
    must(answer->write(query, out, limit, TimePoint(std::chrono::seconds(7))).size() <= limit);
  dns::Writer writer(out, 1232, query);
  dns::append_answers(*answer, writer, {});
  must(writer.finish().size() <= 1232);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Cluster cluster;
  // A copy of the exact size, so that a read behind the end is seen.
  std::vector<uint8_t> bytes(data, data + size);
  fuzz_query(cluster, bytes, 512);
  fuzz_query(cluster, bytes, 65535);
  fuzz_answer(bytes);
  return 0;
}
