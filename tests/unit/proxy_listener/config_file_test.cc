// The configuration's file read again while connections are served.
#include "proxy/listener/config_file.h"

#include <fstream>
#include <map>

#include "tests/support/temp_dir.h"
#include "tests/unit/proxy_listener/listener_fixture.h"

namespace edgemesh::proxy {
namespace {

class ConfigFileTest : public ListenerTest {
 protected:
  void SetUp() override { file_ = std::make_unique<ConfigFile>(*loop_, *proxy_, path_, registry_); }
  void TearDown() override { file_.reset(); }

  void write(const std::string& text) { std::ofstream(path_) << text; }
  // `count` clusters, one of them with another timeout, and a listener whose answers say `body`.
  static std::string text(int count, int changed, const std::string& body) {
    std::string out =
        "listeners:\n- {name: web, address: 127.0.0.1:0, chains: [{http: {routes: r}}]}\n"
        "routes:\n- name: r\n  hosts:\n  - domains: [\"*\"]\n    routes:\n"
        "    - {match: {prefix: /}, respond: {body: " +
        body + "}}\nclusters:\n";
    for (int i = 0; i < count; ++i)
      out += fmt::format(
          "- {{name: c{}, connectTimeout: {}s, endpoints: [{{address: \"10.0.0.1:80\"}}]}}\n", i,
          i == changed ? 7 : 3);
    return out;
  }
  Result<> reload() {
    std::optional<Result<>> result;
    file_->reload([&](Result<> done) { result = std::move(done); });
    EXPECT_TRUE(until([&] { return result.has_value(); }));
    settle(5);
    return result ? *result : Result<>();
  }
  std::map<std::string, const HostSet*> sets() {
    std::map<std::string, const HostSet*> out;
    for (const auto& set : proxy_->clusters()) {
      out[set->cluster().name] = set.get();
      kept_.push_back(set);  // an address is not used again
    }
    return out;
  }

