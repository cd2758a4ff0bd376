// How many queries a second does one core answer, and does an answer allocate? First the answer alone,
// then over UDP on loopback with 64 queries under way (client and server have a thread each).
// Prints one line a figure: name, value, unit.
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "discovery/dns_server.h"
#include "discovery/dns_wire.h"
#include "discovery/dns_zone.h"
#include "discovery/registry.h"

namespace {
std::atomic<uint64_t> allocations{0};
}  // namespace

void* operator new(size_t n) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* p = std::malloc(n);
  if (p == nullptr) std::abort();
  return p;
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace {

using namespace edgemesh;
using namespace edgemesh::discovery;
using SteadyClock = std::chrono::steady_clock;

constexpr int kServices = 10'000;
constexpr int kAnswers = 1'000'000;
constexpr int kUnderWay = 64;
constexpr auto kNetworkTime = std::chrono::seconds(3);

std::vector<uint8_t> query_for(int i) {
  auto name = dns::Name::parse("service-" + std::to_string(i) + ".default.svc.cluster.local");
  std::vector<uint8_t> q = {0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  q.insert(q.end(), name->wire.begin(), name->wire.begin() + name->size);
  q.insert(q.end(), {0, dns::kA, 0, 1});
  return q;
}

void fill(Registry& registry) {
  for (int i = 0; i < kServices; ++i) {
    kube::Service s;
    s.ns = "default";
    s.name = "service-" + std::to_string(i);
    s.cluster_ip = IpAddr::v4(0x0a600000u + 256u + static_cast<uint32_t>(i)).to_string();
    s.cluster_ips = {s.cluster_ip};
    kube::ServicePort port;
    port.port = 80;
    s.ports = {port};
    registry.upsert_service(s);
  }
}

void bench_answers(const Snapshot& snapshot, const std::vector<std::vector<uint8_t>>& queries) {
  dns::Zone zone(*dns::Name::parse("cluster.local"), 5, {});
  std::array<uint8_t, 1232> buffer;
  size_t bytes = 0;
  uint64_t before = allocations.load();
  auto start = SteadyClock::now();
  for (int i = 0; i < kAnswers; ++i) {
    dns::Query query;
    dns::Name chase;
    if (dns::parse_query(queries[static_cast<size_t>(i) % queries.size()], query) != dns::Parsed::kQuery) return;
    dns::Writer writer(buffer, buffer.size(), query);
    zone.answer(query, &snapshot, writer, chase);
    bytes += writer.finish().size();
  }
  double ns = std::chrono::duration<double, std::nano>(SteadyClock::now() - start).count() / kAnswers;
  std::printf("answer %.0f ns (%zu bytes each)\n", ns, bytes / kAnswers);
  std::printf("answer_allocations %.4f each\n",
              static_cast<double>(allocations.load() - before) / kAnswers);
}

void bench_network(const SockAddr& server, const std::vector<std::vector<uint8_t>>& queries) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_storage sa;
  socklen_t size = server.to_sockaddr(&sa);
  if (connect(fd, reinterpret_cast<sockaddr*>(&sa), size) != 0) return;  // NOLINT
  size_t next = 0;
  auto send_one = [&] {
    const auto& q = queries[next++ % queries.size()];
    return send(fd, q.data(), q.size(), 0) > 0;
  };
  timeval limit{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  for (int i = 0; i < kUnderWay; ++i) send_one();
  uint64_t answers = 0, before = allocations.load();
  auto start = SteadyClock::now();
  while (SteadyClock::now() - start < kNetworkTime) {
    uint8_t buffer[1232];
    if (recv(fd, buffer, sizeof buffer, 0) <= 0) break;
    ++answers;
    send_one();
  }
  double seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  std::printf("udp %.0f queries/s\n", static_cast<double>(answers) / seconds);
  std::printf("udp_allocations %.4f each\n",
              static_cast<double>(allocations.load() - before) / static_cast<double>(answers));
}

}  // namespace

int main() {
  auto loop = *io::Loop::create();
  Registry registry(*loop);
  fill(registry);
  std::vector<std::vector<uint8_t>> queries;
  for (int i = 0; i < kServices; i += 7) queries.push_back(query_for(i));
  bench_answers(*registry.snapshot(), queries);

  obs::Registry metrics;
  DnsOptions options;
  options.listen = {{IpAddr::loopback(), 0}};
  auto server = DnsServer::create(*loop, options, metrics);
  if (!server) {
    std::fprintf(stderr, "bench_dns: %s\n", server.error().message.c_str());
    return 1;
  }
  (*server)->update(registry.snapshot());
  SockAddr addr = (*server)->local_addrs()[0];
  std::thread client([&] {
    bench_network(addr, queries);
    loop->stop();
  });
  loop->run();
  client.join();
  return 0;
}
