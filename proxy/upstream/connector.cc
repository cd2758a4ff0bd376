#include "proxy/upstream/connector.h"

#include <algorithm>
#include <cstring>

namespace edgemesh::proxy {

namespace {

// A stream that sends some bytes of its own before all others. They are few: an empty send buffer
// takes them at once.
class HeaderFirstStream final : public io::Stream, private io::Stream::Handler {
 public:
  HeaderFirstStream(std::unique_ptr<io::Stream> below, std::string header)
      : below_(std::move(below)), header_(std::move(header)) {
    below_->set_handler(this);
  }

  void set_handler(io::Stream::Handler* handler) override { handler_ = handler; }
  io::IoResult read(std::span<uint8_t> into) override { return below_->read(into); }
  io::IoResult write(std::span<const uint8_t> data) override {
    return send_header() ? below_->write(data) : io::kWouldBlock;
  }
  void shutdown_write() override {
    if (send_header())
      below_->shutdown_write();
    else
      shut_ = true;
  }
  void reset() override { below_->reset(); }
  uint8_t carrier() const override { return below_->carrier(); }
  int splice_fd() const override { return sent_ == header_.size() ? below_->splice_fd() : -1; }

 private:
  bool send_header() {
    while (sent_ < header_.size()) {
      auto written = below_->write(io::as_bytes(std::string_view(header_).substr(sent_)));
      if (written.status != io::IoResult::kOk) return false;
      sent_ += written.n;
    }
    return true;
  }
  void on_connected() override {
    send_header();
    if (handler_ != nullptr) handler_->on_connected();
  }
  void on_readable() override {
    if (handler_ != nullptr) handler_->on_readable();
  }
  void on_writable() override {
    if (!send_header()) return;
    if (shut_) below_->shutdown_write();
    if (handler_ != nullptr) handler_->on_writable();
  }
  void on_error(const Error& error) override {
    if (handler_ != nullptr) handler_->on_error(error);
  }

