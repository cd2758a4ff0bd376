// What is told of connections that are forwarded as bytes.
#include <fstream>
#include <sstream>

#include "proxy/telemetry/response_flags.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/proxy_listener/listener_fixture.h"

namespace edgemesh::proxy {
namespace {

class ListenerTelemetry : public ListenerTest {
 protected:
  ListenerTelemetry() {
    TelemetryOptions options;
    options.node = "edge-1";
    options.flags_text = flags_text;
    telemetry_ = std::move(*Telemetry::make(*loop_, std::move(options)));
    L7ProxyOptions proxy;
    proxy.telemetry = telemetry_.get();
    proxy_ = std::move(*L7Proxy::create(*loop_, {loop_.get()}, proxy));
  }
  ~ListenerTelemetry() override {
    proxy_->stop();
    clients_.clear();
    proxy_.reset();
  }
  std::string listeners(const std::string& format) const {
    return fmt::format(
        "- {{name: tcp, address: 127.0.0.1:0, chains: [{{tcp: {{cluster: bytes, accessLog: "
        "[{{path: {}, format: \"{}\"}}]}}}}]}}",
        path_, format);
  }
  std::string line(const std::string& family, const std::string& label) const {
    std::string text;
    telemetry_->append_text(text);
    std::istringstream in(text);
    for (std::string one; std::getline(in, one);)
      if (one.starts_with(family + "{") && one.find(label) != std::string::npos) return one;
    return "";
  }
  std::string log() {
    telemetry_->logs().flush();
    std::ifstream in(path_);
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
  }
  static std::string value(const std::string& line) { return line.substr(line.rfind(' ') + 1); }

  test::TempDir dir_;
  std::string path_ = dir_.path() + "/tcp.log";
  std::unique_ptr<Telemetry> telemetry_;
};

TEST_F(ListenerTelemetry, BytesOfAConnectionAreCountedWhileItIsOpen) {
  ASSERT_TRUE(apply(listeners("%BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER% "
                              "%CONNECTION_TERMINATION_DETAILS% %PROTOCOL%")));
  auto& client = dial("tcp");
  talk(client, "12345", "hello bytes;");
  settle();
  const std::string to = "destination_service_name=\"bytes\"";
  advance(seconds(1));
  EXPECT_EQ(value(line("istio_tcp_connections_opened_total", to)), "1");
  EXPECT_EQ(value(line("istio_tcp_received_bytes_total", to)), "5");
  EXPECT_EQ(value(line("istio_tcp_sent_bytes_total", to)), "12");
  EXPECT_THAT(line("istio_tcp_received_bytes_total", to), HasSubstr("source_node=\"edge-1\""));
  const auto scopes = telemetry_->traffic().scopes(TrafficScope::Kind::kCluster);
  ASSERT_EQ(scopes.size(), 1u);
  EXPECT_EQ(scopes[0]->totals().bytes_received, 5u);
  EXPECT_EQ(scopes[0]->totals().connections_closed, 0u);
  client.send("6");
  settle();
  client.finish();
  servers_.back().raw.back()->finish();
  ASSERT_TRUE(until([&] { return client.eof; }));
  settle();
  EXPECT_EQ(value(line("istio_tcp_connections_closed_total", to)), "1");
  EXPECT_EQ(value(line("istio_tcp_connections_opened_total", to)), "1");
  EXPECT_EQ(scopes[0]->totals().bytes_received, 6u);
  EXPECT_EQ(log(), "6 12 - bytes closed by both sides -\n");
}

TEST_F(ListenerTelemetry, AConnectionThatFailsHasItsFlag) {
  servers_.back().listener.reset();  // nobody takes connections
  ASSERT_TRUE(apply(listeners("%RESPONSE_FLAGS% %UPSTREAM_HOST%")));
  auto& client = dial("tcp");
  ASSERT_TRUE(until([&] { return client.failed || client.eof; }));
  settle();
  EXPECT_EQ(log(), "UF " + bytes_.to_string() + "\n");
  EXPECT_EQ(value(line("istio_tcp_connections_closed_total", "response_flags=\"UF\"")), "1");
}

}  // namespace
}  // namespace edgemesh::proxy
