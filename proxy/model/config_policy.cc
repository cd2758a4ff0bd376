// YAML of the policies.
#include "proxy/model/config_read.h"

namespace edgemesh::proxy::model {

namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
constexpr int kMaxRuleDepth = 16;

template <class T, class Read>
Part<T> read_part(Reader& reader, std::string_view key, const Read& read) {
  const bool here = reader.has(key);
  Reader section = reader.section(key);
  if (!here) return {};
  auto out = std::make_shared<T>();
  read(section, *out);
  return Part<T>(std::move(out));
}

void read_cors(Reader& reader, Cors& out) {
  out.origins = read_text_matches(reader, "origins");
  reader.read("methods", &out.methods);
  reader.read("headers", &out.headers);
  reader.read("expose", &out.expose);
  Duration age{};
  const bool has_age = reader.has("maxAge");
  reader.read("maxAge", &age, Duration::zero(), hours(24 * 365));
  if (has_age)
    out.max_age = std::to_string(std::chrono::duration_cast<std::chrono::seconds>(age).count());
  reader.read("credentials", &out.credentials);
  reader.read("privateNetwork", &out.private_network);
  reader.read("forwardUnmatchedPreflight", &out.forward_unmatched_preflight);
}

void read_fault(Reader& reader, Fault& out) {
  if (reader.has("delay")) {
    Reader delay = reader.section("delay");
    out.delay_share = kAlways;
    read_percent(delay, "percent", &out.delay_share);
    delay.read("time", &out.delay, Duration::zero(), hours(1));
  }
  if (reader.has("abort")) {
    Reader abort = reader.section("abort");
    out.abort_share = kAlways;
    read_percent(abort, "percent", &out.abort_share);
    abort.read("status", &out.abort_status, 200, 599);
    abort.read("grpcStatus", &out.abort_grpc, 0, 16);
  }
  out.headers = read_field_matches(reader, "headers");
  reader.read("byHeader", &out.by_header);
  reader.read("offHeader", &out.off_header);
  lower(out.off_header);
  reader.read("maxActive", &out.max_active);
}

void read_rate_limit(Reader& reader, LocalRateLimit& out) {
  reader.require("maxTokens");
  reader.read("maxTokens", &out.max_tokens, 1);
  out.tokens_per_fill = out.max_tokens;
  reader.read("tokensPerFill", &out.tokens_per_fill, 1);
  reader.read("fillInterval", &out.fill_interval, milliseconds(1), hours(24));
  read_percent(reader, "enabledPercent", &out.enabled);
  read_percent(reader, "enforcedPercent", &out.enforced);
  reader.read("status", &out.status, 400, 599);
  reader.read("perConnection", &out.per_connection);
  reader.read("rateLimitHeaders", &out.draft_headers);
  out.response_headers = read_pairs(reader, "responseHeaders");
}

std::vector<RbacRule> read_rules(Reader& reader, std::string_view key, int depth);

void read_rule_kind(Reader& reader, std::string_view key, RbacRule& out, int depth) {
  using Kind = RbacRule::Kind;
  const auto text = [&](Kind kind) {
    out.kind = kind;
    out.text = read_text_match(reader.section(key));
  };
  const auto cidr = [&](Kind kind) {
    out.kind = kind;
    reader.read(key, &out.cidr);
  };
  bool yes = true;
  if (key == "any" || key == "authenticated") {
    out.kind = key == "any" ? Kind::kAny : Kind::kPrincipal;
    out.authenticated_any = true;
    reader.read(key, &yes);
    if (!yes) reader.reject(key, "'false' is not allowed (want true; 'not' turns a rule around)");
  } else if (key == "and" || key == "or") {
    out.kind = key == "and" ? Kind::kAnd : Kind::kOr;
    out.rules = read_rules(reader, key, depth + 1);
  } else if (key == "not") {
    out.kind = Kind::kNot;
    out.rules = read_rules(reader, key, depth + 1);
    if (out.rules.size() != 1) reader.reject(key, "wants a list of one rule");
  } else if (key == "principal") {
    text(Kind::kPrincipal);
  } else if (key == "header") {
    out.kind = Kind::kHeader;
    out.field = read_field_match(reader.section(key), false);
  } else if (key == "path") {
    text(Kind::kPath);
  } else if (key == "method") {
    text(Kind::kMethod);
  } else if (key == "serverName") {
    text(Kind::kSni);
  } else if (key == "destinationIp") {
    cidr(Kind::kDestinationIp);
  } else if (key == "sourceIp") {
    cidr(Kind::kSourceIp);
  } else if (key == "directSourceIp") {
    cidr(Kind::kDirectSourceIp);
  } else if (key == "port") {
    out.kind = Kind::kDestinationPort;
    reader.read(key, &out.first_port, 1);
    out.last_port = out.first_port;
  } else {  // claim, label
    out.kind = key == "claim" ? Kind::kJwtClaim : Kind::kLabel;
    Reader section = reader.section(key);
    section.require("name");
    if (key == "claim") {
      section.read("provider", &out.jwt_provider);
      section.read("name", &out.claim);
    } else {
      out.claim.resize(1);
      section.read("name", &out.claim[0]);
    }
    out.text = read_text_match(section);
  }
}

RbacRule read_rule(Reader reader, int depth) {
  constexpr std::string_view kKeys[] = {"any",
                                        "authenticated",
                                        "and",
                                        "or",
                                        "not",
                                        "principal",
                                        "header",
                                        "path",
                                        "method",
                                        "serverName",
                                        "destinationIp",
                                        "sourceIp",
                                        "directSourceIp",
                                        "port",
                                        "claim",
                                        "label"};
  RbacRule out;
  int given = 0;
  for (const std::string_view key : kKeys) {
    if (!reader.has(key)) {
      continue;
    }
    if (++given > 1) reader.reject(key, "a rule has one key; use 'and' for several");
    read_rule_kind(reader, key, out, depth);
  }
  if (given == 0)
    reader.reject("any",
                  "a rule is missing (want any, authenticated, and, or, not, principal, header, "
                  "path, method, serverName, destinationIp, sourceIp, directSourceIp, port, claim "
                  "or label)");
  return out;
}

std::vector<RbacRule> read_rules(Reader& reader, std::string_view key, int depth) {
  std::vector<RbacRule> out;
  if (depth > kMaxRuleDepth) {
    reader.reject(key, fmt::format("rules nest deeper than {}", kMaxRuleDepth));
    return out;
  }
  for (Reader item : reader.sections(key)) out.push_back(read_rule(item, depth));
  return out;
}

std::vector<RbacRules> read_rule_sets(Reader& reader, std::string_view key) {
  std::vector<RbacRules> out;
  for (Reader item : reader.sections(key)) {
    RbacRules& set = out.emplace_back();
    item.require("action");
    item.read_enum("action", &set.action,
                   {{"allow", RbacRules::Action::kAllow},
                    {"deny", RbacRules::Action::kDeny},
                    {"log", RbacRules::Action::kLog}});
    for (Reader one : item.sections("policies")) {
      RbacPolicy& policy = set.policies.emplace_back();
      one.read("name", &policy.name);
      // Left out: anybody, anything.
      policy.permissions =
          one.has("permissions") ? read_rules(one, "permissions", 0) : std::vector<RbacRule>(1);
      policy.principals =
          one.has("principals") ? read_rules(one, "principals", 0) : std::vector<RbacRule>(1);
    }
  }
  return out;
}

void read_ext_authz(Reader& reader, ExtAuthz& out) {
  reader.require("cluster");
  reader.read("cluster", &out.cluster);
  reader.read("host", &out.host);
  reader.read("pathPrefix", &out.path_prefix);
  reader.read("timeout", &out.timeout, milliseconds(1), hours(1));
  out.request_headers = read_text_matches(reader, "requestHeaders");
  out.upstream_headers = read_text_matches(reader, "upstreamHeaders");
  out.client_headers = read_text_matches(reader, "clientHeaders");
  out.add_headers = read_pairs(reader, "addHeaders");
  reader.read("maxBody", &out.max_body, 0, 1 << 20);
  reader.read("allowPartialBody", &out.allow_partial);
  reader.read("failureAllow", &out.failure_allow);
  reader.read("failureStatus", &out.failure_status, 400, 599);
}

void read_compression(Reader& reader, Compression& out) {
  reader.read("gzip", &out.gzip);
  reader.read("zstd", &out.zstd);
  reader.read("gzipLevel", &out.gzip_level, 1, 9);
  reader.read("zstdLevel", &out.zstd_level, 1, 19);
  reader.read("minSize", &out.min_size, 0, 1 << 30);
  reader.read("types", &out.types);
  reader.read("weakenEtag", &out.weaken_etag);
}

void read_requirement(Reader reader, JwtRequirement& out, int depth) {
  using Kind = JwtRequirement::Kind;
  constexpr std::pair<std::string_view, Kind> kLists[] = {{"any", Kind::kAny}, {"all", Kind::kAll}};
  reader.read("provider", &out.provider);
  reader.read("audiences", &out.audiences);
  if (depth > kMaxRuleDepth) return reader.reject("any", "nests too deep");
  for (const auto& [key, kind] : kLists) {
    if (!reader.has(key)) continue;
    out.kind = kind;
    for (Reader item : reader.sections(key))
      read_requirement(item, out.all.emplace_back(), depth + 1);
  }
  bool missing = false, failed = false;
  reader.read("allowMissing", &missing);
  reader.read("allowMissingOrFailed", &failed);
  if (missing) out.kind = Kind::kAllowMissing;
  if (failed) out.kind = Kind::kAllowMissingOrFailed;
  if (out.kind == Kind::kProvider) reader.require("provider");
}

void read_provider(Reader reader, JwtProvider& out) {
  reader.require("name");
  reader.read("name", &out.name);
  reader.read("issuer", &out.issuer);
  reader.read("audiences", &out.audiences);
  read_text_or_file(reader, "jwks", "jwksFile", &out.jwks, &out.jwks_file);
  reader.read("jwksUrl", &out.jwks_url);
  reader.read("jwksCluster", &out.jwks_cluster);
  if (out.jwks.empty() && out.jwks_url.empty()) reader.require("jwks");
  reader.read("jwksRefresh", &out.jwks_refresh, std::chrono::seconds(1), hours(24));
  reader.read("jwksTimeout", &out.jwks_timeout, milliseconds(1), hours(1));
  for (Reader item : reader.sections("fromHeaders")) {
    auto& header = out.from_headers.emplace_back();
    item.require("name");
    item.read("name", &header.name);
    lower(header.name);
    item.read("prefix", &header.prefix);
  }
  reader.read("fromQuery", &out.from_query);
  reader.read("fromCookies", &out.from_cookies);
  reader.read("forward", &out.forward);
  reader.read("payloadHeader", &out.payload_header);
  out.claim_to_headers = read_pairs(reader, "claimToHeaders");
  for (Reader item : reader.sections("requiredClaims")) {
    std::string name;
    item.require("name");
    item.read("name", &name);
    out.required_claims.emplace_back(name, read_text_match(item));
  }
  reader.read("leeway", &out.leeway, Duration::zero(), hours(1));
  reader.read("requireExpiration", &out.require_expiration);
}

}  // namespace

