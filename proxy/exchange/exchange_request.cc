// What becomes of a request's head before a route is looked for: its path is cleaned, the client is
// found among the proxies before us, and the fields that a proxy adds are added.
#include <charconv>

#include "proxy/exchange/exchange.h"
#include "proxy/exchange/http_connection.h"
#include "proxy/exchange/l7_worker.h"
#include "proxy/route/format.h"
#include "proxy/route/matchers.h"

namespace edgemesh::proxy {

namespace {

constexpr std::string_view kForwardedFor = "x-forwarded-for";
constexpr std::string_view kClientCert = "x-forwarded-client-cert";
constexpr std::string_view kRequestId = "x-request-id";

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// The element that is `from_right` places from the right of all x-forwarded-for fields (0 is the
// last); empty when there are not as many.
std::string_view forwarded_element(const Head& head, uint32_t from_right) {
  std::string_view all;
  if (!field_value(head, kForwardedFor, &all)) return {};
  for (;;) {
    const size_t comma = all.rfind(',');
    const std::string_view last = trim(comma == std::string_view::npos ? all : all.substr(comma + 1));
    if (from_right == 0) return last;
    if (comma == std::string_view::npos) return {};
    all = all.substr(0, comma);
    --from_right;
  }
}

// A version 4 UUID (RFC 9562 5.4) of two random numbers.
void put_uuid(uint64_t a, uint64_t b, char* out) {
  constexpr char kDigits[] = "0123456789abcdef";
  a = (a & ~uint64_t{0xF000}) | 0x4000;
  b = (b & ~(uint64_t{3} << 62)) | (uint64_t{2} << 62);
  auto put = [&out, &kDigits](uint64_t value, int from, int digits) {
    for (int i = 0; i < digits; ++i) *out++ = kDigits[(value >> (from - 4 * i)) & 15];
  };
  put(a, 60, 8);
  *out++ = '-';
  put(a, 28, 4);
  *out++ = '-';
  put(a, 12, 4);
  *out++ = '-';
  put(b, 60, 4);
  *out++ = '-';
  put(b, 44, 12);
}
constexpr size_t kUuidBytes = 36;

}  // namespace

bool Exchange::check_request() {
  if (request_->authority.empty() && request_->version != HttpVersion::kHttp10) {
    reply(400, "missing authority", flag::kDownstreamProtocol, "missing authority");
    return false;
  }
  if (request_->version == HttpVersion::kHttp10 && !chain().http10) {
    reply(426, "", flag::kDownstreamProtocol, "HTTP/1.0 is not taken here");
    return false;
  }
  if (!clean_path()) return false;
  find_client();
  note_client_cert();
  add_request_fields();
  begin_trace();
  return true;
}

bool Exchange::clean_path() {
  if (request_->path.empty() || request_->path.front() != '/') return true;  // CONNECT, OPTIONS *
  switch (normalize_path(chain(), request_.get())) {
    case PathResult::kOk:
      return true;
    case PathResult::kReject:
      reply(400, "bad path", flag::kDownstreamProtocol, "the path cannot be normalized");
      return false;
    case PathResult::kRedirect:
      break;
  }
  HeadPtr answer = take_head();
  answer->status = 307;
  answer->add("location", request_->path);
  detail_ = "path normalized";
  send_reply(std::move(answer), "");
  return false;
}

void Exchange::find_client() {
  const model::HttpChain& spec = chain();
  // Our own peer is the last hop; behind it there are `trusted_hops` more that are believed.
  std::string_view element;
  if (spec.use_remote_address) {
    if (spec.trusted_hops > 0) element = forwarded_element(*request_, spec.trusted_hops - 1);
  } else {
    element = forwarded_element(*request_, spec.trusted_hops);
  }
  if (element.empty()) return;
  if (auto ip = IpAddr::parse(element)) facts_.client = *ip;
}

void Exchange::add_request_fields() {
  const model::HttpChain& spec = chain();
  Head& head = *request_;
  if (spec.use_remote_address && spec.trusted_hops == 0) {
    head.remove("x-envoy-original-path");
    head.remove("x-envoy-attempt-count");
    head.set("x-forwarded-proto", facts_.tls ? "https" : "http");
  } else if (!head.has("x-forwarded-proto")) {
    head.add_kept("x-forwarded-proto", facts_.tls ? "https" : "http");
  }
  if (spec.use_remote_address && spec.append_forwarded_for) {
    const std::string_view ip = connection_->peer_text();
    std::string_view before;
    if (field_value(head, kForwardedFor, &before)) {
      char* text = head.allocate(before.size() + 2 + ip.size());
      before.copy(text, before.size());
      text[before.size()] = ',';
      text[before.size() + 1] = ' ';
      ip.copy(text + before.size() + 2, ip.size());
      const std::string_view joined(text, before.size() + 2 + ip.size());
      head.remove(kForwardedFor);
      head.add_kept(kForwardedFor, joined);
    } else {
      head.add(kForwardedFor, ip);
    }
  }
  if (!spec.via.empty()) head.add("via", spec.via);
  begin_request_id();
}

void Exchange::begin_request_id() {
  const model::HttpChain& spec = chain();
  if (!spec.generate_request_id) return;
  const bool believed = !spec.use_remote_address || spec.keep_external_request_id;
  if (believed && request_->has(kRequestId)) return;
  if (!believed) request_->remove(kRequestId);
  char* text = request_->allocate(kUuidBytes);
  put_uuid(facts_.random, worker_.random().next(), text);
  request_->add_kept(kRequestId, {text, kUuidBytes});
}

// x-forwarded-client-cert: who the peer is, for those behind us. A field that a client sent itself is
// believed only from a peer whose certificate was verified.
void Exchange::note_client_cert() {
  using Mode = model::ClientCertField;
  const model::HttpChain& spec = chain();
  const Mode mode = spec.client_cert_field;
  const bool verified = facts_.identity != nullptr;
  if (mode == Mode::kAlwaysForwardOnly || (mode == Mode::kForwardOnly && verified)) return;
  const bool ours = verified && (mode == Mode::kAppendForward || mode == Mode::kSanitizeSet);
  std::string_view before;
  const bool had = field_value(*request_, kClientCert, &before);
  if (!ours) {
    if (had) request_->remove(kClientCert);
    return;
  }
  std::string text;
  if (mode == Mode::kAppendForward && had) text.append(before).append(",");
  text += "Hash=" + facts_.identity->sha256;
  if (spec.cert_subject) text += ";Subject=\"CN=" + facts_.identity->common_name + "\"";
  if (spec.cert_uri)
    for (const auto& uri : facts_.identity->uri_sans) text += ";URI=" + uri;
  if (spec.cert_dns)
    for (const auto& name : facts_.identity->dns_sans) text += ";DNS=" + name;
  request_->set(kClientCert, text);
}

bool Exchange::find_route() {
  entry_ = (*version_)->routes->match(*request_, facts_);
  if (entry_ == nullptr) {
    reply(404, "", flag::kNoRoute, "no route");
    return false;
  }
  using RequireTls = model::VirtualHost::RequireTls;
  const RequireTls required = entry_->host->spec().require_tls;
  if (required != RequireTls::kNone && !facts_.tls && request_->get("x-forwarded-proto") != "https") {
    HeadPtr answer = take_head();
    answer->status = 301;
    answer->add("location", fmt::format("https://{}{}", request_->authority, request_->path));
    detail_ = "https is required";
    send_reply(std::move(answer), "");
    return false;
  }
  const auto& upgrades = entry_->route->upgrades;
  const bool connect = request_->method == "CONNECT" && request_->protocol.empty();
  if (!connect && request_->protocol.empty()) return true;
  const std::string_view wanted = connect ? std::string_view("CONNECT") : request_->protocol;
  for (const auto& allowed : upgrades)
    if (allowed == wanted || allowed == "*") return true;
  reply(403, "", 0, "the route does not allow this upgrade");
  return false;
}

}  // namespace edgemesh::proxy
