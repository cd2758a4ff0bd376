#include "p2p/signal.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace edgemesh::p2p {

namespace {

using nlohmann::json;

constexpr size_t kMaxCandidateBytes = 256;

bool is_hex(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
}

// The characters of RFC 8445's ice-char.
bool is_ice_text(std::string_view text, size_t min, size_t max) {
  return text.size() >= min && text.size() <= max &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  c == '+' || c == '/';
         });
}

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
}

Result<std::string> text(const json& object, const char* key) {
  auto it = object.find(key);
  if (it == object.end()) return std::string();
  if (!it->is_string()) return fail(ErrorCode::kProtocol, "signal: {} is not a string", key);
  return it->get<std::string>();
}

Result<std::vector<std::string>> texts(const json& object, const char* key, size_t max) {
  std::vector<std::string> out;
  auto it = object.find(key);
  if (it == object.end()) return out;
  if (!it->is_array() || it->size() > max)
    return fail(ErrorCode::kProtocol, "signal: {} is not a list of at most {}", key, max);
  for (const auto& entry : *it) {
    if (!entry.is_string()) return fail(ErrorCode::kProtocol, "signal: {} holds no strings", key);
    out.push_back(entry.get<std::string>());
  }
  return out;
}

constexpr std::pair<std::string_view, Signal::Kind> kKinds[] = {
    {"offer", Signal::Kind::kOffer},
    {"answer", Signal::Kind::kAnswer},
    {"candidate", Signal::Kind::kCandidate},
    {"bye", Signal::Kind::kBye},
};

Result<> check(const Signal& s) {
  bool creates = s.kind == Signal::Kind::kOffer || s.kind == Signal::Kind::kAnswer;
  if (!is_hex(s.instance)) return fail(ErrorCode::kProtocol, "signal: bad instance");
  if (!is_hex(s.session) && !(s.kind == Signal::Kind::kBye && s.session.empty()))
    return fail(ErrorCode::kProtocol, "signal: bad session");
  if (creates && (!is_ice_text(s.ufrag, 4, 256) || !is_ice_text(s.pwd, 22, 256)))
    return fail(ErrorCode::kProtocol, "signal: bad ICE credentials");
  for (const auto& c : s.candidates)
    if (c.size() > kMaxCandidateBytes || !c.starts_with("candidate:") || !is_printable(c))
      return fail(ErrorCode::kProtocol, "signal: bad candidate");
  if (s.nat.size() > 32 || !is_printable(s.nat)) return fail(ErrorCode::kProtocol, "signal: bad nat");
  return {};
}

}  // namespace

Result<Signal> parse_signal(std::string_view input) {
  if (input.size() > kMaxSignalBytes) return fail(ErrorCode::kProtocol, "signal is too long");
  json object = json::parse(input, nullptr, false);
  if (!object.is_object()) return fail(ErrorCode::kProtocol, "signal is not a JSON object");
  auto version = object.find("v");
  if (version == object.end() || !version->is_number_integer() || *version != 1)
    return fail(ErrorCode::kProtocol, "signal: unknown version");
  Signal s;
  EM_TRY(std::string kind, text(object, "kind"));
  const auto* known = std::find_if(std::begin(kKinds), std::end(kKinds),
                                   [&](const auto& entry) { return entry.first == kind; });
  if (known == std::end(kKinds)) return fail(ErrorCode::kProtocol, "signal: unknown kind");
  s.kind = known->second;
  EM_TRY(s.instance, text(object, "instance"));
  EM_TRY(s.session, text(object, "session"));
  EM_TRY(s.ufrag, text(object, "ufrag"));
  EM_TRY(s.pwd, text(object, "pwd"));
  EM_TRY(s.nat, text(object, "nat"));
  EM_TRY(s.candidates, texts(object, "candidates", kMaxSignalCandidates));
  EM_TRY(std::vector<std::string> direct, texts(object, "direct", kMaxSignalAddresses));
  for (const auto& addr : direct) {
    EM_TRY(SockAddr parsed, SockAddr::parse(addr));
    if (parsed.port == 0 || parsed.ip.is_unspecified())
      return fail(ErrorCode::kProtocol, "signal: bad direct address");
    s.direct.push_back(parsed);
  }
  if (auto done = object.find("done"); done != object.end()) {
    if (!done->is_boolean()) return fail(ErrorCode::kProtocol, "signal: done is no boolean");
    s.done = done->get<bool>();
  }
  EM_TRY_VOID(check(s));
  return s;
}

std::string encode_signal(const Signal& s) {
  json object;
  object["v"] = 1;
  for (const auto& [name, kind] : kKinds)
    if (kind == s.kind) object["kind"] = std::string(name);
  object["instance"] = s.instance;
  object["session"] = s.session;
  if (!s.ufrag.empty()) object["ufrag"] = s.ufrag;
  if (!s.pwd.empty()) object["pwd"] = s.pwd;
  if (!s.nat.empty()) object["nat"] = s.nat;
  if (!s.candidates.empty()) object["candidates"] = s.candidates;
  if (s.done) object["done"] = true;
  for (const auto& addr : s.direct) object["direct"].push_back(addr.to_string());
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace edgemesh::p2p
