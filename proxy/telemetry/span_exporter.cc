#include "proxy/telemetry/span_exporter.h"

#include <algorithm>
#include <charconv>

#include "core/base/log.h"
#include "core/base/version.h"
#include "proxy/route/format.h"
#include "proxy/telemetry/json_text.h"

namespace edgemesh::proxy {

namespace {

void put_id(std::string_view name, const uint8_t* bytes, size_t count, std::string* out) {
  char hex[32];
  put_hex(bytes, count, hex);
  out->append("\"").append(name).append("\":\"").append(hex, 2 * count).append("\",");
}

// An attribute, with a comma before it unless it is the first.
void begin_attribute(std::string_view key, std::string* out) {
  if (out->back() != '[') *out += ',';
  out->append("{\"key\":\"").append(key).append("\",\"value\":{");
}

void put_text(std::string_view key, std::string_view value, std::string* out) {
  if (value.empty()) return;
  begin_attribute(key, out);
  out->append("\"stringValue\":\"");
  append_json(value, out);
  out->append("\"}}");
}

void put_int(std::string_view key, uint64_t value, std::string* out) {
  begin_attribute(key, out);
  out->append("\"intValue\":\"");  // 64-bit integers are strings in protobuf's JSON
  append_number(value, out);
  out->append("\"}}");
}

void put_addr(std::string_view key, std::string_view port_key, const SockAddr& addr,
              std::string* out) {
  if (addr.port == 0) return;
  std::string ip;
  append_ip(addr.ip, &ip);
  put_text(key, ip, out);
  put_int(port_key, addr.port, out);
}

bool worth_another(const Result<http::Response>& answer) {
  if (!answer) return answer.error().code != ErrorCode::kInvalidArgument;
  return answer->status == 429 || (answer->status >= 502 && answer->status <= 504);
}

}  // namespace

void Span::set_context(const TraceContext& context) {
  trace_id = context.trace_id;
  span_id = context.span_id;
  parent_id = context.parent_id;
}

bool SpanLane::put(const Span& span) {
  if (owner_ == nullptr) {
    owner_ = std::make_unique<Span[]>(kSpans);
    ring_.store(owner_.get(), std::memory_order_release);
  }
  const uint64_t head = head_.load(std::memory_order_relaxed);
  if (head - tail_.load(std::memory_order_acquire) == kSpans) {
    dropped_.store(dropped_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return false;
  }
  owner_[head % kSpans] = span;
  head_.store(head + 1, std::memory_order_release);
  return true;
}

void append_span_json(const Span& span, std::string* out) {
  *out += '{';
  put_id("traceId", span.trace_id.data(), 16, out);
  put_id("spanId", span.span_id.data(), 8, out);
  if (span.parent_id != std::array<uint8_t, 8>{}) put_id("parentSpanId", span.parent_id.data(), 8, out);
  out->append("\"name\":\"");
  append_json(span.method.view(), out);  // low cardinality: the method, and the route where it has a name
  if (!span.route.view().empty()) *out += ' ';
  append_json(span.route.view(), out);
  out->append("\",\"kind\":");
  append_number(static_cast<uint64_t>(span.kind), out);
  out->append(",\"startTimeUnixNano\":\"");
  append_number(static_cast<uint64_t>(span.start_ns), out);
  out->append("\",\"endTimeUnixNano\":\"");
  append_number(static_cast<uint64_t>(std::max(span.end_ns, span.start_ns)), out);
  out->append("\",\"attributes\":[");
  put_text("http.request.method", span.method.view(), out);
  put_text("url.path", span.path.view(), out);
  put_text("server.address", span.authority.view(), out);
  if (span.status > 0) put_int("http.response.status_code", span.status, out);
  put_int("http.request.body.size", span.request_bytes, out);
  put_int("http.response.body.size", span.response_bytes, out);
  put_text("user_agent.original", span.user_agent.view(), out);
  put_addr("client.address", "client.port", span.peer, out);
  put_addr("network.peer.address", "network.peer.port", span.upstream, out);
  put_text("edgemesh.cluster", span.cluster.view(), out);
  put_text("edgemesh.request_id", span.request_id.view(), out);
  put_text("edgemesh.response_flags", span.flags.view(), out);
  out->append("]");
  // A server's span is an error with 5xx or without an answer (semantic conventions for HTTP).
  if (span.status == 0 || span.status >= 500) out->append(",\"status\":{\"code\":2}");
  *out += '}';
}

SpanExporter::SpanExporter(io::Loop& loop, Options options)
    : loop_(loop),
      options_(std::move(options)),
      client_(loop, options_.client),
      timer_(loop, [this] { turn(); }) {
  timer_.start_repeating(options_.every);
}

SpanExporter::~SpanExporter() = default;

Result<std::unique_ptr<SpanExporter>> SpanExporter::make(io::Loop& loop, Options options) {
  EM_TRY(const http::Url url, http::Url::parse(options.url));
  if (url.scheme != "http" && url.scheme != "https")
    return fail(ErrorCode::kInvalidArgument, "tracing: '{}' is not http or https", options.url);
  if (options.batch == 0) options.batch = 1;
  return std::unique_ptr<SpanExporter>(new SpanExporter(loop, std::move(options)));
}

SpanLane& SpanExporter::add_lane() {
  std::lock_guard lock(mutex_);
  lanes_.push_back(std::make_unique<SpanLane>());
  return *lanes_.back();
}

void SpanExporter::flush(io::Task done) {
  waiting_.push_back(std::move(done));
  turn();
}

SpanExporter::Stats SpanExporter::stats() const {
  Stats out{exported_, 0, failed_};
  std::lock_guard lock(mutex_);
  for (const auto& lane : lanes_) out.dropped += lane->dropped();
  return out;
}

void SpanExporter::turn() {
  if (busy_) return;
  if (collect()) return send();
  auto done = std::move(waiting_);
  waiting_.clear();
  for (auto& task : done) loop_.post(std::move(task));
}

bool SpanExporter::collect() {
  std::lock_guard lock(mutex_);
  for (const auto& lane : lanes_) {
    const Span* ring = lane->ring_.load(std::memory_order_acquire);
    if (ring == nullptr) continue;
    uint64_t tail = lane->tail_.load(std::memory_order_relaxed);
    const uint64_t head = lane->head_.load(std::memory_order_acquire);
    for (; tail != head && batch_.size() < options_.batch; ++tail)
      batch_.push_back(ring[tail % SpanLane::kSpans]);
    lane->tail_.store(tail, std::memory_order_release);
  }
  return !batch_.empty();
}

std::string SpanExporter::body() const {
  std::string out = "{\"resourceSpans\":[{\"resource\":{\"attributes\":[";
  put_text("service.name", options_.service_name, &out);
  put_text("host.name", options_.node, &out);
  out += "]},\"scopeSpans\":[{\"scope\":{\"name\":\"edgemesh\",\"version\":\"";
  out += kVersion;
  out += "\"},\"spans\":[";
  for (size_t i = 0; i < batch_.size(); ++i) {
    if (i > 0) out += ',';
    append_span_json(batch_[i], &out);
  }
  return out += "]}]}]}";
}

void SpanExporter::send() {
  busy_ = true;
  http::ClientRequest request;
  request.method = "POST";
  request.url = options_.url;
  request.headers = {{"Content-Type", "application/json"}};
  request.body = body();
  call_ = client_.call(std::move(request),
                       [this](Result<http::Response> answer) { on_answer(std::move(answer)); });
}

void SpanExporter::on_answer(Result<http::Response> answer) {
  busy_ = false;
  if (answer && answer->status / 100 == 2) {
    exported_ += batch_.size();
    return finish();
  }
  if (!again_ && worth_another(answer)) {
    again_ = true;  // with the next turn of the timer; flush() does not wait for it
    if (!waiting_.empty()) turn();
    return;
  }
  failed_ += batch_.size();
  EM_LOG(kDebug, "tracing", "{} spans were not taken: {}", batch_.size(),
         answer ? fmt::format("status {}", answer->status) : answer.error().message);
  finish();
}

void SpanExporter::finish() {
  batch_.clear();
  again_ = false;
  turn();  // more may have come meanwhile
}

}  // namespace edgemesh::proxy
