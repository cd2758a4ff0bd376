// YAML of routes.
#include <algorithm>

#include "proxy/model/config_read.h"
#include "proxy/model/regex.h"

namespace edgemesh::proxy::model {

namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
constexpr Duration kMaxTime = hours(24 * 365);

void read_values(Reader& reader, std::string_view key, HeaderValue::Mode mode,
                 HeaderMutations& out) {
  for (auto& [name, value] : read_pairs(reader, key)) {
    HeaderValue add;
    add.name = name;
    lower(add.name);
    add.value = value;
    add.mode = mode;
    out.add.push_back(std::move(add));
  }
}

void read_regex_rewrite(Reader& reader, std::string_view key, std::optional<RegexRewrite>& out) {
  if (!reader.has(key)) return;
  Reader section = reader.section(key);
  RegexRewrite rewrite;
  section.require("pattern");
  section.read("pattern", &rewrite.pattern);
  section.read("substitution", &rewrite.substitution);
  auto regex = Regex::make(rewrite.pattern);
  if (!regex)
    section.reject("pattern", regex.error().message);
  else if (auto fits = regex->check_substitution(rewrite.substitution); !fits)
    section.reject("substitution", fits.error().message);
  out = std::move(rewrite);
}

void read_prefix(Reader& reader, std::string_view key, std::optional<std::string>& out) {
  if (reader.has(key)) reader.read(key, &out.emplace());
}

void read_rewrite(Reader reader, Rewrite& out) {
  read_prefix(reader, "prefix", out.prefix);
  read_regex_rewrite(reader, "regex", out.regex);
  reader.read("path", &out.path);
  reader.read("host", &out.host);
  reader.read("hostFromHeader", &out.host_from_header);
  reader.read("hostFromEndpoint", &out.host_from_endpoint);
  reader.read("appendForwardedHost", &out.append_forwarded_host);
}

void read_redirect(Reader reader, Redirect& out) {
  reader.read_enum("status", &out.status,
                   {{"301", 301}, {"302", 302}, {"303", 303}, {"307", 307}, {"308", 308}});
  reader.read("scheme", &out.scheme);
  reader.read("host", &out.host);
  reader.read("port", &out.port, 1);
  reader.read("path", &out.path);
  read_prefix(reader, "prefix", out.prefix);
  read_regex_rewrite(reader, "regex", out.regex);
  reader.read("stripQuery", &out.strip_query);
}

void read_retry(Reader reader, RetryPolicy& out) {
  namespace on = retry_on;
  constexpr std::pair<std::string_view, uint32_t> kNames[] = {
      {"5xx", on::k5xx},
      {"gateway-error", on::kGatewayError},
      {"connect-failure", on::kConnectFailure},
      {"refused-stream", on::kRefusedStream},
      {"reset", on::kReset},
      {"reset-before-request", on::kResetBeforeRequest},
      {"retriable-4xx", on::kRetriable4xx},
      {"retriable-status-codes", on::kStatuses},
      {"retriable-headers", on::kHeaders},
      {"cancelled", on::kGrpcCancelled},
      {"deadline-exceeded", on::kGrpcDeadline},
      {"internal", on::kGrpcInternal},
      {"resource-exhausted", on::kGrpcExhausted},
      {"unavailable", on::kGrpcUnavailable}};
  std::vector<std::string> names, statuses;
  reader.require("on");
  reader.read("on", &names);
  std::string want;
  for (const auto& [name, bit] : kNames) want.append(want.empty() ? "" : ", ").append(name);
  for (const auto& name : names) {
    const auto* found = std::find_if(std::begin(kNames), std::end(kNames),
                                     [&](const auto& entry) { return entry.first == name; });
    if (found == std::end(kNames))
      reader.reject("on", fmt::format("'{}' is not allowed (want {})", name, want));
    else
      out.on |= found->second;
  }
  reader.read("attempts", &out.attempts, 0, 100);
  reader.read("perTryTimeout", &out.per_try_timeout, Duration::zero(), kMaxTime);
  reader.read("perTryIdleTimeout", &out.per_try_idle_timeout, Duration::zero(), kMaxTime);
  reader.read("baseInterval", &out.base_interval, milliseconds(1), hours(1));
  reader.read("maxInterval", &out.max_interval, milliseconds(1), hours(1));
  reader.read("otherHost", &out.other_host);
  reader.read("hostAttempts", &out.host_attempts, 1, 100);
  reader.read("statuses", &statuses);
  for (const auto& text : statuses) {
    const int status = text.size() == 3 ? std::atoi(text.c_str()) : 0;
    if (status < 100 || status > 599)
      reader.reject("statuses", fmt::format("'{}' is not allowed (want 100 to 599)", text));
    out.statuses.push_back(static_cast<uint16_t>(status));
  }
  std::sort(out.statuses.begin(), out.statuses.end());
  out.headers = read_field_matches(reader, "headers");
  out.request_headers = read_field_matches(reader, "requestHeaders");
}

Part<RetryPolicy> read_retry_part(Reader& reader) {
  const bool here = reader.has("retry");
  Reader section = reader.section("retry");
  if (!here) return {};
  auto out = std::make_shared<RetryPolicy>();
  read_retry(section, *out);
  return Part<RetryPolicy>(std::move(out));
}

void read_timeouts(Reader reader, Timeouts& out) {
  reader.read("route", &out.route, Duration::zero(), kMaxTime);
  if (reader.has("idle"))
    reader.read("idle", &out.idle.emplace(), Duration::zero(), kMaxTime);
  if (reader.has("maxStream"))
    reader.read("maxStream", &out.max_stream.emplace(), Duration::zero(), kMaxTime);
  if (reader.has("maxGrpc"))
    reader.read("maxGrpc", &out.max_grpc.emplace(), Duration::zero(), kMaxTime);
  reader.read("grpcOffset", &out.grpc_offset, Duration::zero(), kMaxTime);
}

void read_hedge(Reader& reader, Route& out) {
  if (!reader.has("hedge")) return;
  Reader section = reader.section("hedge");
  auto hedge = std::make_shared<HedgePolicy>();
  section.read("initialRequests", &hedge->initial_requests, 1, 10);
  read_percent(section, "additionalPercent", &hedge->additional_chance);
  section.read("onPerTryTimeout", &hedge->on_per_try_timeout);
  out.hedge = Part<HedgePolicy>(std::move(hedge));
}

void read_forward(Reader& reader, Forward& out) {
  if (reader.has("cluster")) {
    if (reader.has("clusters")) reader.reject("clusters", "and cluster are both given");
    reader.read("cluster", &out.clusters.emplace_back().name);
  }
  if (reader.has("clusters"))
    for (Reader item : reader.sections("clusters"))
      out.clusters.push_back(read_weighted_cluster(item));
  reader.read("clusterHeader", &out.cluster_header);
  reader.read("missingStatus", &out.missing_status, 400, 599);
}

void read_action(Reader& reader, Route& out) {
  constexpr std::string_view kActions[] = {"cluster", "clusters", "clusterHeader", "redirect",
                                           "respond"};
  if (std::none_of(std::begin(kActions), std::end(kActions),
                   [&](std::string_view key) { return reader.has(key); }))
    reader.reject("cluster",
                  "is missing (want cluster, clusters, clusterHeader, redirect or respond)");
  Forward forward;
  read_forward(reader, forward);
  const bool redirects = reader.has("redirect"), responds = reader.has("respond");
  const bool forwards = !forward.clusters.empty() || !forward.cluster_header.empty();
  if (redirects + responds + forwards > 1)
    reader.reject(redirects ? "redirect" : "respond", "a route has one action");
  if (redirects) {
    read_redirect(reader.section("redirect"), out.action.emplace<Redirect>());
  } else if (responds) {
    Reader section = reader.section("respond");
    DirectResponse& answer = out.action.emplace<DirectResponse>();
    std::string file;
    section.read("status", &answer.status, 200, 599);
    read_text_or_file(section, "body", "bodyFile", &answer.body, &file);
    section.read("contentType", &answer.content_type);
  } else {
    out.action = std::move(forward);
  }
}

void read_route(Reader reader, Route& out) {
  reader.read("name", &out.name);
  read_route_match(reader.section("match"), out.match);
  read_action(reader, out);
  read_rewrite(reader.section("rewrite"), out.rewrite);
  read_header_mutations(reader.section("requestHeaders"), out.request_headers);
  read_header_mutations(reader.section("responseHeaders"), out.response_headers);
  read_timeouts(reader.section("timeouts"), out.timeouts);
  out.retry = read_retry_part(reader);
  read_hedge(reader, out);
  for (Reader item : reader.sections("mirrors")) {
    Mirror& mirror = out.mirrors.emplace_back();
    item.require("cluster");
    item.read("cluster", &mirror.cluster);
    read_percent(item, "percent", &mirror.share);
  }
  read_hash_policies(reader, out.hash);
  reader.read_enum("priority", &out.priority,
                   {{"default", RequestPriority::kDefault}, {"high", RequestPriority::kHigh}});
  reader.read("upgrades", &out.upgrades);
  read_policies(reader.section("policies"), out.policies);
  reader.read("operation", &out.operation);
}

VirtualHostPtr read_host(Reader reader) {
  auto out = std::make_shared<VirtualHost>();
  reader.read("name", &out->name);
  reader.require("domains");
  reader.read("domains", &out->domains);
  for (auto& domain : out->domains) lower(domain);
  if (out->name.empty() && !out->domains.empty()) out->name = out->domains[0];
  for (Reader item : reader.sections("routes")) read_route(item, out->routes.emplace_back());
  reader.read_enum("requireTls", &out->require_tls,
                   {{"none", VirtualHost::RequireTls::kNone},
                    {"all", VirtualHost::RequireTls::kAll},
                    {"external", VirtualHost::RequireTls::kExternalOnly}});
  read_header_mutations(reader.section("requestHeaders"), out->request_headers);
  read_header_mutations(reader.section("responseHeaders"), out->response_headers);
  out->retry = read_retry_part(reader);
  read_policies(reader.section("policies"), out->policies);
  reader.read("attemptCountHeader", &out->attempt_count_header);
  return out;
}

}  // namespace

