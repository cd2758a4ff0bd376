#include "proxy/upstream/pool.h"

#include <gtest/gtest.h>

#include "tests/unit/proxy_upstream/cluster_fixture.h"
#include "tests/unit/proxy_upstream/fake_connector.h"

namespace edgemesh::proxy {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class FakeCodec;

class FakeHttpStream final : public HttpStream {
 public:
  FakeHttpStream(FakeCodec* codec, HttpStream::Handler* handler)
      : codec_(codec), handler_(handler) {}
  void set_handler(HttpStream::Handler* handler) override { handler_ = handler; }
  void send_head(const Head&, bool) override {}
  bool send_data(std::span<const uint8_t>, bool) override { return true; }
  void send_trailers(const Head&) override {}
  void set_reading(bool) override {}
  const SockAddr& peer_addr() const override { return addr_; }
  const tls::PeerIdentity* peer_identity() const override { return nullptr; }
  void release() override;

 private:
  FakeCodec* codec_;
  HttpStream::Handler* handler_;
  SockAddr addr_;
};

class FakeCodec final : public HttpClientConnection {
 public:
  FakeCodec(std::unique_ptr<io::Stream> stream, size_t streams,
            HttpClientConnection::Handler& handler, std::vector<FakeCodec*>* all)
      : handler_(handler), limit(streams), stream_(std::move(stream)), all_(all) {
    all_->push_back(this);
  }
  ~FakeCodec() override {
    EXPECT_EQ(active, 0u) << "destroyed under open streams";
    std::erase(*all_, this);
  }
  StreamPtr open(HttpStream::Handler* handler) override {
    if (available() == 0) return nullptr;
    ++active;
    ++opened;
    return StreamPtr(new FakeHttpStream(this, handler));
  }
  size_t available() const override { return closing_ || active >= limit ? 0 : limit - active; }
  size_t active_streams() const override { return active; }
  bool closing() const override { return closing_; }

  // The peer closes; open streams must be gone.
  void close_by_peer() {
    EXPECT_EQ(active, 0u);
    handler_.on_closed(Error{ErrorCode::kConnectionReset, "closed", 0});
  }
  void go_away() { closing_ = true; }

  HttpClientConnection::Handler& handler_;
  size_t limit;
  size_t active = 0;
  size_t opened = 0;
  bool closing_ = false;

 private:
  std::unique_ptr<io::Stream> stream_;
  std::vector<FakeCodec*>* all_;
};

void FakeHttpStream::release() {
  --codec_->active;
  delete this;
}

struct Waiter final : PoolWaiter {
  void on_pool_stream(StreamPtr got, const ConnectionInfo& i) override {
    stream = std::move(got);
    info = i;
    if (then) then();
  }
  void on_pool_failure(PoolFailure why, const Error& e) override {
    failure = why;
    error = e;
    if (then) then();
  }
  bool ended() const { return stream != nullptr || failure != PoolFailure::kNone; }
  StreamPtr stream;
  ConnectionInfo info;
  PoolFailure failure = PoolFailure::kNone;
  Error error;
  std::function<void()> then;
};

class PoolTest : public testing::Test {
 protected:
  PoolTest() {
    loop_ = std::move(io::Loop::create(cluster_.clock)).value();
    auto make = [this](size_t streams) {
      return [this, streams](std::unique_ptr<io::Stream> stream, const ClientTarget&,
                             HttpClientConnection::Handler& handler) {
        return std::make_unique<FakeCodec>(std::move(stream), streams, handler, &codecs_);
      };
    };
    pool_ = std::make_unique<UpstreamPool>(PoolOptions{*loop_, connector_, make(1), make(3)});
  }
  ~PoolTest() override {
    pool_.reset();
    if (cluster_.state) cluster_.state->retire();
    turn();
    EXPECT_EQ(connector_.alive, 0);
    for (const auto& breaker : cluster_.hosts->shared()->breakers) {
      EXPECT_EQ(breaker.connections, 0u);
      EXPECT_EQ(breaker.pending, 0u);
    }
  }
  void start(int n = 1) { cluster_.set(endpoints(n)); }
  void turn() {
    for (int i = 0; i < 3; ++i) loop_->run_once();
  }
  void advance(Duration by) {
    cluster_.clock.advance(by);
    turn();
  }
  // Asks; the waiter gets the result either way.
  void ask(Waiter& waiter, int host = 1, const ProxiedAddrs* addrs = nullptr) {
    auto answer = pool_->request(cluster_.host(host),
                                 {nullptr, model::RequestPriority::kDefault, addrs}, waiter);
    if (answer.stream) {
      waiter.stream = std::move(answer.stream);
      waiter.info = answer.info;
    }
    waiter.failure = answer.failure;
    waiter.error = answer.error;
  }
  // The request is over: the stream goes back, and the codec says that it can take another one.
  void finish(Waiter& waiter, FakeCodec* codec) {
    waiter.stream.reset();
    codec->handler_.on_available();
    turn();
  }
  ClusterStats& stats() { return cluster_.state->stats(); }

