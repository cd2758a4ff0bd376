#include "proxy/route/format.h"

#include <arpa/inet.h>

#include <charconv>
#include <ctime>

#include "core/http/message.h"

namespace edgemesh::proxy {

namespace {

bool put(std::string_view value, std::string* out) {
  out->append(value);
  return !value.empty();
}

void put_two(int value, std::string* out) {
  *out += static_cast<char>('0' + value / 10 % 10);
  *out += static_cast<char>('0' + value % 10);
}

// RFC 3339 with milliseconds, or what strftime makes of `format`.
void put_time(std::chrono::system_clock::time_point time, const std::string& format,
              std::string* out) {
  const auto ms = std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count();
  if (!format.empty()) {
    const std::time_t seconds = ms / 1000;
    std::tm tm{};
    gmtime_r(&seconds, &tm);
    char text[128];
    out->append(text, std::strftime(text, sizeof text, format.c_str(), &tm));
    return;
  }
  // Not by gmtime_r(): it takes a lock of the whole process.
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const auto second = static_cast<int>(
      std::chrono::floor<std::chrono::seconds>(time - day) / std::chrono::seconds(1));
  append_number(static_cast<uint64_t>(static_cast<int>(date.year())), out);
  *out += '-';
  put_two(static_cast<int>(static_cast<unsigned>(date.month())), out);
  *out += '-';
  put_two(static_cast<int>(static_cast<unsigned>(date.day())), out);
  *out += 'T';
  put_two(second / 3600, out);
  *out += ':';
  put_two(second / 60 % 60, out);
  *out += ':';
  put_two(second % 60, out);
  *out += '.';
  *out += static_cast<char>('0' + ms % 1000 / 100);
  put_two(static_cast<int>(ms % 100), out);
  *out += 'Z';
}

bool put_field(const Head* head, std::string_view name, std::string* out) {
  if (head == nullptr || name.empty()) return false;
  const auto is = [name](std::string_view other) { return http::equals_ignore_case(name, other); };
  if (is(":path")) return put(head->path, out);
  if (is(":method")) return put(head->method, out);
  if (is(":authority") || is("host")) return put(head->authority, out);
  if (is(":scheme")) return put(head->scheme, out);
  for (const FieldView& field : head->fields())
    if (http::equals_ignore_case(field.name, name)) return put(field.value, out);
  return false;
}

std::string_view version_text(HttpVersion version) {
  switch (version) {
    case HttpVersion::kHttp10: return "HTTP/1.0";
    case HttpVersion::kHttp11: return "HTTP/1.1";
    case HttpVersion::kHttp2: return "HTTP/2";
  }
  return "";
}

// gRPC's names of its status codes, in Envoy's two spellings.
bool put_grpc_status(int status, std::string_view spelling, std::string* out) {
  static constexpr std::string_view kNames[][2] = {
      {"OK", "OK"},
      {"Canceled", "CANCELLED"},
      {"Unknown", "UNKNOWN"},
      {"InvalidArgument", "INVALID_ARGUMENT"},
      {"DeadlineExceeded", "DEADLINE_EXCEEDED"},
      {"NotFound", "NOT_FOUND"},
      {"AlreadyExists", "ALREADY_EXISTS"},
      {"PermissionDenied", "PERMISSION_DENIED"},
      {"ResourceExhausted", "RESOURCE_EXHAUSTED"},
      {"FailedPrecondition", "FAILED_PRECONDITION"},
      {"Aborted", "ABORTED"},
      {"OutOfRange", "OUT_OF_RANGE"},
      {"Unimplemented", "UNIMPLEMENTED"},
      {"Internal", "INTERNAL"},
      {"Unavailable", "UNAVAILABLE"},
      {"DataLoss", "DATA_LOSS"},
      {"Unauthenticated", "UNAUTHENTICATED"}};
  if (status < 0) return false;
  if (static_cast<size_t>(status) >= std::size(kNames)) {
    append_number(static_cast<uint64_t>(status), out);
    return true;
  }
  return put(kNames[status][spelling == "SNAKE_STRING" ? 1 : 0], out);
}

bool put_list(const std::vector<std::string>& values, std::string* out) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) *out += ',';
    *out += values[i];
  }
  return !values.empty();
}

}  // namespace