Part<Rbac> read_rbac(Reader& reader) {
  return read_part<Rbac>(reader, "rbac", [](Reader& section, Rbac& out) {
    out.rules = read_rule_sets(section, "rules");
    out.shadow = read_rule_sets(section, "shadow");
  });
}

void read_policies(Reader reader, RoutePolicies& out) {
  out.cors = read_part<Cors>(reader, "cors", read_cors);
  out.fault = read_part<Fault>(reader, "fault", read_fault);
  out.rate_limit = read_part<LocalRateLimit>(reader, "rateLimit", read_rate_limit);
  out.rbac = read_rbac(reader);
  out.ext_authz = read_part<ExtAuthz>(reader, "extAuthz", read_ext_authz);
  out.compression = read_part<Compression>(reader, "compression", read_compression);
}

Part<Jwt> read_jwt(Reader& reader) {
  return read_part<Jwt>(reader, "jwt", [](Reader& section, Jwt& out) {
    for (Reader item : section.sections("providers"))
      read_provider(item, out.providers.emplace_back());
    for (Reader item : section.sections("rules")) {
      JwtRule& rule = out.rules.emplace_back();
      if (item.has("match")) read_route_match(item.section("match"), rule.match);
      if (item.has("requires"))
        read_requirement(item.section("requires"), rule.requires_token.emplace(), 0);
    }
    section.read("bypassCorsPreflight", &out.bypass_cors_preflight);
  });
}

}  // namespace edgemesh::proxy::model
