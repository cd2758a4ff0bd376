// Datagrams from one agent's listener through the mesh to an endpoint of another agent, over each
// kind of tunnel: client -> UdpListener -> CONNECT-UDP -> UdpInbound -> server, in one loop.
#include "core/io/udp.h"
#include "p2p/mesh.h"
#include "proxy/udp/udp_inbound.h"
#include "proxy/udp/udp_listener.h"
#include "proxy_support.h"
#include "tests/support/test_pki.h"

namespace edgemesh::proxy::testing_parts {
namespace {

using namespace std::chrono_literals;

class Socket {
 public:
  Socket(io::Loop& loop, bool echo) {
    auto made = io::UdpSocket::bind(
        loop, loopback(),
        [this, echo](std::span<const uint8_t> data, size_t, const SockAddr& from) {
          got.emplace_back(data.begin(), data.end());
          if (echo) (void)socket_->send_to(data, from);
        },
        {});
    EXPECT_TRUE(made);
    socket_ = std::move(*made);
  }
  SockAddr address() const { return socket_->local_addr(); }
  void send(std::string_view text, const SockAddr& to) {
    EXPECT_TRUE(socket_->send_to(io::as_bytes(text), to));
  }
  std::vector<std::string> got;

 private:
  std::unique_ptr<io::UdpSocket> socket_;
};

// UDP endpoints of default/svc; with `protocol` TCP, endpoints that are none for datagrams.
std::shared_ptr<const discovery::Snapshot> udp_snapshot(io::Loop& loop,
                                                        const std::vector<TestEndpoint>& endpoints,
                                                        const std::string& protocol = "UDP") {
  discovery::Registry registry(loop);
  kube::Service service;
  service.ns = "default";
  service.name = "svc";
  service.cluster_ip = "10.96.0.10";
  service.cluster_ips = {service.cluster_ip};
  kube::ServicePort port;
  port.name = "main";
  port.port = 53;
  port.protocol = protocol;
  service.ports = {port};
  registry.upsert_service(service);
  int number = 0;
  for (const TestEndpoint& endpoint : endpoints) {
    kube::EndpointSlice slice;
    slice.ns = "default";
    slice.name = "svc-" + std::to_string(number++);
    slice.service_name = "svc";
    kube::SliceEndpoint one;
    one.addresses = {endpoint.addr.ip.to_string()};
    one.node_name = endpoint.node;
    slice.endpoints = {one};
    kube::EndpointSlice::Port target;
    target.name = "main";
    target.protocol = protocol;
    target.port = endpoint.addr.port;
    slice.ports = {target};
    registry.upsert_slice(slice);
  }
  return registry.snapshot();
}

struct Agent final : p2p::Acceptor {
  Agent(io::Loop& loop, const std::string& name)
      : context(loop, options_of(name), registry, 0), inbound(context, snapshot) {}
  static UdpOptions options_of(const std::string& name) {
    UdpOptions options;
    options.node = name;
    options.access_log = false;
    return options;
  }
  void on_connect(std::unique_ptr<p2p::IncomingConnect> connect) override {
    ASSERT_TRUE(connect->udp());
    inbound.on_connect(std::move(connect));
  }
  obs::Registry registry;
  std::shared_ptr<const discovery::Snapshot> snapshot;
  UdpContext context;
  UdpInbound inbound;
  std::unique_ptr<p2p::Mesh> mesh;
};

class UdpTunnelTest : public ::testing::TestWithParam<const char*> {
 protected:
  UdpTunnelTest() : loop(std::move(*io::Loop::create())) {
    for (const char* name : {"a", "b"}) join(name);
    if (std::string_view(GetParam()) == "direct")
      agents["a"]->mesh->known_peers(
          {{"b", {{IpAddr::loopback(), agents["b"]->mesh->direct_port()}}}});
    a().context.dialer = &a().mesh->dialer();
  }
  ~UdpTunnelTest() override {
    listener.reset();
    for (auto& [name, agent] : agents) {
      agent->mesh.reset();
      agent->inbound.abort_all();
    }
  }
  void join(const std::string& name) {
    auto identity =
        pki.issue("system:node:" + name, {{tls::node_spiffe_id("edgemesh.local", name)}, {}, {}});
    p2p::MeshOptions options;
    options.node = name;
    options.cert_pem = identity.cert_pem;
    options.key_pem = identity.key_pem;
    options.ca_pem = pki.ca().cert_pem;
    options.direct_listen = loopback();
    options.direct_enabled = std::string_view(GetParam()) == "direct";
    options.ice_enabled = !options.direct_enabled;
    options.loopback_candidates = true;
    p2p::Hooks hooks;
    hooks.send_signal = [this, name](const std::string& to, std::string json) {
      if (auto it = agents.find(to); it != agents.end() && it->second->mesh)
        it->second->mesh->on_signal(name, json);
    };
    hooks.persist = [](std::vector<p2p::KnownPeer>) {};
    agents[name] = std::make_unique<Agent>(*loop, name);
    agents[name]->mesh = test::TestPki::take(
        p2p::Mesh::create(*loop, *loop, options, std::move(hooks), *agents[name]));
  }
  // What both know; `known_to_b` where they differ.
  void serve(const std::vector<TestEndpoint>& endpoints, const std::string& known_to_b = "UDP") {
    service = udp_snapshot(*loop, endpoints);
    b().snapshot = udp_snapshot(*loop, endpoints, known_to_b);
    auto entry = service->by_name("default", "svc");
    UdpListenOptions options;
    options.listen = loopback();
    auto made = UdpListener::listen(
        a().context, options,
        std::make_unique<ServiceDirectory>("a", "", service, entry->shared_from_this()));
    ASSERT_TRUE(made);
    listener = std::move(*made);
  }
  Agent& a() { return *agents["a"]; }
  Agent& b() { return *agents["b"]; }
  bool wait(const std::function<bool()>& done) { return loop->run_until(done, 20s); }