void read_header_mutations(Reader reader, HeaderMutations& out) {
  using Mode = HeaderValue::Mode;
  read_values(reader, "append", Mode::kAppend, out);
  read_values(reader, "set", Mode::kSet, out);
  read_values(reader, "addIfAbsent", Mode::kAddIfAbsent, out);
  read_values(reader, "replace", Mode::kReplaceIfExists, out);
  reader.read("remove", &out.remove);
  for (auto& name : out.remove) lower(name);
}

void read_hash_policies(Reader& reader, std::vector<HashPolicy>& out) {
  using Kind = HashPolicy::Kind;
  for (Reader item : reader.sections("hash")) {
    HashPolicy& policy = out.emplace_back();
    item.read_enum("by", &policy.kind,
                   {{"header", Kind::kHeader},
                    {"cookie", Kind::kCookie},
                    {"sourceIp", Kind::kSourceIp},
                    {"query", Kind::kQuery}});
    if (policy.kind != Kind::kSourceIp) item.require("name");
    item.read("name", &policy.name);
    if (item.has("ttl")) item.read("ttl", &policy.cookie_ttl.emplace(), Duration::zero(), kMaxTime);
    item.read("path", &policy.cookie_path);
    item.read("terminal", &policy.terminal);
  }
}

WeightedCluster read_weighted_cluster(Reader reader) {
  WeightedCluster out;
  reader.require("name");
  reader.read("name", &out.name);
  reader.read("weight", &out.weight, 0, 1'000'000);
  for (auto& [key, value] : read_pairs(reader, "subset")) out.subset.push_back({key, value});
  std::sort(out.subset.begin(), out.subset.end());
  const auto mutations = [&](std::string_view key) -> Part<HeaderMutations> {
    const bool here = reader.has(key);
    Reader section = reader.section(key);
    if (!here) return {};
    auto part = std::make_shared<HeaderMutations>();
    read_header_mutations(section, *part);
    return Part<HeaderMutations>(std::move(part));
  };
  out.request_headers = mutations("requestHeaders");
  out.response_headers = mutations("responseHeaders");
  return out;
}

RouteConfigPtr read_route_config(Reader reader) {
  auto out = std::make_shared<RouteConfig>();
  reader.require("name");
  reader.read("name", &out->name);
  for (Reader item : reader.sections("hosts")) out->hosts.push_back(read_host(item));
  read_header_mutations(reader.section("requestHeaders"), out->request_headers);
  read_header_mutations(reader.section("responseHeaders"), out->response_headers);
  reader.read("mostSpecificMutationsLast", &out->most_specific_mutations_last);
  reader.read("ignorePort", &out->ignore_port);
  return out;
}

}  // namespace edgemesh::proxy::model
