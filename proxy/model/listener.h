// Listeners: where connections come in, which chain takes them, and what it does. Immutable once
// made; shared by shared_ptr<const Listener>.
#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/base/clock.h"
#include "core/base/net_addr.h"
#include "proxy/model/cluster.h"
#include "proxy/model/filter.h"
#include "proxy/model/route.h"
#include "proxy/model/telemetry.h"

namespace edgemesh::proxy::model {

// All that is given must hold. Chains are compared criterion by criterion, in the order of the
// members, as Envoy does: destination port; the longest destination prefix; server name (exact, the
// longest suffix); transport; application protocol; the longest direct source prefix; kind of
// source; the longest source prefix; source port. A chain that is more specific in an earlier one
// wins, and there is no way back when it fails in a later one.
struct ChainMatch {
  uint16_t destination_port = 0;          // 0: any
  std::vector<Cidr> destinations;         // empty: any
  std::vector<std::string> server_names;  // "a.example", "*.example"; empty: any
  enum class Transport : uint8_t { kAny, kRaw, kTls } transport = Transport::kAny;
  std::vector<std::string> application_protocols;  // "h2", "http/1.1", "h2c"; empty: any
  std::vector<Cidr> direct_sources;
  enum class SourceType : uint8_t { kAny, kLocal, kExternal } source_type = SourceType::kAny;
  std::vector<Cidr> sources;
  std::vector<uint16_t> source_ports;
  friend bool operator==(const ChainMatch&, const ChainMatch&) = default;
};

struct TlsTermination {
  enum class ClientCert : uint8_t { kNone, kOptional, kRequired };
  // PEM; where they were read from, or empty. A file is read again when it changes.
  std::string cert_pem, key_pem, ca_pem;
  std::string cert_file, key_file, ca_file;
  // Further certificates, chosen by the client's server name; the one above when none fits.
  struct Certificate {
    std::vector<std::string> server_names;
    std::string cert_pem, key_pem, cert_file, key_file;
    friend bool operator==(const Certificate&, const Certificate&) = default;
  };
  std::vector<Certificate> more;
  ClientCert client_cert = ClientCert::kNone;
  std::vector<TextMatch> client_sans;  // the client's certificate must have one; empty: any
  std::vector<std::string> alpn{"h2", "http/1.1"};
  int min_version = 0x0303;
  bool session_tickets = true;
  Duration handshake_timeout = std::chrono::seconds(10);
  friend bool operator==(const TlsTermination&, const TlsTermination&) = default;
};

// A chain that forwards bytes.
struct TcpChain {
  std::vector<WeightedCluster> clusters;
  Duration idle_timeout = std::chrono::hours(1);  // 0: none
  Duration max_duration{};                        // 0: none
  uint32_t connect_attempts = 1;
  std::vector<HashPolicy> hash;  // kSourceIp
  Part<Rbac> rbac;
  // CONNECT over HTTP to the cluster; a format. Empty: plain bytes.
  std::string tunnel_host;
  std::vector<AccessLog> access_log;  // empty: the process'
  friend bool operator==(const TcpChain&, const TcpChain&) = default;
};

enum class PathSlashes : uint8_t { kKeep, kReject, kRedirect, kUnescape };
enum class ClientCertField : uint8_t {  // x-forwarded-client-cert
  kSanitize,                            // removed
  kForwardOnly,                         // passed on, from a peer with a certificate
  kAppendForward,                       // ours is added
  kSanitizeSet,                         // ours only
  kAlwaysForwardOnly,
};

// A chain that speaks HTTP.
struct HttpChain {
  enum class Codec : uint8_t { kAuto, kHttp1, kHttp2 };
  Codec codec = Codec::kAuto;
  std::string routes;  // name of a RouteConfig; or
  RouteConfigPtr inline_routes;
  std::string server_name = "edgemesh";  // the answer's Server field; empty: left alone

