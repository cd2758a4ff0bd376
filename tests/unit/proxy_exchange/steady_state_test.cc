// In the steady state a request that is forwarded costs no allocation. Every operator new of this
// program is counted; client and endpoint are sockets that the test writes to and reads from itself.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <new>

#include "core/io/tcp.h"
#include "tests/unit/proxy_exchange/exchange_fixture.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {
thread_local size_t allocations = 0;  // not those of the thread that writes logs
}

// Not inlined: the compiler would take malloc for a mismatch.
[[gnu::noinline]] void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept {
  std::free(p);
}

namespace edgemesh::proxy {
namespace {

class SteadyState : public ExchangeTest {
 protected:
  ~SteadyState() override {
    destroy_worker();
    for (const int fd : {client_, endpoint_})
      if (fd >= 0) close(fd);
  }
  std::unique_ptr<io::Stream> pair(int* ours) {
    int fds[2];
    EM_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    *ours = fds[0];
    return io::TcpStream::adopt(*loop_, io::Fd(fds[1]), true).value();
  }
  Result<Connecting> connect(const model::Endpoint&, const HostSet&, const ProxiedAddrs*) override {
    ++connects_;
    Connecting made;
    made.stream = std::make_unique<Connected>(*loop_, pair(&endpoint_));
    return made;
  }
  void begin() {
    ClientInfo info;
    info.peer = SockAddr{IpAddr::v4(0x7f000001), 5555};
    HttpConnection::start(*worker_, slot_, pair(&client_), std::move(info), false, "", nullptr);
  }
  // Allocations of `count` requests.
  size_t cost(int count, std::string_view request) {
    const size_t before = allocations;
    for (int i = 0; i < count; ++i) {
      EM_CHECK(write(client_, request.data(), request.size()) == std::ssize(request));
      wait_for(&endpoint_);
      constexpr std::string_view kAnswer =
          "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-more: some\r\n"
          "content-length: 10\r\n\r\n0123456789";
      EM_CHECK(write(endpoint_, kAnswer.data(), kAnswer.size()) == std::ssize(kAnswer));
      wait_for(&client_);
      clock_.advance(std::chrono::microseconds(100));
    }
    return allocations - before;
  }
  // Reads what comes next.
  void wait_for(const int* fd) {
    for (int turn = 0; turn < 100; ++turn) {
      loop_->run_once();
      if (*fd >= 0 && read(*fd, buffer_, sizeof buffer_) > 0) return;
    }
    EM_CHECK(false);
  }

  // Says on_connected in a later turn.
  class Connected final : public io::Stream {
   public:
    Connected(io::Loop& loop, std::unique_ptr<io::Stream> below) : below_(std::move(below)) {
      loop.defer([this] {
        below_->set_handler(handler_);
        connected_ = true;
        handler_->on_connected();
      });
    }
    void set_handler(Handler* handler) override {
      handler_ = handler;
      if (connected_) below_->set_handler(handler);
    }
    io::IoResult read(std::span<uint8_t> into) override { return below_->read(into); }
    io::IoResult write(std::span<const uint8_t> data) override { return below_->write(data); }
    void shutdown_write() override { below_->shutdown_write(); }
    void reset() override { below_->reset(); }

   private:
    std::unique_ptr<io::Stream> below_;
    Handler* handler_ = nullptr;
    bool connected_ = false;
  };

  int client_ = -1, endpoint_ = -1, connects_ = 0;
  char buffer_[16384];
};

// With a trace that is sampled: its span is put, too.
constexpr std::string_view kTraced =
    "GET /path HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\n"
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    "x-b3-traceid: 0af7651916cd43dd8448eb211c80319c\r\nx-b3-spanid: b7ad6b7169203331\r\n\r\n";
constexpr std::string_view kGet =
    "GET /path?query HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\nUser-Agent: test\r\n\r\n";
constexpr std::string_view kPost =
    "POST /path HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\n0123456789";

TEST_F(SteadyState, APlainRequestCostsNoAllocation) {
  ProxyYaml yaml;
  yaml.http = "useRemoteAddress: true\nvia: edge";
  configure(yaml);
  begin();
  EXPECT_GT(cost(20, kGet), 0u);  // they are counted
  EXPECT_EQ(cost(100, kGet), 0u);
  cost(20, kPost);
  EXPECT_EQ(cost(100, kPost), 0u);
  EXPECT_EQ(connects_, 1);
}

TEST_F(SteadyState, ARequestWithPoliciesCostsNoAllocation) {
  ProxyYaml yaml;
  yaml.http = "useRemoteAddress: true";
  yaml.routes = R"(- match: {segmentPrefix: /path, headers: [{name: user-agent, present: true, invert: true}]}
  cluster: b
- match: {prefix: /}
  clusters: [{name: a, weight: 9, requestHeaders: {set: {x-w: "1"}}}]
  rewrite: {prefix: /v1/}
  timeouts: {route: 10s, idle: 5s}
  retry: {on: [5xx, connect-failure], attempts: 2, perTryTimeout: 3s}
  requestHeaders: {set: {x-client: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}, remove: [x-debug]}
  responseHeaders: {append: {x-took: "%DURATION%"}})";
  yaml.policies = R"(rateLimit: {maxTokens: 1000000, rateLimitHeaders: true}
cors: {origins: [{suffix: .example}]}
rbac:
  rules:
  - action: allow
    policies: [{name: p, permissions: [{path: {prefix: /}}], principals: [{sourceIp: 127.0.0.0/8}]}]
fault: {delay: {percent: 0, time: 1s}})";
  yaml.a = "outlierDetection: {consecutive5xx: 5}\nloadBalancer: {policy: leastRequest}";
  configure(yaml);
  begin();
  cost(20, kGet);
  EXPECT_EQ(cost(100, kGet), 0u);
}

TEST_F(SteadyState, ARequestWithTelemetryCostsNoAllocation) {
  model::Telemetry spec;
  // Nobody listens there: the loop's own part of it (a batch a second) stays out of the count.
  spec.tracing = {"http://127.0.0.1:9/v1/traces", "edgemesh", model::kAlways};
  tell(spec);
  ProxyYaml yaml;
  yaml.http = R"(useRemoteAddress: true
accessLog:
- path: /dev/null
- path: /dev/null
  json: {start: "%START_TIME%", path: "%REQ(:PATH)%", status: "%RESPONSE_CODE%", flags: "%RESPONSE_FLAGS%", trace: "%TRACE_ID%", grpc: "%GRPC_STATUS%", upstream: "%UPSTREAM_HOST%", cluster: "%UPSTREAM_CLUSTER_RAW%"})";
  configure(yaml);
  begin();
  cost(20, kGet);
  cost(20, kTraced);
  telemetry_->logs().flush();
  const size_t before = telemetry_->traffic().scopes(TrafficScope::Kind::kCluster).size();
  EXPECT_EQ(before, 1u);
  EXPECT_EQ(cost(100, kGet), 0u);
  telemetry_->logs().flush();
  EXPECT_EQ(cost(50, kTraced), 0u);
  const auto scopes = telemetry_->traffic().scopes(TrafficScope::Kind::kRoute);
  ASSERT_EQ(scopes.size(), 1u);
  EXPECT_EQ(scopes[0]->totals().requests(), 190u);
  EXPECT_EQ(telemetry_->worker(0).lane().dropped(), 0u);
  EXPECT_EQ(telemetry_->exporter()->stats().dropped, 0u);
}

}  // namespace
}  // namespace edgemesh::proxy

#endif
