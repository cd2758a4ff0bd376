#include "proxy/route/jwt.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/tls/x509.h"
#include "proxy/route/matchers.h"

namespace edgemesh::proxy {

namespace {

using nlohmann::json;

std::string text_of(const json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

tl::unexpected<Error> refuse(std::string_view why) {
  return fail(ErrorCode::kUnauthenticated, "JWT: {}", why);
}

Result<tls::JwsKey> read_jwk(const json& jwk) {
  const auto number = [&](const char* name) { return tls::base64url_decode(text_of(jwk, name)); };
  if (text_of(jwk, "kty") == "RSA") {
    EM_TRY(const std::string n, number("n"));
    EM_TRY(const std::string e, number("e"));
    return tls::JwsKey::rsa(n, e);
  }
  if (text_of(jwk, "kty") != "EC" || text_of(jwk, "crv") != "P-256")
    return fail(ErrorCode::kInvalidArgument, "JWK: neither RSA nor P-256");
  EM_TRY(const std::string x, number("x"));
  EM_TRY(const std::string y, number("y"));
  return tls::JwsKey::p256(x, y);
}

Result<json> read_part(std::string_view part) {
  EM_TRY(const std::string text, tls::base64url_decode(part));
  json out = json::parse(text, nullptr, false);
  if (!out.is_object()) return refuse("not a JSON object");
  return out;
}

// Seconds of a NumericDate; false: it is there and is none.
bool read_time(const json& payload, const char* name, bool* there, double* out) {
  const auto it = payload.find(name);
  *there = it != payload.end();
  if (!*there) return true;
  if (!it->is_number()) return false;
  *out = it->get<double>();
  return true;
}

Result<> check_times(const model::JwtProvider& provider, const json& payload, int64_t now) {
  const double leeway = std::chrono::duration<double>(provider.leeway).count();
  bool there = false;
  double time = 0;
  if (!read_time(payload, "exp", &there, &time)) return refuse("exp is no time");
  if (!there && provider.require_expiration) return refuse("no exp");
  if (there && static_cast<double>(now) > time + leeway) return refuse("it has expired");
  if (!read_time(payload, "nbf", &there, &time)) return refuse("nbf is no time");
  if (there && static_cast<double>(now) + leeway < time) return refuse("it is not valid yet");
  return {};
}

Result<> check_claims(const model::JwtProvider& provider, const json& payload,
                      const std::string& text) {
  if (!provider.issuer.empty() && text_of(payload, "iss") != provider.issuer)
    return refuse("of another issuer");
  JwtClaims claims;
  claims.add(provider.name, text);
  if (!provider.audiences.empty() && !claims.any("", {"aud"}, [&](std::string_view value) {
        return std::find(provider.audiences.begin(), provider.audiences.end(), value) !=
               provider.audiences.end();
      }))
    return refuse("for another audience");
  for (const auto& [name, wanted] : provider.required_claims) {
    std::vector<std::string> path;
    for (size_t from = 0; from <= name.size();) {
      const size_t dot = std::min(name.find('.', from), name.size());
      path.push_back(name.substr(from, dot - from));
      from = dot + 1;
    }
    EM_TRY(const TextMatcher matcher, TextMatcher::make(wanted));
    if (!claims.any("", path, [&](std::string_view value) { return matcher.matches(value); }))
      return refuse("a required claim is missing");
  }
  return {};
}

}  // namespace

Result<KeySet> KeySet::parse(std::string_view text) {
  const json set = json::parse(text, nullptr, false);
  if (!set.is_object() || !set.contains("keys") || !set["keys"].is_array())
    return fail(ErrorCode::kInvalidArgument, "JWKS: not an object with a list 'keys'");
  KeySet out;
  for (const json& jwk : set["keys"]) {
    if (!jwk.is_object() || text_of(jwk, "use") == "enc") continue;
    auto key = read_jwk(jwk);
    if (!key) continue;
    const std::string algorithm = text_of(jwk, "alg");
    if (!algorithm.empty() && algorithm != key->algorithm()) continue;
    if (out.keys_.size() == kMaxKeys)
      return fail(ErrorCode::kInvalidArgument, "JWKS: more than {} keys", kMaxKeys);
    out.keys_.push_back({text_of(jwk, "kid"), std::move(*key)});
  }
  if (out.keys_.empty())
    return fail(ErrorCode::kInvalidArgument, "JWKS: no RSA or P-256 key for signatures");
  return out;
}

Result<std::string> verify_jwt(const model::JwtProvider& provider, const KeySet& keys,
                               std::string_view token, int64_t now) {
  if (token.size() > kMaxJwtBytes) return refuse("too long");
  const size_t first = token.find('.');
  const size_t second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos || token.find('.', second + 1) != std::string_view::npos)
    return refuse("not three parts");
  EM_TRY(const json header, read_part(token.substr(0, first)));
  if (header.contains("crit")) return refuse("'crit' is not supported");
  const std::string algorithm = text_of(header, "alg"), id = text_of(header, "kid");
  if (algorithm != "RS256" && algorithm != "ES256") return refuse("alg is not RS256 or ES256");
  auto signature = tls::base64url_decode(token.substr(second + 1));
  if (!signature) return refuse("bad signature");
  // Without an id in the token each key of that kind is tried.
  const bool good = std::any_of(keys.keys_.begin(), keys.keys_.end(), [&](const auto& entry) {
    return entry.key.algorithm() == algorithm && (id.empty() || entry.id == id) &&
           entry.key.verify(token.substr(0, second), *signature);
  });
  if (!good) return refuse("bad signature");
  EM_TRY(const json payload, read_part(token.substr(first + 1, second - first - 1)));
  EM_TRY(std::string text, tls::base64url_decode(token.substr(first + 1, second - first - 1)));
  EM_TRY_VOID(check_times(provider, payload, now));
  EM_TRY_VOID(check_claims(provider, payload, text));
  return text;
}

std::string_view find_jwt(const model::JwtProvider& provider, const Head& request) {
  std::string_view value;
  if (provider.from_headers.empty() && provider.from_query.empty() &&
      provider.from_cookies.empty()) {
    const std::string_view bearer = request.get("authorization");
    if (starts_with(bearer, "Bearer ", true)) return bearer.substr(7);
    return find_query(query_of(request.path), "access_token", &value) ? value : std::string_view();
  }
  for (const auto& header : provider.from_headers) {
    const std::string_view text = request.get(header.name);
    if (!text.empty() && text.starts_with(header.prefix)) return text.substr(header.prefix.size());
  }
  for (const auto& name : provider.from_query)
    if (find_query(query_of(request.path), name, &value)) return value;
  for (const auto& name : provider.from_cookies)
    if (find_cookie(request, name, &value)) return value;
  return {};
}

}  // namespace edgemesh::proxy
