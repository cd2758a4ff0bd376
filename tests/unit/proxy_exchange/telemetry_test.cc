// What is told of requests: access log, Istio's metrics, counts by listener, cluster and route,
// trace context and spans.
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/http/server.h"
#include "proxy/listener/l7_proxy.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/proxy_exchange/exchange_fixture.h"

namespace edgemesh::proxy {
namespace {

using nlohmann::json;
using Kind = TrafficScope::Kind;

class ExchangeTelemetry : public ExchangeTest {
 protected:
  std::string log() {
    telemetry_->logs().flush();
    std::ifstream in(path_);
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
  }
  std::string metrics() const {
    std::string out;
    telemetry_->append_text(out);
    return out;
  }
  // The line of `family` that has all of these; empty: none.
  std::string metric(const std::string& family, const std::vector<std::string>& labels) const {
    std::istringstream in(metrics());
    for (std::string line; std::getline(in, line);) {
      bool fits = line.starts_with(family + "{");
      for (const auto& label : labels) fits &= line.find(label) != std::string::npos;
      if (fits) return line;
    }
    return "";
  }
  static std::string value(const std::string& line) { return line.substr(line.rfind(' ') + 1); }
  ProxyYaml logged(const std::string& format) {
    ProxyYaml yaml;
    yaml.http = fmt::format("accessLog: [{{path: {}, format: \"{}\"}}]", path_, format);
    return yaml;
  }
  std::shared_ptr<const TrafficScope> scope(Kind kind, const std::string& name) {
    for (const auto& one : telemetry_->traffic().scopes(kind))
      if (one->name() == name) return one;
    return nullptr;
  }

