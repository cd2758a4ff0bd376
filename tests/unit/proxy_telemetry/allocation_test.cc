// What a finished request costs in the steady state: no allocation.
#include <gtest/gtest.h>

#include "proxy/telemetry/access_log.h"
#include "proxy/telemetry/request_stats.h"
#include "proxy/telemetry/span_exporter.h"
#include "proxy/telemetry/traffic_stats.h"
#include "tests/support/temp_dir.h"

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {
thread_local size_t allocations = 0;  // the writer's thread may allocate
}

// glibc's own ones under the names that everybody calls, operator new and C libraries, too.
extern "C" {
void* __libc_malloc(size_t);            // NOLINT
void* __libc_calloc(size_t, size_t);    // NOLINT
void* __libc_realloc(void*, size_t);    // NOLINT
void* malloc(size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  ++allocations;
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, size_t bytes) {
  ++allocations;
  return __libc_realloc(memory, bytes);
}
}

namespace edgemesh::proxy {
namespace {

TEST(Allocations, NoneForALoggedRequest) {
  test::TempDir dir;
  const auto writer = *AccessLogWriter::start();
  auto& lane = writer->add_lane();
  model::AccessLog text, json;
  text.path = json.path = dir.path() + "/log";
  json.json = {{"code", "%RESPONSE_CODE%"}, {"path", "%REQ(:PATH)%"}, {"host", "%UPSTREAM_HOST%"}};
  const auto logger = *AccessLogger::make({text, json}, *writer);
  Head request;
  request.method = "GET";
  request.path = "/a/path/with/some/length?and=a&query=too";
  request.authority = "shop.example";
  request.add("user-agent", "curl/8 \"quoted\"");
  const auto upstream = *SockAddr::parse("10.1.2.3:8080");
  LogFacts facts;
  facts.request = &request;
  facts.upstream = &upstream;
  facts.status = 200;
  facts.duration_us = 1234;
  logger->log(lane, facts);
  const size_t before = allocations;
  for (int i = 0; i < 1000; ++i) logger->log(lane, facts);
  EXPECT_EQ(allocations - before, 0u);
}

TEST(Allocations, NoneForACountedRequest) {
  RequestStats stats({});
  TrafficStats traffic(1);
  const auto scope = traffic.scope(TrafficScope::Kind::kCluster, "c");
  RequestRecord http;
  TcpRecord tcp;
  http.status = 200;
  const auto count = [&] {
    stats.worker(0).record(http);
    stats.worker(0).record(tcp);
    scope->record(0, {.status = 200, .duration_us = 7});
  };
  count();
  const size_t before = allocations;
  for (int i = 0; i < 1000; ++i) {
    http.duration_us = i;
    count();
  }
  EXPECT_EQ(allocations - before, 0u);
}

TEST(Allocations, NoneForASpan) {
  SpanLane lane;
  Span span;
  span.path.assign("/a");
  lane.put(span);
  Head head;
  TraceContext context;
  const auto trace = [&] {
    head.clear();
    head.add_kept("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    begin_span(head, 0, {1, 2, 3}, &context);
    inject(context, &head);
    span.set_context(context);
    lane.put(span);
  };
  trace();
  const size_t before = allocations;
  for (int i = 0; i < 1000; ++i) trace();
  EXPECT_EQ(allocations - before, 0u);
  EXPECT_EQ(lane.dropped(), 1002 - SpanLane::kSpans);
}

}  // namespace
}  // namespace edgemesh::proxy

#endif
