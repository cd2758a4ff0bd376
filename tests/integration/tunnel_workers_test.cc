// Captured connections of every worker of one agent, through a mesh tunnel, to endpoints of another
// agent: client -> L7Proxy on worker 1 or 2 -> the first worker's tunnel -> Inbound -> server. Both
// agents with threads of their own.
#include <atomic>
#include <fstream>
#include <sstream>

#include "p2p/mesh.h"
#include "proxy/listener/l7_proxy.h"
#include "proxy/model/config.h"
#include "proxy/proxy.h"
#include "proxy/telemetry/response_flags.h"
#include "proxy_support.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_pki.h"

namespace edgemesh::proxy::testing_parts {
namespace {

using namespace std::chrono_literals;

struct Agent {
  obs::Registry registry;
  std::unique_ptr<Telemetry> telemetry;
  std::unique_ptr<Proxy> proxy;
  std::unique_ptr<L7Proxy> l7;
  std::unique_ptr<p2p::Mesh> mesh;
};

class TunnelWorkersTest : public ::testing::TestWithParam<const char*> {
 protected:
  static constexpr int kWorkers = 3;

  TunnelWorkersTest() : loop(std::move(*io::Loop::create())) {
    make("a", kWorkers);
    make("b", 1);
    auto listener = io::TcpListener::listen(
        *loop, loopback(), [this](io::Fd fd, const SockAddr& peer) { give(std::move(fd), peer); });
    EXPECT_TRUE(listener);
    captured = std::move(*listener);
    open_http();
    for (auto& [name, agent] : agents) agent->proxy->start();
    for (auto& [name, agent] : agents) join(name);
  }
  ~TunnelWorkersTest() override {
    captured.reset();
    a().l7->set_dialer(nullptr);
    a().l7->stop();
    for (auto& [name, agent] : agents) {
      agent->proxy->set_dialer(nullptr);
      agent->mesh.reset();
      agent->proxy->stop();
    }
    a().l7.reset();
  }
  static bool direct() { return std::string_view(GetParam()) == "direct"; }

