#include "proxy/telemetry/span_exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/http/server.h"

namespace edgemesh::proxy {
namespace {

using nlohmann::json;

Span span_of(uint16_t status) {
  Span span;
  span.trace_id[15] = 0xab;
  span.span_id[7] = 0xcd;
  span.start_ns = 1'700'000'000'000'000'000;
  span.end_ns = span.start_ns + 5;
  span.status = status;
  span.method.assign("GET");
  span.path.assign("/a\"b");
  span.route.assign("cart");
  span.upstream = *SockAddr::parse("10.0.0.1:80");
  return span;
}

TEST(Span, Json) {
  std::string text;
  Span span = span_of(200);
  append_span_json(span, &text);
  auto object = json::parse(text);
  EXPECT_EQ(object["traceId"], "000000000000000000000000000000ab");
  EXPECT_EQ(object["spanId"], "00000000000000cd");
  EXPECT_FALSE(object.contains("parentSpanId"));
  EXPECT_EQ(object["name"], "GET cart");
  EXPECT_EQ(object["kind"], 2);
  EXPECT_EQ(object["startTimeUnixNano"], "1700000000000000000");
  EXPECT_FALSE(object.contains("status"));
  EXPECT_EQ(object["attributes"][1]["value"]["stringValue"], "/a\"b");
  EXPECT_THAT(text, ::testing::HasSubstr("{\"key\":\"http.response.status_code\",\"value\":{\"intValue\":\"200\"}}"));
  span = span_of(503);
  span.parent_id[0] = 1;
  span.path.assign(std::string(1000, '\xff'));
  text.clear();
  append_span_json(span, &text);
  object = json::parse(text);
  EXPECT_EQ(object["parentSpanId"], "0100000000000000");
  EXPECT_EQ(object["status"]["code"], 2);
}

class ExporterTest : public ::testing::Test {
 protected:
  void serve(std::vector<int> statuses) {
    http::ServerOptions server_options;
    server_options.listen = *SockAddr::parse("127.0.0.1:0");
    auto made = http::Server::create(
        *loop, server_options,
        [this, statuses](http::Request request, std::shared_ptr<http::ResponseWriter> writer) {
          bodies.push_back(std::move(request.body));
          writer->respond({statuses[std::min(bodies.size(), statuses.size()) - 1], {}, "{}"});
        });
    ASSERT_TRUE(made) << made.error().message;
    server = std::move(*made);
    SpanExporter::Options options;
    options.url = "http://" + server->local_addr().to_string() + "/v1/traces";
    options.batch = 2;
    options.every = std::chrono::hours(1);
    exporter = *SpanExporter::make(*loop, std::move(options));
    lane = &exporter->add_lane();
  }
  void flush() {
    bool done = false;
    exporter->flush([&] { done = true; });
    ASSERT_TRUE(loop->run_until([&] { return done; }, std::chrono::seconds(10)));
  }
  std::unique_ptr<io::Loop> loop = *io::Loop::create();
  std::unique_ptr<http::Server> server;
  std::unique_ptr<SpanExporter> exporter;
  SpanLane* lane = nullptr;
  std::vector<std::string> bodies;
};

TEST_F(ExporterTest, Batches) {
  serve({200});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(lane->put(span_of(200)));
  flush();
  ASSERT_EQ(bodies.size(), 2u);
  const auto spans = [](const std::string& body) {
    return json::parse(body)["resourceSpans"][0]["scopeSpans"][0]["spans"].size();
  };
  EXPECT_EQ(spans(bodies[0]), 2u);
  EXPECT_EQ(spans(bodies[1]), 1u);
  EXPECT_EQ(exporter->stats().exported, 3u);
}

TEST_F(ExporterTest, OnceMoreThenDropped) {
  serve({503, 200, 503, 503, 400, 200});
  lane->put(span_of(200));
  flush();
  EXPECT_EQ(exporter->stats().exported, 1u);
  EXPECT_EQ(bodies.size(), 2u);
  lane->put(span_of(200));
  flush();
  EXPECT_EQ(exporter->stats().failed, 1u);
  EXPECT_EQ(bodies.size(), 4u);
  lane->put(span_of(200));
  flush();
  EXPECT_EQ(exporter->stats().failed, 2u);
  EXPECT_EQ(bodies.size(), 5u);
}

TEST_F(ExporterTest, FullLaneDrops) {
  serve({200});
  for (size_t i = 0; i < SpanLane::kSpans; ++i) EXPECT_TRUE(lane->put(span_of(200)));
  EXPECT_FALSE(lane->put(span_of(200)));
  EXPECT_EQ(exporter->stats().dropped, 1u);
  flush();
  EXPECT_EQ(exporter->stats().exported, SpanLane::kSpans);
  EXPECT_TRUE(lane->put(span_of(200)));
}

TEST_F(ExporterTest, WrongUrl) {
  EXPECT_FALSE(SpanExporter::make(*loop, {.url = "ftp://x/"}));
  EXPECT_FALSE(SpanExporter::make(*loop, {.url = "nonsense"}));
}

}  // namespace
}  // namespace edgemesh::proxy