  test::TempDir dir_;
  std::string path_ = dir_.path() + "/access.log";
};

TEST_F(ExchangeTelemetry, TheAccessLogHasALineARequest) {
  tell({});
  configure(
      logged("%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% "
             "%RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %UPSTREAM_HOST% "
             "%UPSTREAM_CLUSTER_RAW% %ROUTE_NAME% %GRPC_STATUS% %CONNECTION_TERMINATION_DETAILS%"));
  Client& client = connect();
  a().reply = [this](Side& side) {
    clock_.advance(milliseconds(7));
    answer_default(side);
  };
  ask(client, "POST", "/x", {}, "12345");
  EXPECT_EQ(log(), "POST /x HTTP/1.1 200 - via_upstream 5 26 7 10.0.0.1:80 a - - -\n");
}

TEST_F(ExchangeTelemetry, AFailureIsLoggedWithItsFlagAndEndpoint) {
  tell({});
  configure(
      logged("%RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_HOST% "
             "%UPSTREAM_TRANSPORT_FAILURE_REASON%"));
  a().refuse = true;
  Client& client = connect();
  get(client, "/");
  EXPECT_THAT(log(), HasSubstr("503 UF 10.0.0.1:80 connect"));
  EXPECT_THAT(
      value(metric("istio_requests_total", {"response_code=\"503\"", "response_flags=\"UF\""})),
      "1");
  EXPECT_EQ(scope(Kind::kCluster, "a")->totals().resets, 1u);
}

// The codec answers it: one request, one line, with the status that the client saw.
TEST_F(ExchangeTelemetry, ABodyThatCannotBeReadIsOneLine) {
  tell({});
  configure(logged("%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS%"));
  Client& client = connect_raw();
  client.raw->send("POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
  settle();
  EXPECT_THAT(client.raw->received, testing::StartsWith("HTTP/1.1 400 "));
  EXPECT_EQ(log(), "/x 400 DPE\n");
}

TEST_F(ExchangeTelemetry, LogsOfTheProcessAreForChainsWithoutTheirOwn) {
  tell({});
  ProxyYaml yaml;
  configure_text(yaml.text() +
                 fmt::format("telemetry: {{accessLog: [{{path: {}, json: "
                             "{{code: \"%RESPONSE_CODE%\", path: \"%REQ(:PATH)%\"}}}}]}}\n",
                             path_));
  Client& client = connect();
  get(client, "/one");
  const json line = json::parse(log());
  EXPECT_EQ(line["code"], 200);
  EXPECT_EQ(line["path"], "/one");
}

TEST_F(ExchangeTelemetry, MetricsHaveIstiosLabels) {
  tell({});
  ProxyYaml yaml;
  yaml.routes =
      "- {name: shop, match: {prefix: /}, cluster: \"outbound|80||cart.shop.svc.cluster.local\"}";
  yaml.clusters = R"(- name: "outbound|80||cart.shop.svc.cluster.local"
  endpoints: [{address: "10.0.0.1:80", labels: {app: cart, version: v2}}])";
  configure(yaml);
  Client& client = connect();
  ask(client, "POST", "/", {}, "1234567");
  get(client, "/");
  const std::vector<std::string> labels = {"reporter=\"source\"",
                                           "source_node=\"edge-1\"",
                                           "destination_app=\"cart\"",
                                           "destination_version=\"v2\"",
                                           "destination_canonical_service=\"cart\"",
                                           "destination_service=\"cart.shop.svc.cluster.local\"",
                                           "destination_service_name=\"cart\"",
                                           "destination_service_namespace=\"shop\"",
                                           "request_protocol=\"http\"",
                                           "response_code=\"200\"",
                                           "response_flags=\"-\"",
                                           "connection_security_policy=\"unknown\""};
  EXPECT_EQ(value(metric("istio_requests_total", labels)), "2");
  EXPECT_EQ(value(metric("istio_request_bytes_sum", labels)), "7");
  EXPECT_EQ(value(metric("istio_request_duration_milliseconds_count", labels)), "2");
  EXPECT_EQ(scope(Kind::kListener, "l")->totals().by_class[2], 2u);
  EXPECT_EQ(scope(Kind::kRoute, "r/h/shop")->totals().by_class[2], 2u);
  EXPECT_EQ(scope(Kind::kCluster, "outbound|80||cart.shop.svc.cluster.local")->totals().requests(),
            2u);
}

TEST_F(ExchangeTelemetry, TheSideThatIsCalledKnowsWhoCalls) {
  tell({});
  ProxyYaml yaml;
  std::string text = yaml.text();
  text.insert(text.find("  address: 127.0.0.1:1"), "  direction: inbound\n");
  configure_text(text);
  ClientInfo info;
  auto identity = std::make_shared<tls::PeerIdentity>();
  identity->sha256 = "ab";
  identity->uri_sans = {"spiffe://mesh/ns/shop/sa/web"};
  info.identity = identity;
  info.tls = true;
  get(connect(false, std::move(info)), "/");
  get(connect(), "/");
  EXPECT_EQ(value(metric("istio_requests_total",
                         {"reporter=\"destination\"", "connection_security_policy=\"mutual_tls\"",
                          "source_principal=\"spiffe://mesh/ns/shop/sa/web\"",
                          "source_workload_namespace=\"shop\""})),
            "1");
  EXPECT_EQ(value(metric("istio_requests_total",
                         {"source_principal=\"unknown\"", "connection_security_policy=\"none\""})),
            "1");
}

TEST_F(ExchangeTelemetry, GrpcStatusesOfTrailers) {
  tell({});
  auto yaml = logged(
      "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER% "
      "%TRAILER(grpc-message)%");
  yaml.a = "protocol: http2";
  configure(yaml);
  a().http2 = true;
  a().reply = [](Side& side) {
    HeadPtr head = take_head();
    head->status = 200;
    head->add("content-type", "application/grpc");
    side.stream->send_head(*head, false);
    HeadPtr trailers = take_head();
    trailers->add("grpc-status", "5");
    trailers->add("grpc-message", "gone");
    side.stream->send_trailers(*trailers);
    side.stream.reset();
  };
  Client& client = connect(true);
  ask(client, "POST", "/s/m", {{"content-type", "application/grpc"}, {"te", "trailers"}});
  settle();
  EXPECT_EQ(log(), "NotFound NOT_FOUND 5 gone\n");
  EXPECT_EQ(value(metric("istio_requests_total",
                         {"request_protocol=\"grpc\"", "grpc_response_status=\"5\""})),
            "1");
}

TEST_F(ExchangeTelemetry, RequestsThatCannotBeReadAreTold) {
  tell({});
  configure(logged("%RESPONSE_CODE% %RESPONSE_FLAGS% %REQ(:PATH)%"));
  Client& client = connect_raw();
  client.raw->send("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
  ASSERT_TRUE(until([&] { return client.raw->received.find(" 400 ") != std::string::npos; }));
  EXPECT_EQ(log(), "400 DPE -\n");
  EXPECT_EQ(value(metric("istio_requests_total", {"response_flags=\"DPE\""})), "1");
}

TEST_F(ExchangeTelemetry, MetricsCanBeOff) {
  model::Telemetry spec;
  spec.metrics = false;
  tell(spec);
  configure(logged("%RESPONSE_CODE%"));
  get(connect(), "/");
  EXPECT_EQ(log(), "200\n");
  EXPECT_THAT(metrics(), Not(HasSubstr("istio_requests_total")));
}

TEST_F(ExchangeTelemetry, ACountGoesOnWhenTheRouteChanges) {
  tell({});
  ProxyYaml yaml;
  yaml.routes = "- {name: all, match: {prefix: /}, cluster: a}";
  configure(yaml);
  Client& client = connect();
  get(client, "/");
  yaml.routes = "- {name: all, match: {prefix: /}, cluster: b}";
  configure(yaml);
  get(client, "/");
  EXPECT_EQ(scope(Kind::kRoute, "r/h/all")->totals().requests(), 2u);
}

TEST_F(ExchangeTelemetry, AFormatThatIsWrongIsRefused) {
  const auto config = model::parse_config(logged("%NO_SUCH_THING%").text(), "test");
  ASSERT_TRUE(config);
  const auto checked = check_config(**config);
  ASSERT_FALSE(checked);
  EXPECT_THAT(checked.error().message, HasSubstr("NO_SUCH_THING"));
}

// ---- Traces.

class ExchangeTraces : public ExchangeTelemetry {
 protected:
  ExchangeTraces() {
    http::ServerOptions options;
    options.listen = *SockAddr::parse("127.0.0.1:0");
    collector_ = std::move(*http::Server::create(
        *loop_, options,
        [this](http::Request request, std::shared_ptr<http::ResponseWriter> writer) {
          bodies_.push_back(json::parse(request.body));
          writer->respond({200, {}, "{}"});
        }));
  }
  ~ExchangeTraces() override {
    destroy_worker();
    telemetry_.reset();
    collector_.reset();
  }
  void collect(model::PerMillion share) {
    model::Telemetry spec;
    spec.tracing.url = "http://" + collector_->local_addr().to_string() + "/v1/traces";
    spec.tracing.share = share;
    tell(spec);
  }
  const json& span(size_t i = 0) {
    bool sent = false;
    telemetry_->exporter()->flush([&] { sent = true; });
    EXPECT_TRUE(until([&] { return sent; }));
    return bodies_.at(0)["resourceSpans"][0]["scopeSpans"][0]["spans"].at(i);
  }
  std::unique_ptr<http::Server> collector_;
  std::vector<json> bodies_;
};

TEST_F(ExchangeTraces, ASpanOfOursBetweenTheClientsAndTheEndpoints) {
  collect(0);
  configure({});
  get(connect(), "/cart?x=1",
      {{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
       {"tracestate", "vendor=1"}});
  const std::string sent = a().field("traceparent");
  ASSERT_EQ(sent.size(), 55u);
  EXPECT_TRUE(sent.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
  EXPECT_TRUE(sent.ends_with("-01"));
  EXPECT_THAT(sent, Not(HasSubstr("b7ad6b7169203331")));
  EXPECT_EQ(a().field("tracestate"), "vendor=1");
  const json& one = span();
  EXPECT_EQ(one["traceId"], "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(one["parentSpanId"], "b7ad6b7169203331");
  EXPECT_EQ(one["spanId"], sent.substr(36, 16));
  EXPECT_THAT(one.dump(), HasSubstr("/cart?x=1"));
  EXPECT_THAT(one.dump(), HasSubstr("10.0.0.1"));
}

TEST_F(ExchangeTraces, B3IsPassedOnAsB3) {
  collect(0);
  configure({});
  get(connect(), "/", {{"b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"}});
  EXPECT_TRUE(a().field("b3").starts_with("80f198ee56343ba864fe8b2a57d3eff7-"));
  EXPECT_TRUE(a().field("traceparent").starts_with("00-80f198ee56343ba864fe8b2a57d3eff7-"));
  get(connect(), "/",
      {{"x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"},
       {"x-b3-spanid", "e457b5a2e4d86bd1"},
       {"x-b3-sampled", "0"}});
  EXPECT_EQ(a().field("x-b3-traceid", 1), "80f198ee56343ba864fe8b2a57d3eff7");
  EXPECT_EQ(a().field("x-b3-parentspanid", 1), "e457b5a2e4d86bd1");
  EXPECT_EQ(a().field("x-b3-sampled", 1), "0");
  EXPECT_EQ(span()["parentSpanId"], "e457b5a2e4d86bd1");
  EXPECT_EQ(bodies_[0]["resourceSpans"][0]["scopeSpans"][0]["spans"].size(), 1u);  // sampled: one
}

TEST_F(ExchangeTraces, ATraceBeginsHereForAShareOfAll) {
  collect(model::kAlways);
  configure(logged("%TRACE_ID%"));
  a().refuse = true;
  get(connect(), "/");
  const json& one = span();
  EXPECT_FALSE(one.contains("parentSpanId"));
  EXPECT_EQ(one["status"]["code"], 2);
  EXPECT_EQ(log(), one["traceId"].get<std::string>() + "\n");
}

TEST_F(ExchangeTraces, WithoutAnExporterContextIsPassedOnUntouched) {
  tell({});
  configure({});
  const std::string parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  get(connect(), "/", {{"traceparent", parent}});
  EXPECT_EQ(a().field("traceparent"), parent);
  get(connect(), "/");
  EXPECT_EQ(a().field("traceparent", 1), "");
}

}  // namespace
}  // namespace edgemesh::proxy