  test::TempDir dir_;
  obs::Registry registry_;
  std::string path_ = dir_.file("proxy.yaml");
  std::unique_ptr<ConfigFile> file_;
  std::vector<std::shared_ptr<const HostSet>> kept_;
};

TEST_F(ConfigFileTest, AChangeToOneClusterIsWorkForOne) {
  write(text(200, -1, "one"));
  ASSERT_TRUE(reload());
  const auto before = sets();
  ASSERT_EQ(before.size(), 200U);
  const auto routes = proxy_->config()->routes.at("r");

  write(text(200, 17, "one"));
  ASSERT_TRUE(reload());

  const auto after = sets();
  ASSERT_EQ(after.size(), 200U);
  for (const auto& [name, set] : after) EXPECT_EQ(set == before.at(name), name != "c17") << name;
  EXPECT_EQ(proxy_->config()->routes.at("r"), routes);
}

TEST_F(ConfigFileTest, WhatIsWrongChangesNothingAndIsNamed) {
  write(text(2, -1, "one"));
  ASSERT_TRUE(reload());
  const auto config = proxy_->config();
  write(text(2, -1, "two") + "bogus: 1\n");

  const auto wrong = reload();

  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message, HasSubstr(path_));
  EXPECT_THAT(wrong.error().message, HasSubstr("bogus"));
  EXPECT_EQ(proxy_->config(), config);
  EXPECT_THAT(talk(dial("web"), get("/"), "one"), HasSubstr("200"));
}

TEST_F(ConfigFileTest, AnOpenConnectionFollowsTheNewRoutes) {
  write(text(2, -1, "one"));
  ASSERT_TRUE(reload());
  auto& client = dial("web");
  talk(client, get("/"), "one");
  const auto addr = addr_of("web");

  write(text(2, -1, "two"));
  ASSERT_TRUE(reload());

  EXPECT_THAT(talk(client, get("/"), "two"), HasSubstr("two"));
  EXPECT_EQ(addr_of("web"), addr);
}

// The second one asks while the first is read: the file may have changed since.
TEST_F(ConfigFileTest, WhoAsksMeanwhileGetsAReadingOfHisOwn) {
  write(text(2, -1, "one"));
  int answers = 0;
  file_->reload([&](Result<> done) {
    EXPECT_TRUE(done);
    ++answers;
  });
  write(text(3, -1, "two"));
  for (int i = 0; i < 2; ++i) {
    file_->reload([&](Result<> done) {
      EXPECT_TRUE(done);
      EXPECT_EQ(proxy_->config()->clusters.size(), 3U);
      ++answers;
    });
  }
  ASSERT_TRUE(until([&] { return answers == 3; }));
}

TEST_F(ConfigFileTest, ItMayEndWhileItReads) {
  write(text(100, -1, "one"));
  bool told = false;
  file_->reload([&](Result<>) { told = true; });
  file_.reset();
  settle(50);
  EXPECT_FALSE(told);
}

// Certificates of a listener and of the way to a cluster's endpoints, in files.
class CertificateFilesTest : public ConfigFileTest {
 protected:
  void SetUp() override {
    put("server", pki_.issue("first", {{}, {"localhost"}, {"127.0.0.1"}}));
    put("client", pki_.issue("client-1"));
    std::ofstream(dir_.file("ca.crt")) << pki_.ca().cert_pem;
    backend_ = serve_tls();
    write(fmt::format(
        "listeners:\n- name: web\n  address: 127.0.0.1:0\n  chains:\n"
        "  - tls: {{certFile: {0}/server.crt, keyFile: {0}/server.key}}\n    http: {{routes: r}}\n"
        "routes:\n- name: r\n  hosts:\n  - domains: [\"*\"]\n    routes:\n"
        "    - {{match: {{prefix: /far}}, cluster: far}}\n"
        "    - {{match: {{prefix: /}}, respond: {{body: here}}}}\n"
        "clusters:\n- name: far\n  endpoints: [{{address: \"{1}\", hostname: localhost}}]\n"
        "  maxRequestsPerConnection: 1\n"
        "  tls: {{caFile: {0}/ca.crt, certFile: {0}/client.crt, keyFile: {0}/client.key}}\n",
        dir_.path(), backend_.to_string()));
    auto config = model::load_config(path_);
    ASSERT_TRUE(config) << config.error().message;
    ASSERT_TRUE(proxy_->apply(*config));
    ConfigFileTest::SetUp();
    files_change();
  }
  void put(const std::string& name, const tls::KeyAndCert& pair) {
    std::ofstream(dir_.file(name + ".crt")) << pair.cert_pem;
    std::ofstream(dir_.file(name + ".key")) << pair.key_pem;
  }
  // Until what was written was seen and read; both take real time.
  void files_change() {
    for (int i = 0; i < 3; ++i) {
      settle(10);
      advance(milliseconds(300));
      settle(20);
    }
  }
  // Of the certificate that a new connection is shown.
  std::string shown_name() {
    auto& client = dial_tls(addr_of("web"), pki_, "localhost", {"http/1.1"});
    EXPECT_THAT(talk(client, get("/"), "here"), HasSubstr("200"));
    return tls_->peer() != nullptr ? tls_->peer()->common_name : "";
  }
  std::string counted() {
    std::string text = registry_.text();
    std::string out;
    for (const char* result : {"replaced", "refused"}) {
      const std::string line =
          fmt::format("edgemesh_certificate_reloads_total{{result=\"{}\"}} ", result);
      const size_t at = text.find(line);
      if (at != std::string::npos) out += text.substr(at + line.size(), 1);
    }
    return out;
  }
  // An endpoint that answers with the name in the client's certificate.
  SockAddr serve_tls() {
    auto context = pki_.server(pki_.localhost(), tls::ContextOptions::kRequired);
    auto accept = [this, context](io::Fd fd, const SockAddr&) {
      auto plain = io::TcpStream::adopt(*loop_, std::move(fd));
      if (!plain) return;
      auto stream = tls::TlsStream::server(*loop_, std::move(*plain), context);
      if (!stream) return;
      const tls::TlsStream* secured = stream->get();
      auto& side = *backends_.emplace_back(std::make_unique<h1test::ServerSide>());
      side.hook = [secured](Side& request) {
        const tls::PeerIdentity* peer = secured->peer();
        h1test::answer(*request.stream, 200, (peer != nullptr ? peer->common_name : "?") + ".");
        request.stream.reset();
      };
      side.connection = make_h1_server(*loop_, *batch_, std::move(*stream), {}, &side);
    };
    tls_listener_ =
        std::move(*io::TcpListener::listen(*loop_, SockAddr{IpAddr::v4(0x7f000001), 0}, accept));
    return tls_listener_->local_addr();
  }

