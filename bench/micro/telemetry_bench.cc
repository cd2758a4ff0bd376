// What does a finished request cost in access log, metrics and traces? Nanoseconds a call, one thread.
// Prints one line a figure: name, value, unit.
#include <chrono>
#include <cstdio>

#include "proxy/telemetry/access_log.h"
#include "proxy/telemetry/request_stats.h"
#include "proxy/telemetry/span_exporter.h"
#include "proxy/telemetry/traffic_stats.h"

namespace {

using namespace edgemesh;
using namespace edgemesh::proxy;
using SteadyClock = std::chrono::steady_clock;

constexpr int kCalls = 1'000'000;
constexpr int kBurst = 500;  // lines that fit into a lane; flushed outside of the measured time

template <class Call>
void measure(const char* name, const Call& call) {
  for (int i = 0; i < 1000; ++i) call(i);
  const auto start = SteadyClock::now();
  for (int i = 0; i < kCalls; ++i) call(i);
  const std::chrono::duration<double, std::nano> took = SteadyClock::now() - start;
  std::printf("%s %.1f ns\n", name, took.count() / kCalls);
}

void measure_log(const char* name, const model::AccessLog& spec, const LogFacts& facts) {
  const auto writer = *AccessLogWriter::start();
  auto& lane = writer->add_lane();
  const auto logger = *AccessLogger::make({spec}, *writer);
  std::chrono::duration<double, std::nano> took{};
  for (int i = 0; i < kCalls / 5; i += kBurst) {
    const auto start = SteadyClock::now();
    for (int k = 0; k < kBurst; ++k) logger->log(lane, facts);
    took += SteadyClock::now() - start;
    writer->flush();
  }
  std::printf("%s %.1f ns (%llu dropped)\n", name, took.count() / (kCalls / 5.0),
              static_cast<unsigned long long>(writer->stats().dropped));
}

}  // namespace

int main() {
  Head request;
  request.method = "GET";
  request.path = "/productpage?u=normal";
  request.authority = "productpage.shop:9080";
  request.scheme = "http";
  request.add("user-agent", "curl/8.5.0");
  request.add("x-request-id", "0b1e5a2c-8d0e-4c53-9d0b-6f1c7a528d0e");
  request.add("x-forwarded-for", "10.1.2.3");
  const auto upstream = *SockAddr::parse("10.1.2.4:9080");
  LogFacts facts;
  facts.request = &request;
  facts.upstream = &upstream;
  facts.start = std::chrono::system_clock::now();
  facts.status = 200;
  facts.duration_us = 1234;
  facts.response_flags = "-";
  model::AccessLog text, json;
  text.path = json.path = "/dev/null";
  json.json = {{"start_time", "%START_TIME%"},      {"method", "%REQ(:METHOD)%"},
               {"path", "%REQ(:PATH)%"},            {"response_code", "%RESPONSE_CODE%"},
               {"duration", "%DURATION%"},          {"bytes_sent", "%BYTES_SENT%"},
               {"user_agent", "%REQ(USER-AGENT)%"}, {"upstream_host", "%UPSTREAM_HOST%"}};
  measure_log("log_text", text, facts);
  measure_log("log_json", json, facts);

  RequestStats stats({});
  RequestRecord one;
  one.status = 200;
  one.duration_us = 1234;
  measure("record_one_set", [&](int) { stats.worker(0).record(one); });
  measure("record_1000_sets", [&](int i) {
    one.flags = static_cast<uint32_t>(i % 1000);
    stats.worker(0).record(one);
  });
  TrafficScope scope(TrafficScope::Kind::kCluster, "c", 1);
  measure("scope_record", [&](int i) { scope.record(0, {.status = 200, .duration_us = i & 0xffff}); });
  std::string out;
  const auto start = SteadyClock::now();
  stats.append_text(out);
  const std::chrono::duration<double, std::milli> took = SteadyClock::now() - start;
  std::printf("scrape_1000_sets %.1f ms\nscrape_1000_sets_text %zu bytes\n", took.count(), out.size());

  Head head;
  TraceContext context;
  measure("trace_extract_inject", [&](int i) {
    head.clear();
    head.add_kept("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    begin_span(head, 0, {1, 2, static_cast<uint64_t>(i)}, &context);
    inject(context, &head);
  });
  return 0;
}