  void make(const std::string& name, int workers) {
    auto& agent = agents[name] = std::make_unique<Agent>();
    ProxyOptions options;
    options.workers = workers;
    options.l4.node = name;
    options.l4.access_log = false;
    options.drain_timeout = 300ms;
    auto proxy = Proxy::create(*loop, options, agent->registry);
    ASSERT_TRUE(proxy) << proxy.error().message;
    agent->proxy = std::move(*proxy);
  }
  void open_http() {
    auto config = model::parse_config(
        fmt::format("telemetry: {{accessLog: [{{path: {}, format: \"%REQ(:PATH)%|%RESPONSE_CODE%|"
                    "%RESPONSE_FLAGS%|%UPSTREAM_PATH%|%BYTES_SENT%\"}}]}}\n",
                    log_path),
        "test");
    ASSERT_TRUE(config) << config.error().message;
    auto telemetry = Telemetry::make(*loop, {.workers = kWorkers,
                                             .spec = (*config)->telemetry,
                                             .node = "a",
                                             .flags_text = &flags_text});
    ASSERT_TRUE(telemetry);
    a().telemetry = std::move(*telemetry);
    L7ProxyOptions options;
    options.connector.node = "a";
    options.place.node = "a";
    options.capture_services = true;
    options.telemetry = a().telemetry.get();
    auto made = L7Proxy::create(*loop, a().proxy->worker_loops(), options);
    ASSERT_TRUE(made);
    a().l7 = std::move(*made);
    ASSERT_TRUE(a().l7->apply(*config));
  }
  // Also when it was a member before, and left.
  void join(const std::string& name) {
    Agent& agent = *agents[name];
    auto identity =
        pki.issue("system:node:" + name, {{tls::node_spiffe_id("edgemesh.local", name)}, {}, {}});
    p2p::MeshOptions options;
    options.node = name;
    options.cert_pem = identity.cert_pem;
    options.key_pem = identity.key_pem;
    options.ca_pem = pki.ca().cert_pem;
    options.direct_listen = loopback();
    options.direct_enabled = direct();
    options.ice_enabled = !direct();
    options.loopback_candidates = true;
    options.open_timeout = 5s;
    p2p::Hooks hooks;
    hooks.send_signal = [this, name](const std::string& to, std::string json) {
      if (Agent& other = *agents[to]; other.mesh != nullptr)
        other.mesh->on_signal(name, json);
      else if (agents[name]->mesh != nullptr)
        agents[name]->mesh->on_signal_error(to, "node " + to + " is not connected");
    };
    hooks.persist = [](std::vector<p2p::KnownPeer>) {};
    run_all_once();
    agent.mesh = test::TestPki::take(p2p::Mesh::create(*loop, agent.proxy->tunnel_loop(), options,
                                                       std::move(hooks), agent.proxy->acceptor()));
    agent.proxy->set_dialer(&agent.mesh->dialer());
    if (agent.l7 != nullptr) agent.l7->set_dialer(&agent.mesh->dialer());
    if (direct() && a().mesh != nullptr && b().mesh != nullptr)
      a().mesh->known_peers({{"b", {{IpAddr::loopback(), b().mesh->direct_port()}}}});
  }
  // Every worker is known to run.
  void run_all_once() {
    std::atomic<size_t> ran{0};
    size_t all = 0;
    for (auto& [name, agent] : agents)
      for (io::Loop* one : agent->proxy->worker_loops()) {
        ++all;
        one->post([&ran] { ++ran; });
      }
    ASSERT_TRUE(wait([&] { return ran == all; }));
  }
  void serve(const SockAddr& endpoint) {
    const auto snapshot = make_snapshot(*loop, vip, {{endpoint, "b"}}, "http");
    for (auto& [name, agent] : agents) agent->proxy->set_snapshot(snapshot);
    a().l7->set_snapshot(snapshot);
  }
  // What capture does with a connection that worker `worker` accepted.
  void give(io::Fd fd, const SockAddr& peer) {
    ++given;
    io::Loop& worker_loop = *a().proxy->worker_loops()[static_cast<size_t>(worker)];
    worker_loop.post(
        [this, worker = worker, peer, shared = std::make_shared<io::Fd>(std::move(fd))] {
          if (!a().l7->take_captured(worker, *shared, peer, vip)) ++not_taken;
        });
  }
  Peer& dial(int to_worker) {
    worker = to_worker;
    auto stream = io::TcpStream::connect(*loop, captured->local_addr());
    EXPECT_TRUE(stream);
    clients.push_back(std::make_unique<Peer>(std::move(*stream)));
    const int count = ++dialed;
    EXPECT_TRUE(wait([&] { return given == count; }));
    return *clients.back();
  }
  Peer& get(int to_worker, const std::string& path) {
    Peer& client = dial(to_worker);
    client.send_text("GET " + path + " HTTP/1.1\r\nHost: svc\r\n\r\n");
    return client;
  }
  // Nobody has anything left of what was, once the server has let go its connections, kept ones
  // too.
  bool nothing_left(Server& server) {
    clients.clear();
    return wait([&] {
      server.peers.clear();
      const L7Totals totals = a().l7->totals();
      size_t streams = 0;
      for (auto& [name, agent] : agents)
        if (agent->mesh != nullptr)
          for (const auto& peer : agent->mesh->peers()) streams += peer.streams;
      return totals.active_requests == 0 && totals.active_connections == 0 && streams == 0 &&
             b().proxy->totals().active == 0;
    });
  }
  uint64_t requests_of(int of) {
    std::string text;
    a().l7->append_metrics(text);
    const std::string name =
        fmt::format("\nedgemesh_http_worker_requests_total{{worker=\"{}\"}} ", of);
    const size_t at = text.find(name);
    return at == std::string::npos ? 0
                                   : std::strtoull(text.c_str() + at + name.size(), nullptr, 10);
  }
  std::string log() {
    a().telemetry->reopen_logs();
    std::string text;
    EXPECT_TRUE(wait([&] {
      std::ifstream in(log_path);
      text.assign(std::istreambuf_iterator<char>(in), {});
      return !text.empty();
    }));
    return text;
  }
  Agent& a() { return *agents["a"]; }
  Agent& b() { return *agents["b"]; }
  bool wait(const std::function<bool()>& done) { return loop->run_until(done, 20s); }