  std::unique_ptr<io::Stream> below_;
  std::string header_;
  size_t sent_ = 0;
  bool shut_ = false;
  io::Stream::Handler* handler_ = nullptr;
};

void put16(std::string& out, uint16_t value) {
  out += static_cast<char>(value >> 8);
  out += static_cast<char>(value & 0xff);
}

std::string header_v1(const ProxiedAddrs* addrs) {
  if (addrs == nullptr || addrs->source.ip.is_v6() != addrs->destination.ip.is_v6())
    return "PROXY UNKNOWN\r\n";
  return fmt::format("PROXY {} {} {} {} {}\r\n", addrs->source.ip.is_v6() ? "TCP6" : "TCP4",
                     addrs->source.ip.to_string(), addrs->destination.ip.to_string(),
                     addrs->source.port, addrs->destination.port);
}

//   0      12        13            14      16
//   | signature | ver,command | family | length | source ip | destination ip | two ports |
std::string header_v2(const ProxiedAddrs* addrs) {
  std::string out("\r\n\r\n\0\r\nQUIT\n", 12);
  if (addrs == nullptr || addrs->source.ip.is_v6() != addrs->destination.ip.is_v6()) {
    out += '\x20';  // LOCAL: the proxy's own connection
    out += '\0';
    put16(out, 0);
    return out;
  }
  const bool v6 = addrs->source.ip.is_v6();
  out += '\x21';
  out += v6 ? '\x21' : '\x11';
  put16(out, v6 ? 36 : 12);
  for (const auto* addr : {&addrs->source, &addrs->destination})
    out.append(reinterpret_cast<const char*>(addr->ip.bytes()), addr->ip.size());  // NOLINT
  put16(out, addrs->source.port);
  put16(out, addrs->destination.port);
  return out;
}

}  // namespace

std::string proxy_header(model::ProxyProtocolOut version, const ProxiedAddrs* addrs) {
  switch (version) {
    case model::ProxyProtocolOut::kNone: return {};
    case model::ProxyProtocolOut::kV1: return header_v1(addrs);
    case model::ProxyProtocolOut::kV2: return header_v2(addrs);
  }
  return {};
}

Result<std::shared_ptr<tls::Context>> client_context(const model::Cluster& cluster) {
  const auto& config = *cluster.tls;
  tls::ContextOptions options;
  options.cert_pem = config.cert_pem;
  options.key_pem = config.key_pem;
  options.ca_pem = config.ca_pem;
  options.verify =
      config.insecure_skip_verify ? tls::ContextOptions::kNone : tls::ContextOptions::kRequired;
  options.min_version = config.min_version;
  options.handshake_timeout = cluster.connect_timeout;
  options.alpn = config.alpn;
  if (options.alpn.empty()) {
    if (cluster.protocol != model::UpstreamProtocol::kHttp1) options.alpn.emplace_back("h2");
    if (cluster.protocol != model::UpstreamProtocol::kHttp2) options.alpn.emplace_back("http/1.1");
  }
  auto made = tls::Context::client(options);
  if (!made)
    return fail(std::move(made).error().with_context(fmt::format("cluster {}: tls", cluster.name)));
  return made;
}

Result<> check_peer_names(const model::TlsOrigination& config, const tls::TlsStream& stream) {
  if (config.verify_sans.empty() || config.insecure_skip_verify) return {};
  const auto* peer = stream.peer();
  if (peer == nullptr) return fail(ErrorCode::kUnauthenticated, "the endpoint gave no certificate");
  for (const auto& wanted : config.verify_sans)
    for (const auto* names : {&peer->uri_sans, &peer->dns_sans, &peer->ip_sans})
      if (std::find(names->begin(), names->end(), wanted) != names->end()) return {};
  return fail(ErrorCode::kUnauthenticated,
              "the endpoint's certificate has none of the names in verifySans (first: {})",
              config.verify_sans.front());
}

Result<Connecting> MeshConnector::open(const model::Endpoint& to) {
  Connecting made;
  if (!to.node.empty() && !options_.node.empty() && to.node != options_.node) {
    if (dialer_ == nullptr)
      return fail(ErrorCode::kUnavailable, "endpoint {} is on node {}: there is no tunnel here",
                  to.addr.to_string(), to.node);
    made.path = dialer_->path_kind(to.node);
    EM_TRY(made.stream, dialer_->open(to.node, to.addr));
    return made;
  }
  io::ConnectOptions connect;
  connect.timeout = Duration::zero();  // the pool keeps the time
  connect.congestion = options_.local_congestion;
  for (const Cidr& cidr : options_.marked)
    if (cidr.contains(to.addr.ip)) connect.mark = options_.mark;
  EM_TRY(made.stream, io::TcpStream::connect(loop_, to.addr, connect));
  return made;
}

Result<Connecting> MeshConnector::connect(const model::Endpoint& to, const HostSet& set,
                                          const ProxiedAddrs* addrs) {
  const auto& cluster = set.cluster();
  EM_TRY(auto made, open(to));
  if (cluster.proxy_protocol != model::ProxyProtocolOut::kNone)
    made.stream = std::make_unique<HeaderFirstStream>(std::move(made.stream),
                                                      proxy_header(cluster.proxy_protocol, addrs));
  if (cluster.tls == nullptr) return made;
  if (set.tls() == nullptr)
    return fail(ErrorCode::kInvalidArgument, "cluster {}: its TLS configuration is not valid",
                cluster.name);
  const auto& config = *cluster.tls;
  // Without any name the certificate must be good for the address.
  std::string name = !config.sni.empty()    ? config.sni
                     : !to.hostname.empty() ? to.hostname
                                            : to.addr.ip.to_string();
  EM_TRY(auto secure,
         tls::TlsStream::client(loop_, std::move(made.stream), set.tls(), std::move(name),
                                !config.insecure_skip_verify,
                                config.verify_sans.empty() && !config.insecure_skip_verify));
  made.tls = secure.get();
  made.stream = std::move(secure);
  return made;
}

}  // namespace edgemesh::proxy
