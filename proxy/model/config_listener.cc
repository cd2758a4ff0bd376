// YAML of listeners.
#include "proxy/model/config_read.h"

namespace edgemesh::proxy::model {

namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
constexpr Duration kMaxTime = hours(24 * 365);

void read_chain_match(Reader reader, ChainMatch& out) {
  reader.read("port", &out.destination_port, 1);
  reader.read("destinations", &out.destinations);
  reader.read("serverNames", &out.server_names);
  for (auto& name : out.server_names) lower(name);
  reader.read_enum("transport", &out.transport,
                   {{"any", ChainMatch::Transport::kAny},
                    {"raw", ChainMatch::Transport::kRaw},
                    {"tls", ChainMatch::Transport::kTls}});
  reader.read("applicationProtocols", &out.application_protocols);
  reader.read("directSources", &out.direct_sources);
  reader.read_enum("sourceType", &out.source_type,
                   {{"any", ChainMatch::SourceType::kAny},
                    {"local", ChainMatch::SourceType::kLocal},
                    {"external", ChainMatch::SourceType::kExternal}});
  reader.read("sources", &out.sources);
}

void read_tls(Reader reader, TlsTermination& out) {
  read_text_or_file(reader, "cert", "certFile", &out.cert_pem, &out.cert_file);
  read_text_or_file(reader, "key", "keyFile", &out.key_pem, &out.key_file);
  read_text_or_file(reader, "ca", "caFile", &out.ca_pem, &out.ca_file);
  if (out.cert_pem.empty() && out.cert_file.empty()) reader.require("certFile");
  if (out.key_pem.empty() && out.key_file.empty()) reader.require("keyFile");
  reader.read_enum("clientCert", &out.client_cert,
                   {{"none", TlsTermination::ClientCert::kNone},
                    {"optional", TlsTermination::ClientCert::kOptional},
                    {"required", TlsTermination::ClientCert::kRequired}});
  if (out.client_cert != TlsTermination::ClientCert::kNone && out.ca_pem.empty() &&
      out.ca_file.empty())
    reader.require("caFile");
  out.client_sans = read_text_matches(reader, "clientSans");
  reader.read("alpn", &out.alpn);
  reader.read_enum("minVersion", &out.min_version, {{"1.2", 0x0303}, {"1.3", 0x0304}});
  reader.read("sessionTickets", &out.session_tickets);
  reader.read("handshakeTimeout", &out.handshake_timeout, milliseconds(1), hours(1));
  for (Reader item : reader.sections("certificates")) {
    auto& cert = out.more.emplace_back();
    item.require("serverNames");
    item.read("serverNames", &cert.server_names);
    read_text_or_file(item, "cert", "certFile", &cert.cert_pem, &cert.cert_file);
    read_text_or_file(item, "key", "keyFile", &cert.key_pem, &cert.key_file);
  }
}

void read_tcp(Reader reader, TcpChain& out) {
  if (reader.has("cluster")) reader.read("cluster", &out.clusters.emplace_back().name);
  for (Reader item : reader.sections("clusters"))
    out.clusters.push_back(read_weighted_cluster(item));
  if (out.clusters.empty()) reader.require("cluster");
  reader.read("idleTimeout", &out.idle_timeout, Duration::zero(), kMaxTime);
  reader.read("maxDuration", &out.max_duration, Duration::zero(), kMaxTime);
  reader.read("connectAttempts", &out.connect_attempts, 1, 100);
  read_hash_policies(reader, out.hash);
  out.rbac = read_rbac(reader);
  reader.read("tunnelHost", &out.tunnel_host);
  read_access_logs(reader, out.access_log);
}

void read_http_limits(Reader& reader, HttpChain& out) {
  reader.read("maxHeadBytes", &out.max_head_bytes, 1024, 1 << 20);
  reader.read("maxFields", &out.max_fields, 1, 1000);
  reader.read("maxStreams", &out.max_streams, 1, 65'536);
  reader.read("maxRequests", &out.max_requests);
  reader.read("idleTimeout", &out.idle_timeout, Duration::zero(), kMaxTime);
  reader.read("streamIdleTimeout", &out.stream_idle_timeout, Duration::zero(), kMaxTime);
  reader.read("headTimeout", &out.head_timeout, Duration::zero(), kMaxTime);
  reader.read("requestTimeout", &out.request_timeout, Duration::zero(), kMaxTime);
  reader.read("maxDuration", &out.max_duration, Duration::zero(), kMaxTime);
  reader.read("drainTimeout", &out.drain_timeout, Duration::zero(), hours(1));
  reader.read("http10", &out.http10);
  reader.read("normalizePath", &out.normalize_path);
  reader.read("mergeSlashes", &out.merge_slashes);
  reader.read_enum("escapedSlashes", &out.escaped_slashes,
                   {{"keep", PathSlashes::kKeep},
                    {"reject", PathSlashes::kReject},
                    {"redirect", PathSlashes::kRedirect},
                    {"unescape", PathSlashes::kUnescape}});
}

void read_http(Reader reader, HttpChain& out) {
  reader.read_enum("codec", &out.codec,
                   {{"auto", HttpChain::Codec::kAuto},
                    {"http1", HttpChain::Codec::kHttp1},
                    {"http2", HttpChain::Codec::kHttp2}});
  reader.require("routes");
  reader.read("routes", &out.routes);
  reader.read("serverName", &out.server_name);
  read_http_limits(reader, out);
  reader.read("useRemoteAddress", &out.use_remote_address);
  reader.read("appendForwardedFor", &out.append_forwarded_for);
  reader.read("trustedHops", &out.trusted_hops, 0, 100);
  reader.read_enum("clientCertField", &out.client_cert_field,
                   {{"sanitize", ClientCertField::kSanitize},
                    {"forwardOnly", ClientCertField::kForwardOnly},
                    {"appendForward", ClientCertField::kAppendForward},
                    {"sanitizeSet", ClientCertField::kSanitizeSet},
                    {"alwaysForwardOnly", ClientCertField::kAlwaysForwardOnly}});
  reader.read("generateRequestId", &out.generate_request_id);
  reader.read("keepExternalRequestId", &out.keep_external_request_id);
  reader.read("forward100Continue", &out.forward_100_continue);
  reader.read("via", &out.via);
  read_percent(reader, "tracePercent", &out.trace_share);
  read_access_logs(reader, out.access_log);
  Reader policies = reader.section("policies");
  out.jwt = read_jwt(policies);
  RoutePolicies all;
  read_policies(policies, all);
  out.ext_authz = all.ext_authz;
  out.rbac = all.rbac;
  out.rate_limit = all.rate_limit;
  out.fault = all.fault;
  out.cors = all.cors;
  out.compression = all.compression;
}

FilterChainPtr read_chain(Reader reader) {
  auto out = std::make_shared<FilterChain>();
  reader.read("name", &out->name);
  read_chain_match(reader.section("match"), out->match);
  if (reader.has("tls")) {
    auto tls = std::make_shared<TlsTermination>();
    read_tls(reader.section("tls"), *tls);
    out->tls = Part<TlsTermination>(std::move(tls));
  }
  const bool tcp = reader.has("tcp"), http = reader.has("http");
  if (tcp && http) reader.reject("http", "and tcp are both given");
  if (!tcp && !http) reader.reject("http", "is missing (want http or tcp)");
  if (tcp) read_tcp(reader.section("tcp"), out->network.emplace<TcpChain>());
  if (http) read_http(reader.section("http"), out->network.emplace<HttpChain>());
  return out;
}

}  // namespace

ListenerPtr read_listener(Reader reader) {
  auto out = std::make_shared<Listener>();
  reader.require("name");
  reader.read("name", &out->name);
  reader.read_enum("kind", &out->kind,
                   {{"tcp", Listener::Kind::kTcp},
                    {"udp", Listener::Kind::kUdp},
                    {"captured", Listener::Kind::kCaptured},
                    {"internal", Listener::Kind::kInternal}});
  reader.read_enum("direction", &out->direction,
                   {{"unspecified", Listener::Direction::kUnspecified},
                    {"inbound", Listener::Direction::kInbound},
                    {"outbound", Listener::Direction::kOutbound}});
  if (out->kind != Listener::Kind::kInternal) reader.require("address");
  reader.read("address", &out->address);
  reader.read("moreAddresses", &out->more_addresses);
  reader.read("transparent", &out->transparent);
  reader.read("freebind", &out->freebind);
  reader.read("backlog", &out->backlog, 1, 1 << 20);
  reader.read("maxConnections", &out->max_connections);
  reader.read_enum("proxyProtocol", &out->proxy_protocol,
                   {{"off", Listener::ProxyProtocol::kOff},
                    {"optional", Listener::ProxyProtocol::kOptional},
                    {"required", Listener::ProxyProtocol::kRequired}});
  reader.read("tlsInspector", &out->tls_inspector);
  reader.read("httpInspector", &out->http_inspector);
  reader.read("sniffTimeout", &out->sniff_timeout, Duration::zero(), hours(1));
  reader.read("goOnAfterSniffTimeout", &out->go_on_after_sniff_timeout);
  if (out->kind == Listener::Kind::kUdp) {
    reader.require("udpCluster");
    reader.read("udpCluster", &out->udp_cluster);
    reader.read("udpIdleTimeout", &out->udp_idle_timeout, milliseconds(1), hours(24));
    reader.read("udpMaxFlows", &out->udp_max_flows, 1, 1'000'000);
    return out;
  }
  for (Reader item : reader.sections("chains")) out->chains.push_back(read_chain(item));
  if (reader.has("defaultChain")) out->default_chain = read_chain(reader.section("defaultChain"));
  if (out->chains.empty() && !out->default_chain) reader.require("chains");
  return out;
}

}  // namespace edgemesh::proxy::model
