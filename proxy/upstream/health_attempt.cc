#include "proxy/upstream/health_attempt.h"

#include <algorithm>
#include <cctype>

namespace edgemesh::proxy {

namespace {

constexpr size_t kMaxAnswer = 4096;
constexpr size_t kGrpcFrame = 5;  // flag, four bytes of length

// A protobuf varint; false at the end of the text.
bool take_varint(std::string_view& text, uint64_t* value) {
  *value = 0;
  for (unsigned shift = 0; shift < 64 && !text.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(text.front());
    text.remove_prefix(1);
    *value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

}  // namespace

std::string grpc_health_request(std::string_view service) {
  std::string message;
  if (!service.empty()) {
    message += '\x0a';  // field 1, a string
    for (size_t length = service.size();; length >>= 7) {
      const auto low = static_cast<char>(length & 0x7f);
      message += static_cast<char>(length > 0x7f ? low | '\x80' : low);
      if (length <= 0x7f) break;
    }
    message += service;
  }
  std::string framed(1, '\0');
  for (int shift = 24; shift >= 0; shift -= 8)
    framed += static_cast<char>((message.size() >> shift) & 0xff);
  return framed + message;
}

bool grpc_health_serving(std::string_view framed) {
  if (framed.size() < kGrpcFrame || framed[0] != '\0') return false;
  std::string_view message = framed.substr(kGrpcFrame);
  uint64_t status = 0;
  while (!message.empty()) {
    uint64_t key = 0;
    uint64_t value = 0;
    if (!take_varint(message, &key) || !take_varint(message, &value)) return false;
    if ((key & 7) == 2) {  // what newer versions may add
      if (value > message.size()) return false;
      message.remove_prefix(value);
    } else if ((key & 7) != 0) {
      return false;
    } else if (key >> 3 == 1) {
      status = value;
    }
  }
  return status == 1;
}

HealthAttempt::HealthAttempt(io::Loop& loop, std::shared_ptr<const HostSet> set,
                             const model::Endpoint& endpoint, const model::HealthCheck& check,
                             OnDone done)
    : loop_(loop),
      set_(std::move(set)),
      endpoint_(endpoint),
      check_(check),
      done_(std::move(done)),
      timer_(loop, [this] {
        if (ended_) {
          const auto call = std::move(done_);
          const std::string reason = std::move(received_);
          return call(reason);
        }
        finish("no answer in time");
      }) {
  if (endpoint_.health_port != 0) endpoint_.addr.port = endpoint_.health_port;
}

HealthAttempt::~HealthAttempt() {
  request_.reset();
}

void HealthAttempt::abandon() {
  ended_ = true;
  done_ = nullptr;
  timer_.stop();
}

bool HealthAttempt::uses_h2() const {
  return check_.kind == model::HealthCheck::Kind::kGrpc || check_.http2;
}

void HealthAttempt::start(Connector& connector, const MakeClient& make_h1,
                          const MakeClient& make_h2) {
  make_ = uses_h2() ? &make_h2 : &make_h1;
  timer_.start(check_.timeout);
  auto connecting = connector.connect(endpoint_, *set_, nullptr);
  if (!connecting) return finish(connecting.error().message);
  tls_ = connecting->tls;
  stream_ = std::move(connecting->stream);
  stream_->set_handler(this);
}

// The verdict is told from a turn of its own: the streams may be in a callback now.
void HealthAttempt::finish(std::string reason) {
  if (ended_) return;
  ended_ = true;
  received_ = std::move(reason);
  timer_.start(Duration::zero());
}

void HealthAttempt::on_connected() {
  if (ended_ || codec_) return;
  const auto& cluster = set_->cluster();
  if (tls_ != nullptr && cluster.tls != nullptr)
    if (auto named = check_peer_names(*cluster.tls, *tls_); !named)
      return finish(named.error().message);
  if (check_.kind == model::HealthCheck::Kind::kTcp) return begin_tcp();
  begin_http();
}

void HealthAttempt::begin_tcp() {
  if (!check_.send.empty()) {
    const auto written = stream_->write(io::as_bytes(check_.send));
    // A fresh connection takes far more than a configuration may hold here.
    if (written.status != io::IoResult::kOk || written.n < check_.send.size())
      return finish("cannot send");
  }
  if (check_.expect.empty()) return finish({});
  on_readable();
}

void HealthAttempt::on_readable() {
  if (ended_ || codec_ || check_.kind != model::HealthCheck::Kind::kTcp) return;
  for (;;) {
    uint8_t bytes[512];
    const auto got = stream_->read(bytes);
    if (got.status == io::IoResult::kWouldBlock) return;
    if (got.status != io::IoResult::kOk) return finish("closed before the expected answer");
    received_.append(io::as_text({bytes, got.n}));
    if (received_.find(check_.expect) != std::string::npos) return finish({});
    if (received_.size() > kMaxAnswer) return finish("another answer than expected");
  }
}

void HealthAttempt::begin_http() {
  const auto& cluster = set_->cluster();
  const ClientTarget target{endpoint_.addr, tls_ != nullptr ? tls_->shared_peer() : nullptr,
                            cluster};
  codec_ = (*make_)(std::move(stream_), target, *this);
  request_ = codec_->open(this);
  if (request_ == nullptr) return finish("no request can be sent");
  HeadPtr head = take_head();
  head->scheme = cluster.tls != nullptr ? "https" : "http";
  head->authority = head->keep(!check_.host.empty()          ? check_.host
                               : !endpoint_.hostname.empty() ? endpoint_.hostname
                                                             : cluster.name);
  head->version = uses_h2() ? HttpVersion::kHttp2 : HttpVersion::kHttp11;
  head->add("user-agent", "edgemesh-health/1");
  if (check_.kind == model::HealthCheck::Kind::kGrpc) {
    const std::string body = grpc_health_request(check_.grpc_service);
    head->method = "POST";
    head->path = "/grpc.health.v1.Health/Check";
    head->add("content-type", "application/grpc");
    head->add("te", "trailers");
    request_->send_head(*head, false);
    request_->send_data(io::as_bytes(body), true);
    return;
  }
  head->method = head->keep(check_.method);
  head->path = head->keep(check_.path);
  request_->send_head(*head, true);
}

bool HealthAttempt::expects(int status) const {
  if (check_.expected.empty()) return status == 200;
  return std::any_of(check_.expected.begin(), check_.expected.end(),
                     [status](const auto& r) { return status >= r.first && status <= r.last; });
}

void HealthAttempt::on_head(HeadPtr head, bool end) {
  if (ended_ || (head->status < 200 && head->status != 101)) return;
  if (check_.kind != model::HealthCheck::Kind::kGrpc)
    return finish(expects(head->status) ? "" : fmt::format("status {}", head->status));
  if (head->status != 200) return finish(fmt::format("status {}", head->status));
  if (end) judge_grpc(*head);  // no message: an error of gRPC
}

void HealthAttempt::on_data(std::span<const uint8_t> data, bool end) {
  if (ended_) return;
  received_.append(io::as_text(data));
  if (received_.size() > kMaxAnswer) return finish("the answer is too long");
  if (end) finish("the answer has no grpc-status");
}

void HealthAttempt::on_trailers(HeadPtr trailers) {
  if (!ended_) judge_grpc(*trailers);
}

void HealthAttempt::judge_grpc(const Head& trailers) {
  const auto status = trailers.get("grpc-status");
  if (status != "0")
    return finish(fmt::format("grpc-status {}", status.empty() ? "missing" : status));
  finish(grpc_health_serving(received_) ? "" : "not serving");
}

void HealthAttempt::on_reset(ResetReason, std::string_view detail) {
  finish(fmt::format("reset: {}", detail));
}
void HealthAttempt::on_error(const Error& error) {
  finish(error.message);
}
void HealthAttempt::on_closed(const Error& error) {
  finish(error.message);
}

}  // namespace edgemesh::proxy
