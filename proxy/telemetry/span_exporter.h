// SpanExporter: finished spans from workers to a collector, as OTLP over HTTP in JSON
// (opentelemetry.io, OTLP 1.x, "OTLP/HTTP": POST of an ExportTraceServiceRequest to /v1/traces).
//
// Each worker has a lane, a ring of spans of a fixed size with one producer and one consumer. The
// exporter's loop empties the lanes every Options::every and sends one batch at a time.
// - put() takes no lock, makes no system call and allocates nothing, but for the ring with the first
//   span. A full lane drops the span and counts it.
// - A batch that the collector does not take is sent once more when the status or the error says that
//   this may help (429, 502, 503, 504, no connection), then it is dropped and counted.
// Threads: put() is the worker's; all else belongs to the loop.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/net_addr.h"
#include "core/http/client.h"
#include "core/io/loop.h"
#include "proxy/telemetry/tracing.h"

namespace edgemesh::proxy {

// Text that is cut where it is too long.
template <size_t N>
class ShortText {
 public:
  void assign(std::string_view text) {
    size_ = static_cast<uint8_t>(text.copy(text_, std::min(text.size(), N)));
  }
  std::string_view view() const { return {text_, size_}; }

 private:
  static_assert(N < 256);
  uint8_t size_ = 0;
  char text_[N];
};

struct Span {
  enum class Kind : uint8_t { kServer = 2, kClient = 3 };  // OTLP's numbers
  std::array<uint8_t, 16> trace_id{};
  std::array<uint8_t, 8> span_id{}, parent_id{};
  int64_t start_ns = 0, end_ns = 0;  // since 1970
  Kind kind = Kind::kServer;
  uint16_t status = 0;  // of the answer; 0: none
  uint64_t request_bytes = 0, response_bytes = 0;
  SockAddr peer, upstream;  // upstream: port 0: none
  ShortText<15> method;
  ShortText<127> path;
  ShortText<63> authority, route, cluster, request_id, user_agent;
  ShortText<31> flags;

  // Ids and times of `context`; times from the clock of the wall.
  void set_context(const TraceContext& context);
};

class SpanLane {
 public:
  static constexpr size_t kSpans = 256;
  bool put(const Span& span);  // false: full; it is counted
  uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  friend class SpanExporter;
  std::atomic<Span*> ring_{nullptr};
  std::unique_ptr<Span[]> owner_;
  std::atomic<uint64_t> dropped_{0};
  alignas(64) std::atomic<uint64_t> head_{0};
  alignas(64) std::atomic<uint64_t> tail_{0};
};

class SpanExporter {
 public:
  struct Options {
    std::string url;  // "http://127.0.0.1:4318/v1/traces"
    std::string service_name = "edgemesh";
    std::string node;  // host.name; empty: left out
    Duration every = std::chrono::seconds(1);
    size_t batch = 256;  // spans of one request
    http::ClientOptions client;
  };
  struct Stats {
    uint64_t exported = 0, dropped = 0, failed = 0;  // spans: sent; a lane was full; not taken
  };

  // Errors: the URL.
  static Result<std::unique_ptr<SpanExporter>> make(io::Loop& loop, Options options);
  ~SpanExporter();  // drops what was not sent
  SpanExporter(const SpanExporter&) = delete;
  SpanExporter& operator=(const SpanExporter&) = delete;

  // Thread-safe. It lives as long as the exporter.
  SpanLane& add_lane();
  // Sends what there is now; `done` when it was taken or given up. For an orderly end.
  void flush(io::Task done);
  Stats stats() const;

 private:
  SpanExporter(io::Loop& loop, Options options);
  void turn();
  bool collect();  // spans into batch_; whether there are any
  void send();
  void on_answer(Result<http::Response> answer);
  void finish();
  std::string body() const;

  io::Loop& loop_;
  const Options options_;
  http::Client client_;
  io::Timer timer_;
  mutable std::mutex mutex_;  // guards lanes_
  std::vector<std::unique_ptr<SpanLane>> lanes_;
  std::vector<Span> batch_;
  std::unique_ptr<http::Call> call_;
  bool busy_ = false, again_ = false;
  std::vector<io::Task> waiting_;  // of flush()
  uint64_t exported_ = 0, failed_ = 0;
};

// One span as an object of OTLP's JSON.
void append_span_json(const Span& span, std::string* out);

}  // namespace edgemesh::proxy