void append_number(uint64_t value, std::string* out) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out->append(digits, static_cast<size_t>(end - digits));
}

void append_ip(const IpAddr& ip, std::string* out) {
  char text[INET6_ADDRSTRLEN];
  if (inet_ntop(ip.is_v6() ? AF_INET6 : AF_INET, ip.bytes(), text, sizeof text) != nullptr)
    out->append(text);
}

void append_address(const SockAddr& addr, std::string* out) {
  if (addr.ip.is_v6()) *out += '[';
  append_ip(addr.ip, out);
  if (addr.ip.is_v6()) *out += ']';
  *out += ':';
  append_number(addr.port, out);
}

const Format::Name Format::kNames[] = {
    {"REQ", kRequestField},
    {"RESP", kResponseField},
    {"START_TIME", kStartTime},
    {"PROTOCOL", kProtocol},
    {"DOWNSTREAM_REMOTE_ADDRESS", kRemoteAddress},
    {"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", kRemoteIp},
    {"DOWNSTREAM_REMOTE_PORT", kRemotePort},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", kDirectAddress},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", kDirectIp},
    {"DOWNSTREAM_DIRECT_REMOTE_PORT", kDirectPort},
    {"DOWNSTREAM_LOCAL_ADDRESS", kLocalAddress},
    {"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", kLocalIp},
    {"DOWNSTREAM_LOCAL_PORT", kLocalPort},
    {"RESPONSE_CODE", kStatus},
    {"RESPONSE_CODE_DETAILS", kDetails},
    {"RESPONSE_FLAGS", kFlags},
    {"UPSTREAM_TRANSPORT_FAILURE_REASON", kFailure},
    {"BYTES_RECEIVED", kReceived},
    {"BYTES_SENT", kSent},
    {"DURATION", kDuration},
    {"UPSTREAM_REQUEST_ATTEMPT_COUNT", kAttempts},
    {"UPSTREAM_HOST", kUpstreamAddress},
    {"UPSTREAM_REMOTE_ADDRESS", kUpstreamAddress},
    {"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", kUpstreamIp},
    {"UPSTREAM_LOCAL_ADDRESS", kUpstreamLocal},
    {"UPSTREAM_PATH", kUpstreamPath},
    {"UPSTREAM_CLUSTER", kUpstreamCluster},
    {"ROUTE_NAME", kRouteName},
    {"REQUESTED_SERVER_NAME", kServerName},
    {"DOWNSTREAM_PEER_URI_SAN", kPeerUri},
    {"DOWNSTREAM_PEER_DNS_SAN", kPeerDns},
    {"DOWNSTREAM_PEER_SUBJECT", kPeerSubject},
    {"DOWNSTREAM_PEER_FINGERPRINT_256", kPeerSha256},
    {"HOSTNAME", kHostname},
    {"REQUEST_SCHEME", kScheme},
    {"TRAILER", kTrailer},
    {"GRPC_STATUS", kGrpcStatus},
    {"GRPC_STATUS_NUMBER", kGrpcNumber},
    {"CONNECTION_TERMINATION_DETAILS", kConnectionDetails},
    {"TRACE_ID", kTraceId},
    {"UPSTREAM_REMOTE_PORT", kUpstreamPort},
    {"UPSTREAM_CLUSTER_RAW", kUpstreamCluster},
    {"RESPONSE_DURATION", kAnswerTime},
};