  test::TestPki pki_;
  SockAddr backend_;
  std::unique_ptr<io::TcpListener> tls_listener_;
  std::vector<std::unique_ptr<h1test::ServerSide>> backends_;
};

TEST_F(CertificateFilesTest, NewHandshakesGetTheNewCertificate) {
  auto& open = dial_tls(addr_of("web"), pki_, "localhost", {"http/1.1"});
  talk(open, get("/"), "here");
  EXPECT_EQ(shown_name(), "first");

  put("server", pki_.issue("second", {{}, {"localhost"}, {"127.0.0.1"}}));
  files_change();

  EXPECT_EQ(shown_name(), "second");
  EXPECT_EQ(counted(), "10");
  open.received.clear();
  EXPECT_THAT(talk(open, get("/"), "here"), HasSubstr("200"));  // what was open goes on
}

TEST_F(CertificateFilesTest, WhatDoesNotFitTogetherIsNotTaken) {
  std::ofstream(dir_.file("server.key")) << pki_.issue("other").key_pem;
  files_change();
  EXPECT_EQ(shown_name(), "first");
  EXPECT_EQ(counted(), "01");

  std::ofstream(dir_.file("server.crt")) << "junk";
  files_change();
  EXPECT_EQ(shown_name(), "first");

  put("server", pki_.issue("second", {{}, {"localhost"}, {"127.0.0.1"}}));
  files_change();
  EXPECT_EQ(shown_name(), "second");
  EXPECT_EQ(counted().substr(0, 1), "1");
}

TEST_F(CertificateFilesTest, TheWayToEndpointsToo) {
  auto& client = dial_tls(addr_of("web"), pki_, "localhost", {"http/1.1"});
  EXPECT_THAT(talk(client, get("/far"), "client-1."), HasSubstr("200"));

  put("client", pki_.issue("client-2"));
  files_change();

  EXPECT_THAT(talk(client, get("/far"), "client-2."), HasSubstr("client-2."));
}

TEST_F(CertificateFilesTest, WhenTheyEndIsTold) {
  std::string text;
  proxy_->append_metrics(text);
  const auto ends = [&](const std::string& labels) {
    const std::string line = "edgemesh_certificate_not_after_seconds{" + labels + "} ";
    const size_t at = text.find(line);
    return at == std::string::npos ? 0 : std::stoll(text.substr(at + line.size()));
  };
  EXPECT_NEAR(static_cast<double>(ends("listener=\"web\",cluster=\"\",name=\"\"")),
              static_cast<double>(test::TestPki::now() + 3600), 60);
  EXPECT_NE(ends("listener=\"\",cluster=\"far\",name=\"\""), 0);
}

// A change in them does not read the configuration's file again.
TEST_F(CertificateFilesTest, TheConfigurationStays) {
  write("no: yaml: at: all");
  put("server", pki_.issue("second", {{}, {"localhost"}, {"127.0.0.1"}}));
  files_change();
  EXPECT_EQ(shown_name(), "second");
}

}  // namespace
}  // namespace edgemesh::proxy