  test::TempDir dir;
  std::string log_path = dir.path() + "/access.log";
  test::TestPki pki;
  std::unique_ptr<io::Loop> loop;
  std::map<std::string, std::unique_ptr<Agent>> agents;
  std::unique_ptr<io::TcpListener> captured;
  std::vector<std::unique_ptr<Peer>> clients;
  SockAddr vip = addr("10.96.0.10:80");
  int worker = 0, dialed = 0, given = 0;
  std::atomic<int> not_taken{0};
};

// An HTTP server that answers with 100,000 bytes, but nothing to /silent; what is no HTTP comes
// back.
void web(Peer& peer) {
  peer.on_data = [](Peer& p) {
    if (!p.text.starts_with("GET ")) {
      p.send_text(p.text);
      p.text.clear();
      return;
    }
    for (size_t end; (end = p.text.find("\r\n\r\n")) != std::string::npos;) {
      const bool silent = p.text.starts_with("GET /silent");
      p.text.erase(0, end + 4);
      if (!silent)
        p.send_text("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" +
                    std::string(100'000, 'y'));
    }
  };
  peer.on_eof = [](Peer& p) { p.end(); };
}

TEST_P(TunnelWorkersTest, HttpFromEveryWorker) {
  Server server(*loop, web);
  serve(server.address());
  for (int round = 0; round < 3; ++round)
    for (int i = 0; i < kWorkers; ++i) {
      Peer& client = get(i, "/x");
      ASSERT_TRUE(wait([&] { return client.received > 100'000; })) << client.text.substr(0, 300);
      EXPECT_TRUE(client.text.starts_with("HTTP/1.1 200 OK")) << client.text.substr(0, 300);
    }
  EXPECT_EQ(not_taken, 0);
  for (int i = 0; i < kWorkers; ++i) EXPECT_EQ(requests_of(i), 3u);
  EXPECT_TRUE(nothing_left(server));
  // The first request, too, tells what carried it.
  std::istringstream lines(log());
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count)
    EXPECT_EQ(line, fmt::format("/x|200|-|{}|100000", GetParam()));
  EXPECT_GT(count, 0);
}

TEST_P(TunnelWorkersTest, BytesFromEveryWorker) {
  Server server(*loop, web);
  serve(server.address());
  for (int i = 0; i < kWorkers; ++i) {
    Peer& client = dial(i);
    client.send_text("SSH-2.0-something\r\n");
    ASSERT_TRUE(wait([&] { return client.text == "SSH-2.0-something\r\n"; })) << client.text;
    client.end();
    ASSERT_TRUE(wait([&] { return client.eof; }));
  }
  EXPECT_TRUE(nothing_left(server));
}

TEST_P(TunnelWorkersTest, TheTunnelIsLostInTheMiddle) {
  Server server(*loop, web);
  serve(server.address());
  std::vector<Peer*> silent;
  for (int i = 0; i < kWorkers; ++i) silent.push_back(&get(i, "/silent"));
  ASSERT_TRUE(wait([&] { return server.peers.size() == kWorkers; }));
  Peer& bytes = dial(1);
  bytes.send_text("SSH-2.0-something\r\n");
  ASSERT_TRUE(wait([&] { return !bytes.text.empty(); }));

  b().proxy->set_dialer(nullptr);
  b().mesh.reset();
  // The endpoint may have begun what was asked: nobody asks again.
  for (Peer* client : silent) {
    ASSERT_TRUE(wait([&] { return !client->text.empty(); }));
    EXPECT_TRUE(client->text.starts_with("HTTP/1.1 503 ")) << client->text;
  }
  ASSERT_TRUE(wait([&] { return bytes.eof || bytes.failed; }));
  EXPECT_EQ(server.peers.size(), kWorkers + 1U);
  EXPECT_TRUE(nothing_left(server));

  join("b");
  for (int i = 0; i < kWorkers; ++i) {
    Peer& client = get(i, "/again");
    ASSERT_TRUE(wait([&] { return client.received > 100'000; })) << client.text.substr(0, 300);
  }
  EXPECT_TRUE(nothing_left(server));
}

// Clients that leave in the middle of everything, then the end of the agent with work under way.
TEST_P(TunnelWorkersTest, ClientsLeaveInTheMiddle) {
  Server server(*loop, web);
  serve(server.address());
  for (int i = 0; i < 30; ++i) {
    Peer& client = get(i % kWorkers, i % 2 == 0 ? "/silent" : "/x");
    if (i % 3 == 0) client.close();
  }
  EXPECT_TRUE(nothing_left(server));
  for (int i = 0; i < kWorkers; ++i) get(i, "/silent");
}

INSTANTIATE_TEST_SUITE_P(Paths, TunnelWorkersTest, testing::Values("direct", "punched"),
                         [](const auto& path) { return std::string(path.param); });

}  // namespace
}  // namespace edgemesh::proxy::testing_parts