  // Limits and times of a connection; 0: none.
  uint32_t max_head_bytes = 64 << 10;
  uint32_t max_fields = 100;
  uint32_t max_streams = 100;
  uint32_t max_requests = 0;  // of a connection, then it is closed
  Duration idle_timeout = std::chrono::hours(1);
  Duration stream_idle_timeout = std::chrono::minutes(5);
  Duration head_timeout = std::chrono::seconds(30);  // for a head to come whole
  Duration request_timeout{};                        // for a request to come whole
  Duration max_duration{};                           // of a connection
  Duration drain_timeout = std::chrono::seconds(5);
  bool http10 = true;

  // Path.
  bool normalize_path = true;  // RFC 3986 6.2.2: dots, %-coding of unreserved characters
  bool merge_slashes = false;
  PathSlashes escaped_slashes = PathSlashes::kKeep;

  // Who the client is.
  bool use_remote_address = false;  // the edge: x-forwarded-for of the client is not believed
  bool append_forwarded_for = true;
  uint32_t trusted_hops = 0;
  ClientCertField client_cert_field = ClientCertField::kSanitize;
  bool cert_subject = false, cert_dns = false, cert_uri = false, cert_pem = false;
  bool generate_request_id = true;
  bool keep_external_request_id = false;
  bool forward_100_continue = false;
  std::string via;

  PerMillion trace_share = 0;         // of requests without a decision; 0: the process'
  std::vector<AccessLog> access_log;  // empty: the process'

  // Policies, in this order; routes may have their own. Null: off.
  Part<ExtAuthz> ext_authz;
  Part<Jwt> jwt;
  Part<Rbac> rbac;
  Part<LocalRateLimit> rate_limit;
  Part<Fault> fault;
  Part<Cors> cors;
  Part<Compression> compression;
  friend bool operator==(const HttpChain&, const HttpChain&) = default;
};

struct FilterChain {
  std::string name;
  ChainMatch match;
  Part<TlsTermination> tls;  // null: what comes is taken as it is
  // Inbound of a mesh: endpoints that are this node's.
  std::variant<TcpChain, HttpChain> network;
  friend bool operator==(const FilterChain&, const FilterChain&) = default;
};
using FilterChainPtr = std::shared_ptr<const FilterChain>;

struct Listener {
  enum class Kind : uint8_t {
    kTcp,
    kUdp,
    kCaptured,  // connections that were sent to `address` come from the capture port
    kInternal,  // connections that another chain hands over
  };
  enum class Direction : uint8_t { kUnspecified, kInbound, kOutbound };
  std::string name;
  Kind kind = Kind::kTcp;
  Direction direction = Direction::kUnspecified;
  SockAddr address;  // kCaptured: ip 0.0.0.0 or :: is any, port 0 is any
  std::vector<SockAddr> more_addresses;
  bool hand_over = false;    // what is captured goes to the kCaptured listener that fits its target
  bool transparent = false;  // TPROXY
  bool freebind = false;
  uint32_t backlog = 4096;
  uint32_t max_connections = 0;  // of a process; 0: no limit of its own

  // Before a chain is chosen.
  enum class ProxyProtocol : uint8_t { kOff, kOptional, kRequired };
  ProxyProtocol proxy_protocol = ProxyProtocol::kOff;
  bool tls_inspector = false;   // server name and ALPN of a ClientHello; implied by chains that ask
  bool http_inspector = false;  // http/1.0, http/1.1, h2c of cleartext
  std::vector<std::pair<uint16_t, uint16_t>> no_inspection_ports;  // both ends included
  Duration sniff_timeout = std::chrono::seconds(5);
  bool go_on_after_sniff_timeout = true;  // as raw bytes; else the connection is closed

  // kUdp: datagrams to one cluster.
  std::string udp_cluster;
  Duration udp_idle_timeout = std::chrono::minutes(1);
  uint32_t udp_max_flows = 10'000;

  std::vector<FilterChainPtr> chains;
  FilterChainPtr default_chain;  // null: what no chain takes is closed
  // Chains are equal when they are the same object.
  friend bool operator==(const Listener&, const Listener&) = default;
};
using ListenerPtr = std::shared_ptr<const Listener>;

}  // namespace edgemesh::proxy::model
