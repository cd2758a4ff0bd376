// The connector with real sockets on loopback.
#include "proxy/upstream/connector.h"

#include <gtest/gtest.h>

#include "tests/support/memory_stream.h"
#include "tests/support/test_pki.h"

namespace edgemesh::proxy {
namespace {

using std::chrono::seconds;

struct Events final : io::Stream::Handler {
  void on_connected() override { connected = true; }
  void on_readable() override {}
  void on_writable() override {}
  void on_error(const Error& e) override { error = e.message; }
  bool ended() const { return connected || !error.empty(); }
  bool connected = false;
  std::string error;
};

class ConnectorTest : public testing::Test {
 protected:
  ConnectorTest() : connector_(*loop_, {"edge-1", 0, {}, "cubic"}) {
    listener_ = std::move(*io::TcpListener::listen(
        *loop_, {IpAddr::loopback(), 0}, [this](io::Fd fd, const SockAddr&) {
          auto stream = std::move(*io::TcpStream::adopt(*loop_, std::move(fd)));
          if (server_tls_ == nullptr) {
            peer_ = std::make_unique<test::Collector>(std::move(stream));
            return;
          }
          peer_ = std::make_unique<test::Collector>(
              std::move(*tls::TlsStream::server(*loop_, std::move(stream), server_tls_)));
        }));
    config_.name = "c";
    endpoint_.addr = listener_->local_addr();
  }
  Result<Connecting> connect(const ProxiedAddrs* addrs = nullptr) {
    std::shared_ptr<tls::Context> context;
    if (config_.tls != nullptr) {
      EM_TRY(context, client_context(config_));
    }
    set_ = HostSet::build(std::make_shared<model::Cluster>(config_), {endpoint_},
                          {{}, 1, {}, context});
    EM_TRY(auto made, connector_.connect(endpoint_, *set_, addrs));
    made.stream->set_handler(&events_);
    return made;
  }
  bool wait(const std::function<bool()>& done) { return loop_->run_until(done, seconds(5)); }
  void use_tls(model::TlsOrigination tls, std::vector<std::string> server_alpn = {}) {
    const auto id = pki_.issue("web", {{"spiffe://x/web"}, {"web.test"}, {}});
    auto options = pki_.options(id, tls::ContextOptions::kNone);
    options.alpn = std::move(server_alpn);
    server_tls_ = test::TestPki::take(tls::Context::server(options));
    if (tls.ca_pem.empty()) tls.ca_pem = pki_.ca().cert_pem;
    config_.tls = std::make_shared<model::TlsOrigination>(std::move(tls));
  }

  std::unique_ptr<io::Loop> loop_ = std::move(*io::Loop::create());
  test::TestPki pki_;
  MeshConnector connector_;
  std::unique_ptr<io::TcpListener> listener_;
  std::shared_ptr<tls::Context> server_tls_;
  std::unique_ptr<test::Collector> peer_;
  model::Cluster config_;
  model::Endpoint endpoint_;
  std::shared_ptr<const HostSet> set_;
  Events events_;
};

TEST_F(ConnectorTest, PlainTcp) {
  auto made = connect();
  ASSERT_TRUE(made);
  ASSERT_TRUE(wait([&] { return events_.connected && peer_; }));
  made->stream->write(io::as_bytes("hello"));
  EXPECT_TRUE(wait([&] { return peer_->received == "hello"; }));
  EXPECT_EQ(made->path, p2p::PathKind::kLocal);
}

TEST_F(ConnectorTest, RefusedConnectIsAnError) {
  listener_.reset();
  auto made = connect();
  if (made) {
    ASSERT_TRUE(wait([&] { return events_.ended(); }));
    EXPECT_FALSE(events_.error.empty());
  }
}

TEST_F(ConnectorTest, OtherNodesNeedADialer) {
  endpoint_.node = "edge-2";
  auto made = connect();
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("node edge-2"), std::string::npos);
  endpoint_.node = "edge-1";
  EXPECT_TRUE(connect());
}

TEST_F(ConnectorTest, ProxyHeaderComesFirst) {
  config_.proxy_protocol = model::ProxyProtocolOut::kV1;
  const ProxiedAddrs addrs{{IpAddr::v4(0x01020304), 1000}, {IpAddr::v4(0x05060708), 80}};
  auto made = connect(&addrs);
  ASSERT_TRUE(made);
  made->stream->write(io::as_bytes("GET"));
  ASSERT_TRUE(wait([&] { return events_.connected && peer_; }));
  made->stream->write(io::as_bytes("x"));
  ASSERT_TRUE(wait([&] { return peer_->received.ends_with("x"); }));
  EXPECT_TRUE(peer_->received.starts_with("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n"));
}

TEST_F(ConnectorTest, TlsBehindAProxyHeaderAgreesOnAlpn) {
  model::TlsOrigination tls;
  tls.sni = "web.test";
  use_tls(tls, {"h2"});
  config_.protocol = model::UpstreamProtocol::kAuto;
  auto made = connect();
  ASSERT_TRUE(made);
  ASSERT_TRUE(wait([&] { return events_.ended(); }));
  EXPECT_EQ(events_.error, "");
  ASSERT_NE(made->tls, nullptr);
  EXPECT_EQ(made->tls->alpn(), "h2");
}

TEST_F(ConnectorTest, WrongNameIsRefused) {
  model::TlsOrigination tls;
  tls.sni = "other.test";
  use_tls(tls);
  auto made = connect();
  ASSERT_TRUE(made);
  ASSERT_TRUE(wait([&] { return events_.ended(); }));
  EXPECT_FALSE(events_.connected);
}

TEST_F(ConnectorTest, WithoutANameTheAddressIsChecked) {
  use_tls({});  // the certificate is not good for 127.0.0.1
  auto made = connect();
  ASSERT_TRUE(made);
  ASSERT_TRUE(wait([&] { return events_.ended(); }));
  EXPECT_FALSE(events_.connected);
}

TEST_F(ConnectorTest, VerifySansReplaceTheNameAndSniIsSent) {
  model::TlsOrigination tls;
  tls.sni = "other.test";
  tls.verify_sans = {"spiffe://x/web"};
  use_tls(tls);
  auto made = connect();
  ASSERT_TRUE(made);
  ASSERT_TRUE(wait([&] { return events_.ended(); }));
  ASSERT_EQ(events_.error, "");
  EXPECT_TRUE(check_peer_names(*config_.tls, *made->tls));
  EXPECT_EQ(static_cast<tls::TlsStream&>(peer_->stream()).server_name(), "other.test");

  tls.verify_sans = {"spiffe://x/another"};
  EXPECT_FALSE(check_peer_names(tls, *made->tls));
}

TEST_F(ConnectorTest, AnotherCaIsRefusedUnlessVerificationIsOff) {
  test::TestPki other("another CA");
  model::TlsOrigination tls;
  tls.sni = "web.test";
  tls.ca_pem = other.ca().cert_pem;
  use_tls(tls);
  auto made = connect();
  ASSERT_TRUE(wait([&] { return events_.ended(); }));
  EXPECT_FALSE(events_.connected);

  tls.insecure_skip_verify = true;
  use_tls(tls);
  events_ = {};
  auto again = connect();
  ASSERT_TRUE(wait([&] { return events_.ended(); }));
  EXPECT_TRUE(events_.connected) << events_.error;
}

}  // namespace
}  // namespace edgemesh::proxy