Result<Format::Piece> Format::parse_operator(std::string_view text) {
  const std::string_view whole = text;
  Piece piece;
  const size_t open = text.find('(');
  if (open == std::string_view::npos) {
    text = text.substr(0, text.find(':'));
  } else {
    const size_t close = text.find(')', open);
    if (close == std::string_view::npos)
      return fail(ErrorCode::kInvalidArgument, "format operator '{}': ')' is missing", whole);
    const std::string_view argument = text.substr(open + 1, close - open - 1);
    const size_t mark = argument.find('?');
    piece.text = argument.substr(0, mark);
    if (mark != std::string_view::npos) piece.other = argument.substr(mark + 1);
    text = text.substr(0, open);
  }
  const size_t colon = whole.find(':', open == std::string_view::npos ? 0 : whole.find(')'));
  if (colon != std::string_view::npos) {
    const char* end = whole.data() + whole.size();
    const auto [at, error] = std::from_chars(whole.data() + colon + 1, end, piece.max);
    if (error != std::errc() || at != end || piece.max == 0)
      return fail(ErrorCode::kInvalidArgument, "format operator '{}': a length follows ':'", whole);
  }
  for (const Name& name : kNames) {
    if (name.name != text) continue;
    piece.op = name.op;
    const bool field =
        piece.op == kRequestField || piece.op == kResponseField || piece.op == kTrailer;
    if (field && piece.text.empty())
      return fail(ErrorCode::kInvalidArgument, "format operator '{}' needs a field name", whole);
    if (piece.op == kGrpcStatus && !piece.text.empty() && piece.text != "CAMEL_STRING" &&
        piece.text != "SNAKE_STRING" && piece.text != "NUMBER")
      return fail(ErrorCode::kInvalidArgument,
                  "format operator '{}': want CAMEL_STRING, SNAKE_STRING or NUMBER", whole);
    if (piece.op == kGrpcStatus && piece.text == "NUMBER") piece.op = kGrpcNumber;
    return piece;
  }
  return fail(ErrorCode::kInvalidArgument, "format operator '%{}%' is not known", whole);
}

Result<Format> Format::make(std::string_view text) {
  Format out;
  std::string literal;
  const auto flush = [&] {
    if (literal.empty()) return;
    out.pieces_.push_back({kLiteral, 0, std::move(literal), {}});
    literal.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      literal += text[i];
      continue;
    }
    if (i + 1 < text.size() && text[i + 1] == '%') {
      literal += '%';
      ++i;
      continue;
    }
    // A time format has percent signs of its own.
    size_t from = i + 1;
    const size_t bracket = text.find_first_of("(%", from);
    if (bracket != std::string_view::npos && text[bracket] == '(') {
      from = text.find(')', bracket);
      if (from == std::string_view::npos)
        return fail(ErrorCode::kInvalidArgument, "format '{}': ')' is missing", text);
    }
    const size_t end = text.find('%', from);
    if (end == std::string_view::npos)
      return fail(ErrorCode::kInvalidArgument,
                  "format '{}': '%' without its end (%% is a percent sign)", text);
    EM_TRY(Piece piece, parse_operator(text.substr(i + 1, end - i - 1)));
    flush();
    out.pieces_.push_back(std::move(piece));
    i = end;
  }
  flush();
  return out;
}

bool Format::number() const {
  if (!single_operator() || pieces_[0].max > 0) return false;
  switch (pieces_[0].op) {
    case kRemotePort:
    case kDirectPort:
    case kLocalPort:
    case kStatus:
    case kReceived:
    case kSent:
    case kDuration:
    case kGrpcNumber:
    case kUpstreamPort:
    case kAnswerTime:
    case kAttempts: return true;
    default: return false;
  }
}

bool Format::write_connection(const Piece& piece, const Facts& facts, std::string* out) {
  const SockAddr remote{facts.client,
                        facts.client == facts.peer.ip ? facts.peer.port : uint16_t{0}};
  const tls::PeerIdentity* identity = facts.identity;
  switch (piece.op) {
    case kRemoteAddress: append_address(remote, out); return true;
    case kRemoteIp: append_ip(remote.ip, out); return true;
    case kRemotePort: append_number(remote.port, out); return true;
    case kDirectAddress: append_address(facts.peer, out); return true;
    case kDirectIp: append_ip(facts.peer.ip, out); return true;
    case kDirectPort: append_number(facts.peer.port, out); return true;
    case kLocalAddress: append_address(facts.local, out); return true;
    case kLocalIp: append_ip(facts.local.ip, out); return true;
    case kLocalPort: append_number(facts.local.port, out); return true;
    case kServerName: return put(facts.server_name, out);
    case kPeerUri: return identity != nullptr && put_list(identity->uri_sans, out);
    case kPeerDns: return identity != nullptr && put_list(identity->dns_sans, out);
    case kPeerSubject:
      if (identity == nullptr || identity->common_name.empty()) return false;
      *out += "CN=";
      return put(identity->common_name, out);
    case kPeerSha256: return identity != nullptr && put(identity->sha256, out);
    default: return false;
  }
}