  TestCluster cluster_;
  std::unique_ptr<io::Loop> loop_;
  FakeConnector connector_;
  std::vector<FakeCodec*> codecs_;
  std::unique_ptr<UpstreamPool> pool_;
};

TEST_F(PoolTest, WaitsForAConnectionAndUsesItAgain) {
  start();
  Waiter a, b;
  ask(a);
  EXPECT_FALSE(a.ended());
  EXPECT_TRUE(a.waiting());
  EXPECT_EQ(stats().active_pending.value(), 1u);

  connector_.accept();
  ASSERT_TRUE(a.stream);
  EXPECT_EQ(a.info.requests, 0u);
  finish(a, codecs_[0]);
  EXPECT_EQ(pool_->idle_connections(), 1u);

  ask(b);
  ASSERT_TRUE(b.stream);  // at once
  EXPECT_EQ(b.info.requests, 1u);
  EXPECT_EQ(b.info.id, a.info.id);
  EXPECT_EQ(pool_->idle_connections(), 0u);
  EXPECT_EQ(stats().connections.value(), 1u);
  finish(b, codecs_[0]);
}

TEST_F(PoolTest, OneConnectionARequestAndTheLastUsedFirst) {
  start();
  Waiter w[3];
  for (auto& waiter : w) ask(waiter);
  EXPECT_EQ(connector_.streams.size(), 3u);
  for (int i = 0; i < 3; ++i) connector_.accept();
  for (int i = 0; i < 3; ++i) finish(w[i], codecs_[static_cast<size_t>(i)]);
  const uint64_t last = w[2].info.id;

  Waiter next;
  ask(next);
  EXPECT_EQ(next.info.id, last);
  finish(next, codecs_[2]);
}

TEST_F(PoolTest, AConnectionThatGetsFreeServesWhoWaits) {
  start();
  Waiter a, b;
  ask(a);
  connector_.accept();
  ask(b);
  finish(a, codecs_[0]);
  EXPECT_TRUE(b.stream);
  EXPECT_EQ(b.info.requests, 1u);
  connector_.accept();  // the one that was made for b is idle now
  EXPECT_EQ(pool_->connections(), 2u);
  EXPECT_EQ(pool_->idle_connections(), 1u);
  finish(b, codecs_[0]);
}

TEST_F(PoolTest, IdleConnectionsEndAfterTheirTime) {
  cluster_.config.idle_timeout = seconds(30);
  start();
  Waiter a, b;
  ask(a);
  ask(b);
  connector_.accept();
  connector_.accept();
  finish(a, codecs_[0]);
  advance(seconds(20));
  finish(b, codecs_[1]);
  advance(seconds(11));
  EXPECT_EQ(pool_->connections(), 1u);
  EXPECT_EQ(codecs_.size(), 1u);
  Waiter c;  // using it starts the time anew
  ask(c);
  EXPECT_EQ(c.info.id, b.info.id);
  advance(seconds(25));
  EXPECT_EQ(pool_->connections(), 1u);
  finish(c, codecs_[0]);
  advance(seconds(29));
  EXPECT_EQ(pool_->connections(), 1u);
  advance(seconds(2));
  EXPECT_EQ(pool_->connections(), 0u);
  EXPECT_EQ(stats().closed_idle.value(), 2u);
}

TEST_F(PoolTest, MaxRequestsPerConnection) {
  cluster_.config.max_requests_per_connection = 2;
  start();
  Waiter a, b;
  ask(a);
  connector_.accept();
  finish(a, codecs_[0]);
  ask(b);
  EXPECT_EQ(b.info.requests, 1u);
  finish(b, codecs_[0]);
  EXPECT_EQ(pool_->connections(), 0u);
  EXPECT_TRUE(codecs_.empty());
  EXPECT_EQ(stats().closed_max_requests.value(), 1u);
}

TEST_F(PoolTest, RefusedConnectFailsWhoWaits) {
  cluster_.config.outlier = std::make_shared<model::OutlierDetection>();
  start();
  Waiter a, b;
  ask(a);
  ask(b);
  connector_.fail_next();
  EXPECT_EQ(a.failure, PoolFailure::kConnectFailed);
  EXPECT_EQ(a.error.message, "refused");
  EXPECT_FALSE(b.ended());  // its connect is still on the way
  connector_.accept();
  EXPECT_TRUE(b.stream);
  EXPECT_EQ(stats().connect_failures.value(), 1u);
  EXPECT_EQ(cluster_.host(1).shared().consecutive_5xx, 1u);
  turn();
  finish(b, codecs_[0]);
}

TEST_F(PoolTest, ConnectTimeout) {
  cluster_.config.connect_timeout = milliseconds(500);
  start();
  Waiter a;
  ask(a);
  advance(milliseconds(501));
  EXPECT_EQ(a.failure, PoolFailure::kConnectTimeout);
  EXPECT_EQ(stats().connect_timeouts.value(), 1u);
  EXPECT_EQ(pool_->connections(), 0u);
}

TEST_F(PoolTest, ConnectorsErrorComesAtOnce) {
  start();
  connector_.refuse = true;
  Waiter a;
  ask(a);
  EXPECT_EQ(a.failure, PoolFailure::kConnectFailed);
  EXPECT_EQ(a.error.message, "no route");
}

TEST_F(PoolTest, ARetryFromWithinTheFailure) {
  start(2);
  Waiter a, b;
  a.then = [&] { ask(b, 2); };
  ask(a, 1);
  connector_.fail_next();
  connector_.accept();
  ASSERT_TRUE(b.stream);
  EXPECT_EQ(connector_.to_addrs.back(), cluster_.host(2).addr());
  finish(b, codecs_[0]);
}

TEST_F(PoolTest, ARetryOfTheSameHostFromWithinTheFailureWaitsAnew) {
  start();
  Waiter a, b;
  a.then = [&] { ask(b); };
  ask(a);
  connector_.fail_next();
  EXPECT_FALSE(b.ended());
  connector_.accept();
  EXPECT_TRUE(b.stream);
  finish(b, codecs_[0]);
}

TEST_F(PoolTest, CancelLeavesTheConnectionForTheNext) {
  start();
  {
    Waiter a;
    ask(a);
    a.cancel();
    EXPECT_FALSE(a.waiting());
  }
  {
    Waiter b;
    ask(b);  // no second connect
    EXPECT_EQ(connector_.streams.size(), 1u);
  }  // destroyed while it waits
  connector_.accept();
  EXPECT_EQ(pool_->idle_connections(), 1u);
  EXPECT_EQ(stats().pending_cancelled.value(), 2u);
}

TEST_F(PoolTest, PendingLimit) {
  cluster_.config.breaker[0].max_pending = 1;
  start();
  Waiter a, b;
  ask(a);
  ask(b);
  EXPECT_EQ(b.failure, PoolFailure::kPendingOverflow);
  EXPECT_EQ(stats().pending_overflow.value(), 1u);
  connector_.accept();
  finish(a, codecs_[0]);
}

TEST_F(PoolTest, ConnectionLimitMakesRequestsWaitTheirTurn) {
  cluster_.config.breaker[0].max_connections = 1;
  start();
  Waiter a, b, c;
  ask(a);
  ask(b);
  ask(c);
  EXPECT_EQ(connector_.streams.size(), 1u);
  connector_.accept();
  finish(a, codecs_[0]);
  ASSERT_TRUE(b.stream);
  b.stream.reset();
  codecs_[0]->close_by_peer();  // c needs another one
  turn();
  EXPECT_FALSE(c.ended());
  connector_.accept();
  ASSERT_TRUE(c.stream);
  finish(c, codecs_[0]);
}

TEST_F(PoolTest, IdleConnectionOfAnotherEndpointMakesPlace) {
  cluster_.config.breaker[0].max_connections = 1;
  start(2);
  Waiter a, b;
  ask(a, 1);
  connector_.accept();
  finish(a, codecs_[0]);
  ask(b, 2);
  connector_.accept();
  ASSERT_TRUE(b.stream);
  turn();
  EXPECT_EQ(pool_->connections(), 1u);
  EXPECT_EQ(codecs_.size(), 1u);

  Waiter c;  // nothing is idle, but host 1 has no connection at all
  ask(c, 1);
  connector_.accept();
  EXPECT_TRUE(c.stream);
  EXPECT_EQ(stats().connection_overflow.value(), 1u);
  finish(b, codecs_[0]);
  finish(c, codecs_[1]);
}

TEST_F(PoolTest, NoConnectionsAllowedAtAll) {
  cluster_.config.breaker[0].max_connections = 0;
  start();
  Waiter a;
  ask(a);
  EXPECT_EQ(a.failure, PoolFailure::kConnectionOverflow);
}

TEST_F(PoolTest, PeerClosesWhileIdle) {
  start();
  Waiter a, b;
  ask(a);
  connector_.accept();
  finish(a, codecs_[0]);
  codecs_[0]->close_by_peer();
  turn();
  EXPECT_EQ(pool_->connections(), 0u);
  EXPECT_TRUE(codecs_.empty());
  ask(b);
  EXPECT_FALSE(b.ended());
  connector_.accept();
  finish(b, codecs_[0]);
}

TEST_F(PoolTest, ClosingConnectionIsNotUsed) {
  start();
  Waiter a, b;
  ask(a);
  connector_.accept();
  finish(a, codecs_[0]);
  codecs_[0]->go_away();
  ask(b);
  EXPECT_FALSE(b.ended());
  turn();
  connector_.accept();
  EXPECT_TRUE(b.stream);
  EXPECT_NE(b.info.id, a.info.id);
  finish(b, codecs_.back());
}

TEST_F(PoolTest, RemovedHostEndsIdleAndDrainsBusyOnes) {
  start(2);
  Waiter busy, idle, waits, late;
  ask(busy);
  ask(idle);
  connector_.accept();
  connector_.accept();
  finish(idle, codecs_[1]);
  Host* host = &cluster_.host(1);
  HostRef keep(host);

  cluster_.set({endpoint(2)});
  turn();
  EXPECT_EQ(pool_->connections(), 1u);
  ASSERT_EQ(codecs_.size(), 1u);
  EXPECT_EQ(pool_->request(*host, {}, late).failure, PoolFailure::kHostRemoved);
  finish(busy, codecs_[0]);
  EXPECT_EQ(pool_->connections(), 0u);
}

TEST_F(PoolTest, RemovedHostFailsWhoWaits) {
  start();
  Waiter a;
  ask(a);
  cluster_.set({endpoint(2)});
  EXPECT_EQ(a.failure, PoolFailure::kHostRemoved);
  turn();
  EXPECT_EQ(pool_->connections(), 0u);
}

TEST_F(PoolTest, UnhealthyHostsConnectionsEndWhenWished) {
  cluster_.config.close_on_unhealthy = true;
  start(2);
  Waiter a;
  ask(a);
  connector_.accept();
  finish(a, codecs_[0]);
  cluster_.fail(1);
  cluster_.pick();
  turn();
  EXPECT_EQ(pool_->connections(), 0u);
}

TEST_F(PoolTest, Http2SharesAConnectionUpToItsStreams) {
  cluster_.config.protocol = model::UpstreamProtocol::kHttp2;
  start();
  Waiter w[4];
  ask(w[0]);
  ask(w[1]);
  EXPECT_EQ(connector_.streams.size(), 1u);
  connector_.accept();
  EXPECT_TRUE(w[0].stream && w[1].stream);
  ask(w[2]);
  EXPECT_TRUE(w[2].stream);
  EXPECT_EQ(w[2].info.id, w[0].info.id);
  EXPECT_EQ(w[2].info.version, HttpVersion::kHttp2);

  ask(w[3]);  // its three streams are taken
  EXPECT_FALSE(w[3].stream);
  connector_.accept();
  EXPECT_TRUE(w[3].stream);
  EXPECT_NE(w[3].info.id, w[0].info.id);
  for (int i = 0; i < 3; ++i) finish(w[i], codecs_[0]);
  finish(w[3], codecs_[1]);
  EXPECT_EQ(pool_->idle_connections(), 2u);
}

TEST_F(PoolTest, Http2GoAwayDrains) {
  cluster_.config.protocol = model::UpstreamProtocol::kHttp2;
  start();
  Waiter a, b;
  ask(a);
  connector_.accept();
  codecs_[0]->go_away();
  ask(b);
  EXPECT_FALSE(b.stream);
  connector_.accept();
  EXPECT_TRUE(b.stream);
  a.stream.reset();
  codecs_[0]->close_by_peer();
  turn();
  EXPECT_EQ(pool_->connections(), 1u);
  finish(b, codecs_[0]);
}

TEST_F(PoolTest, Http2ConnectionsBeside) {
  cluster_.config.protocol = model::UpstreamProtocol::kHttp2;
  cluster_.config.http2_connections = 2;
  start();
  Waiter w[3];
  ask(w[0]);
  connector_.accept();
  ask(w[1]);
  EXPECT_TRUE(w[1].stream);  // at once; another one is made beside
  connector_.accept();
  ask(w[2]);
  EXPECT_NE(w[2].info.id, w[1].info.id);
  finish(w[0], codecs_[0]);
  finish(w[1], codecs_[0]);
  finish(w[2], codecs_[1]);
}

TEST_F(PoolTest, ProxiedConnectionsServeTheirClientOnly) {
  cluster_.config.proxy_protocol = model::ProxyProtocolOut::kV2;
  start();
  const ProxiedAddrs one{{IpAddr::v4(1), 1000}, {IpAddr::v4(9), 80}};
  const ProxiedAddrs two{{IpAddr::v4(2), 2000}, {IpAddr::v4(9), 80}};
  Waiter a, b, c;
  ask(a, 1, &one);
  connector_.accept();
  finish(a, codecs_[0]);
  ask(b, 1, &two);
  EXPECT_FALSE(b.stream);
  connector_.accept();
  EXPECT_TRUE(b.stream);
  EXPECT_EQ(connector_.proxied[1], two);
  ask(c, 1, &one);
  EXPECT_EQ(c.info.id, a.info.id);
  finish(b, codecs_[1]);
  finish(c, codecs_[0]);
}

TEST_F(PoolTest, DrainEndsIdleOnesAndTheOthersLater) {
  start();
  Waiter a, b;
  ask(a);
  ask(b);
  connector_.accept();
  connector_.accept();
  finish(a, codecs_[0]);
  pool_->drain();
  turn();
  EXPECT_EQ(pool_->connections(), 1u);
  finish(b, codecs_[0]);
  EXPECT_EQ(pool_->connections(), 0u);
}

TEST_F(PoolTest, DestroyedWithConnectionsInEveryState) {
  start(3);
  Waiter idle, connecting;
  ask(idle, 1);
  connector_.accept();
  finish(idle, codecs_[0]);
  ask(connecting, 2);
  pool_.reset();
  EXPECT_FALSE(connecting.waiting());
  EXPECT_FALSE(connecting.ended());
}

TEST(ProxyHeaderTest, BothVersions) {
  const ProxiedAddrs v4{{IpAddr::v4(0x01020304), 1000}, {IpAddr::v4(0x05060708), 80}};
  EXPECT_EQ(proxy_header(model::ProxyProtocolOut::kV1, &v4),
            "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n");
  EXPECT_EQ(proxy_header(model::ProxyProtocolOut::kV1, nullptr), "PROXY UNKNOWN\r\n");
  const auto v2 = proxy_header(model::ProxyProtocolOut::kV2, &v4);
  EXPECT_EQ(v2,
            std::string("\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\1\2\3\4\5\6\7\x08\x03\xe8\0\x50", 28));
  EXPECT_EQ(proxy_header(model::ProxyProtocolOut::kV2, nullptr).size(), 16u);
  const ProxiedAddrs v6{{IpAddr::loopback(true), 1}, {IpAddr::loopback(true), 2}};
  EXPECT_EQ(proxy_header(model::ProxyProtocolOut::kV1, &v6), "PROXY TCP6 ::1 ::1 1 2\r\n");
  EXPECT_EQ(proxy_header(model::ProxyProtocolOut::kV2, &v6).size(), 16u + 36);
}

}  // namespace
}  // namespace edgemesh::proxy
