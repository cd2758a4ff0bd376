// What do 10,000 services with 20,000 endpoints cost: bytes held, time of one change, time of a look-up?
// Prints one line a figure: name, value, unit.
#include <malloc.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>

#include "discovery/picker.h"
#include "discovery/registry.h"

namespace {

using namespace edgemesh;
using namespace edgemesh::discovery;
using SteadyClock = std::chrono::steady_clock;

constexpr int kServices = 10'000;
constexpr int kEndpointsAService = 2;
constexpr int kNamespaces = 50;
constexpr int kNodes = 500;
constexpr int kChanges = 2'000;
constexpr int kLookups = 2'000'000;

std::string ns_of(int i) { return "team-" + std::to_string(i % kNamespaces); }
std::string name_of(int i) { return "service-backend-" + std::to_string(i); }

IpAddr vip_of(int i) { return IpAddr::v4(0x0a600000u + 256u + static_cast<uint32_t>(i)); }

kube::Service service(int i) {
  kube::Service s;
  s.ns = ns_of(i);
  s.name = name_of(i);
  s.uid = "6f1c7a52-8d0e-4c53-9d0b-" + std::to_string(100000000000 + i);
  s.resource_version = std::to_string(100000 + i);
  s.cluster_ip = vip_of(i).to_string();
  s.cluster_ips = {s.cluster_ip};
  s.labels = {{"app.kubernetes.io/name", s.name}, {"app.kubernetes.io/part-of", s.ns}};
  s.selector = {{"app.kubernetes.io/name", s.name}};
  kube::ServicePort port;
  port.name = "http";
  port.port = 80;
  port.target_port = 8080;
  s.ports = {port};
  return s;
}

kube::EndpointSlice slice(int i, bool ready = true) {
  kube::EndpointSlice e;
  e.ns = ns_of(i);
  e.name = name_of(i) + "-x7k2p";
  e.service_name = name_of(i);
  e.uid = "0b8e3f11-5a4e-4f80-8a51-" + std::to_string(100000000000 + i);
  e.resource_version = std::to_string(200000 + i);
  e.labels = {{"kubernetes.io/service-name", e.service_name}};
  e.ports = {{"http", "TCP", "", 8080}};
  for (int k = 0; k < kEndpointsAService; ++k) {
    int number = i * kEndpointsAService + k;
    kube::SliceEndpoint one;
    one.addresses = {IpAddr::v4(0x0af40000u + static_cast<uint32_t>(number)).to_string()};
    one.ready = ready || k == 0;
    one.node_name = "edge-gateway-node-" + std::to_string(number % kNodes);
    one.zone = "region-west-zone-" + std::to_string(number % 5);
    one.target_name = e.service_name + "-6d4f9c7b8-" + std::to_string(number);
    e.endpoints.push_back(one);
  }
  return e;
}

size_t rss_bytes() {
  std::ifstream in("/proc/self/statm");
  size_t pages = 0, resident = 0;
  in >> pages >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

double ns_since(SteadyClock::time_point start, int n) {
  return std::chrono::duration<double, std::nano>(SteadyClock::now() - start).count() / n;
}

size_t held() { return mallinfo2().uordblks + mallinfo2().hblkhd; }

}  // namespace

int main() {
  auto loop = *io::Loop::create();
  Registry registry(*loop);
  malloc_trim(0);
  size_t heap = held(), rss = rss_bytes();

  auto start = SteadyClock::now();
  for (int i = 0; i < kServices; ++i) {
    registry.upsert_service(service(i));
    registry.upsert_slice(slice(i));
  }
  auto snapshot = registry.snapshot();
  std::printf("load %.1f ms\n", ns_since(start, 1) / 1e6);
  std::printf("services %zu endpoints %zu\n", snapshot->services(), snapshot->endpoints());
  malloc_trim(0);
  std::printf("heap %zu bytes\n", held() - heap);
  std::printf("rss %zu bytes\n", rss_bytes() - rss);

  start = SteadyClock::now();
  for (int i = 0; i < kChanges; ++i) {
    registry.upsert_slice(slice(i * 4 % kServices, i % 2 == 0));
    snapshot = registry.snapshot();
  }
  std::printf("change %.0f ns\n", ns_since(start, kChanges));

  size_t found = 0;
  start = SteadyClock::now();
  for (int i = 0; i < kLookups; ++i) found += snapshot->find(vip_of(i % kServices), 80) ? 1u : 0u;
  std::printf("find %.0f ns (%zu found)\n", ns_since(start, kLookups), found);

  Picker picker("edge-gateway-node-1", "region-west-zone-1");
  start = SteadyClock::now();
  for (int i = 0; i < kLookups; ++i)
    found += picker.pick(*snapshot->find(vip_of(i % kServices), 80), IpAddr()) != nullptr ? 1u : 0u;
  std::printf("find_and_pick %.0f ns (%zu found)\n", ns_since(start, kLookups), found);
  malloc_trim(0);
  std::printf("heap_after %zu bytes\n", held() - heap);
  return 0;
}