bool Format::write_upstream(const Piece& piece, const LogFacts& facts, std::string* out) {
  switch (piece.op) {
    case kUpstreamAddress:
      if (facts.upstream != nullptr) append_address(*facts.upstream, out);
      return facts.upstream != nullptr;
    case kUpstreamIp:
      if (facts.upstream != nullptr) append_ip(facts.upstream->ip, out);
      return facts.upstream != nullptr;
    case kUpstreamLocal:
      if (facts.upstream_local != nullptr) append_address(*facts.upstream_local, out);
      return facts.upstream_local != nullptr;
    case kUpstreamPort:
      if (facts.upstream != nullptr) append_number(facts.upstream->port, out);
      return facts.upstream != nullptr;
    case kUpstreamPath: return put(facts.upstream_path, out);
    case kUpstreamCluster: return put(facts.upstream_cluster, out);
    case kAttempts: append_number(facts.attempts, out); return true;
    case kFailure: return put(facts.failure, out);
    default: return false;
  }
}

bool Format::write_piece(const Piece& piece, const LogFacts& facts, std::string* out) {
  switch (piece.op) {
    case kLiteral: *out += piece.text; return true;
    case kRequestField:
      return put_field(facts.request, piece.text, out) ||
             put_field(facts.request, piece.other, out);
    case kResponseField:
      return put_field(facts.response, piece.text, out) ||
             put_field(facts.response, piece.other, out);
    case kStartTime: put_time(facts.start, piece.text, out); return true;
    case kProtocol:
      return facts.request != nullptr && put(version_text(facts.request->version), out);
    case kScheme: return facts.request != nullptr && put(facts.request->scheme, out);
    case kStatus: append_number(static_cast<uint64_t>(facts.status), out); return true;
    case kDetails: return put(facts.details, out);
    case kFlags: return put(facts.response_flags, out);
    case kReceived: append_number(facts.bytes_received, out); return true;
    case kSent: append_number(facts.bytes_sent, out); return true;
    case kDuration:
      if (facts.duration_us < 0) return false;
      append_number(static_cast<uint64_t>(facts.duration_us) / 1000, out);
      return true;
    case kAnswerTime:
      if (facts.answer_us < 0) return false;
      append_number(static_cast<uint64_t>(facts.answer_us) / 1000, out);
      return true;
    case kTrailer:
      return put_field(facts.trailers, piece.text, out) ||
             put_field(facts.trailers, piece.other, out);
    case kGrpcStatus: return put_grpc_status(facts.grpc_status, piece.text, out);
    case kGrpcNumber:
      if (facts.grpc_status >= 0) append_number(static_cast<uint64_t>(facts.grpc_status), out);
      return facts.grpc_status >= 0;
    case kConnectionDetails: return put(facts.connection_details, out);
    case kTraceId: return put(facts.trace_id, out);
    case kRouteName: return put(facts.route_name, out);
    case kHostname: return put(facts.hostname, out);
    default: break;
  }
  return write_upstream(piece, facts, out) ||
         (facts.facts != nullptr && write_connection(piece, *facts.facts, out));
}

void Format::write(const LogFacts& facts, std::string* out, std::string_view absent) const {
  for (const Piece& piece : pieces_) {
    const size_t before = out->size();
    if (!write_piece(piece, facts, out)) {
      out->resize(before);
      out->append(absent);
    }
    if (piece.max > 0 && out->size() - before > piece.max) out->resize(before + piece.max);
  }
}

}  // namespace edgemesh::proxy