  test::TestPki pki;
  std::unique_ptr<io::Loop> loop;
  std::map<std::string, std::unique_ptr<Agent>> agents;
  std::shared_ptr<const discovery::Snapshot> service;
  std::unique_ptr<UdpListener> listener;
};

TEST_P(UdpTunnelTest, CarriesDatagramsOfAllSizesBothWays) {
  Socket server(*loop, true), client(*loop, false), other(*loop, false);
  serve({{server.address(), "b"}});

  // The first one waits for the tunnel.
  client.send("first", listener->local_addr());
  ASSERT_TRUE(wait([&] { return client.got.size() == 1; }));
  EXPECT_EQ(client.got[0], "first");
  EXPECT_EQ(p2p::to_string(a().mesh->dialer().path_kind("b")), GetParam());
  for (size_t size : {size_t{0}, size_t{1}, size_t{1472}, size_t{9000}, size_t{65'507}}) {
    client.got.clear();
    std::string data(size, 'x');
    for (size_t i = 0; i < size; ++i) data[i] = static_cast<char>(pattern(i));
    client.send(data, listener->local_addr());
    ASSERT_TRUE(wait([&] { return client.got.size() == 1; })) << size;
    EXPECT_TRUE(client.got[0] == data) << size;
  }
  other.send("other", listener->local_addr());
  ASSERT_TRUE(wait([&] { return other.got.size() == 1; }));
  EXPECT_EQ(b().inbound.flows(), 2u);
  EXPECT_EQ(b().context.metrics.inbound_opened.value(), 2u);
}

TEST_P(UdpTunnelTest, FlowsEndOnBothSides) {
  Socket server(*loop, true), client(*loop, false);
  serve({{server.address(), "b"}});
  client.send("x", listener->local_addr());
  ASSERT_TRUE(wait([&] { return client.got.size() == 1; }));

  listener.reset();

  ASSERT_TRUE(wait([&] { return b().inbound.flows() == 0 && a().context.closing.size() == 0; }));
  EXPECT_EQ(b().context.metrics.ended[static_cast<size_t>(FlowEnd::kIdle)]->value(), 1u)
      << "ended in order, not broken off";
}

TEST_P(UdpTunnelTest, EndpointsOfTcpPortsAreNotReached) {
  Socket server(*loop, true), client(*loop, false);
  serve({{server.address(), "b"}}, "TCP");

  client.send("x", listener->local_addr());

  ASSERT_TRUE(wait([&] { return a().context.metrics.refused.value() == 1; }));
  EXPECT_EQ(b().context.metrics.inbound_refused.value(), 1u);
  EXPECT_EQ(server.got.size(), 0u);
  EXPECT_EQ(b().inbound.flows(), 0u);
}

TEST_P(UdpTunnelTest, AnUnreachablePortIsLeftForTheNextEndpoint) {
  Socket server(*loop, true), client(*loop, false);
  SockAddr dead = Socket(*loop, false).address();
  serve({{dead, "b"}, {server.address(), "b"}});

  // Whichever comes first: in the end all goes to the one that lives.
  for (int i = 0; i < 4; ++i) {
    const size_t before = client.got.size();
    const auto refused = a().context.metrics.refused.value();
    client.send("try", listener->local_addr());
    ASSERT_TRUE(wait([&] {
      return client.got.size() > before || a().context.metrics.refused.value() > refused;
    }));
  }
  const size_t before = client.got.size();
  client.send("last", listener->local_addr());
  ASSERT_TRUE(wait([&] { return client.got.size() > before; }));
  EXPECT_EQ(client.got.back(), "last");
}

INSTANTIATE_TEST_SUITE_P(Paths, UdpTunnelTest, ::testing::Values("direct", "punched"),
                         [](const auto& path) { return std::string(path.param); });

}  // namespace
}  // namespace edgemesh::proxy::testing_parts
