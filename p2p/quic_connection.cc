#include "p2p/quic_connection.h"

#include <gnutls/crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#include <algorithm>
#include <cstring>

#include "core/base/log.h"
#include "p2p/quic_aead.h"
#include "p2p/quic_impl.h"

namespace edgemesh::p2p {

namespace {

constexpr const char* kAlpn = "h3";
constexpr const char* kPriority =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:"
    "-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:%DISABLE_TLS13_COMPAT_MODE";

ngtcp2_cid random_id() {
  uint8_t data[QuicConnection::kConnectionIdBytes];
  random_fill(data, sizeof data);
  ngtcp2_cid cid;
  ngtcp2_cid_init(&cid, data, sizeof data);
  return cid;
}

ngtcp2_path_storage constant_path() {
  SockAddr addr{IpAddr::loopback(), 1};
  sockaddr_storage sa;
  socklen_t len = addr.to_sockaddr(&sa);
  ngtcp2_path_storage path;
  auto* p = reinterpret_cast<ngtcp2_sockaddr*>(&sa);  // NOLINT
  ngtcp2_path_storage_init(&path, p, len, p, len, nullptr);
  return path;
}

}  // namespace

Error quic_error(std::string_view what, int rv) {
  return {ErrorCode::kProtocol, fmt::format("{}: {}", what, ngtcp2_strerror(rv)), 0};
}

std::span<const uint8_t> quic_destination_id(std::span<const uint8_t> datagram) {
  ngtcp2_version_cid parts{};
  int rv = ngtcp2_pkt_decode_version_cid(&parts, datagram.data(), datagram.size(),
                                         QuicConnection::kConnectionIdBytes);
  if (rv != 0 || parts.dcidlen > NGTCP2_MAX_CIDLEN) return {};
  return {parts.dcid, parts.dcidlen};
}

QuicConn::QuicConn(io::Loop& loop, std::shared_ptr<const QuicIdentity> identity,
                   std::string peer_node, Output& output, Handler& handler,
                   const QuicOptions& options, bool server)
    : loop_(loop),
      identity_(std::move(identity)),
      peer_node_(std::move(peer_node)),
      output_(output),
      handler_(handler),
      options_(options),
      server_(server),
      path_(constant_path()),
      timer_(loop, [this] { on_timer(); }),
      budget_(std::make_shared<io::SendBudget>(options_.send_budget, *options_.send_pool)),
      drops_left_(options_.reset_burst),
      drops_refilled_(loop.now()) {}

QuicConn::~QuicConn() {
  *alive_ = false;
  if (!closed_ && conn_ != nullptr) {
    ngtcp2_connection_close_error bye;
    ngtcp2_connection_close_error_default(&bye);
    ngtcp2_connection_close_error_set_application_error(&bye, kH3NoError, nullptr, 0);
    send_close(bye);
  }
  // Streams outlive us as empty shells; their users learn it in the loop's next step.
  std::vector<StreamPtr> left(waiting_.begin(), waiting_.end());
  for (auto& [id, stream] : streams_) left.push_back(stream);
  for (auto& stream : events_) left.push_back(stream);
  for (auto& stream : left) {
    stream->open = false;
    stream->tx.clear();
    if (stream->handle == nullptr || stream->error_told) continue;
    if (!stream->error)
      stream->error = Error{ErrorCode::kConnectionReset, "the tunnel was closed", 0};
    loop_.defer([stream] {
      if (stream->error_told || stream->handle == nullptr) return;
      stream->error_told = true;
      if (auto* h = stream->handle->handler(); h != nullptr) h->on_error(*stream->error);
    });
  }
  if (conn_ != nullptr) ngtcp2_conn_del(conn_);
  if (session_ != nullptr) gnutls_deinit(session_);
}

ngtcp2_settings QuicConn::settings() const {
  ngtcp2_settings s;
  ngtcp2_settings_default(&s);
  s.cc_algo = NGTCP2_CC_ALGO_BBR2;
  s.initial_ts = now_ns();
  // A first packet that comes before the far side's socket is ready is sent again after three of these.
  s.initial_rtt = 20 * NGTCP2_MILLISECONDS;
  s.ack_thresh = 16;
  s.max_tx_udp_payload_size = options_.max_datagram;
  s.max_stream_window = options_.max_stream_window;
  s.handshake_timeout = static_cast<uint64_t>(options_.handshake_timeout.count());
  return s;
}

ngtcp2_transport_params QuicConn::params() const {
  ngtcp2_transport_params p;
  ngtcp2_transport_params_default(&p);
  p.initial_max_stream_data_bidi_local = options_.stream_window;
  p.initial_max_stream_data_bidi_remote = options_.stream_window;
  p.initial_max_stream_data_uni = 64 * 1024;
  p.initial_max_data = options_.connection_window;
  p.initial_max_streams_bidi = server_ ? options_.max_streams : 0;
  p.initial_max_streams_uni = 8;
  if (options_.datagrams) p.max_datagram_frame_size = 65'535;  // as large as a packet has room for
  p.max_idle_timeout = static_cast<uint64_t>(options_.idle_timeout.count());
  p.max_udp_payload_size = 1500;
  p.active_connection_id_limit = 2;
  p.disable_active_migration = 1;  // addresses are not QUIC's business here
  p.grease_quic_bit = 0;           // the first byte tells QUIC from STUN and heartbeats
  return p;
}

Result<> QuicConn::init_tls() {
  unsigned flags = server_ ? (GNUTLS_SERVER | GNUTLS_NO_AUTO_SEND_TICKET)
                           : (GNUTLS_CLIENT | GNUTLS_NO_END_OF_EARLY_DATA);
  if (int rc = gnutls_init(&session_, flags); rc != 0)
    return fail(ErrorCode::kInternal, "TLS session: {}", gnutls_strerror(rc));
  if (int rc = gnutls_priority_set_direct(session_, kPriority, nullptr); rc != 0)
    return fail(ErrorCode::kInternal, "TLS priorities: {}", gnutls_strerror(rc));
  int rc = server_ ? ngtcp2_crypto_gnutls_configure_server_session(session_)
                   : ngtcp2_crypto_gnutls_configure_client_session(session_);
  if (rc != 0) return fail(ErrorCode::kInternal, "TLS session cannot be used for QUIC");
  use_fast_aead(session_);
  conn_ref_.user_data = this;
  conn_ref_.get_conn = [](ngtcp2_crypto_conn_ref* ref) {
    return static_cast<QuicConn*>(ref->user_data)->conn_;
  };
  gnutls_session_set_ptr(session_, &conn_ref_);
  gnutls_credentials_set(session_, GNUTLS_CRD_CERTIFICATE, identity_->credentials());
  if (server_) gnutls_certificate_server_set_request(session_, GNUTLS_CERT_REQUIRE);
  gnutls_session_set_verify_function(session_, [](gnutls_session_t session) -> int {
    auto* ref = static_cast<ngtcp2_crypto_conn_ref*>(gnutls_session_get_ptr(session));
    auto* self = static_cast<QuicConn*>(ref->user_data);
    auto peer = self->identity_->verify_peer(session);
    if (peer && peer->node == self->peer_node_) {
      self->peer_not_before_ = peer->not_before;
      return 0;
    }
    self->verify_error_ = peer ? fmt::format("the certificate is of node {}, not of {}", peer->node,
                                             self->peer_node_)
                               : peer.error().message;
    return GNUTLS_E_CERTIFICATE_ERROR;
  });
  gnutls_datum_t alpn{reinterpret_cast<unsigned char*>(const_cast<char*>(kAlpn)),  // NOLINT
                      static_cast<unsigned>(std::strlen(kAlpn))};
  gnutls_alpn_set_protocols(session_, &alpn, 1, GNUTLS_ALPN_MANDATORY);
  return {};
}

Result<> QuicConn::init_client() {
  EM_TRY_VOID(init_tls());
  ngtcp2_cid scid = random_id();
  ngtcp2_cid dcid = random_id();
  auto cb = quic_callbacks(false);
  auto s = settings();
  auto p = params();
  quic_conn_is_being_made = true;
  int rv = ngtcp2_conn_client_new(&conn_, &dcid, &scid, &path_.path, NGTCP2_PROTO_VER_V1, &cb, &s, &p,
                                  nullptr, this);
  quic_conn_is_being_made = false;
  if (rv != 0) return fail(quic_error("QUIC client", rv));
  ids_.push_back(scid);
  ngtcp2_conn_set_tls_native_handle(conn_, session_);
  ngtcp2_conn_set_keep_alive_timeout(conn_, static_cast<uint64_t>(options_.keep_alive.count()));
  flush_later();
  return {};
}

Result<> QuicConn::init_server(std::span<const uint8_t> first) {
  ngtcp2_pkt_hd header{};
  // Anything but a well-formed Initial must not reach ngtcp2_conn_server_new(): it would abort.
  if (ngtcp2_accept(&header, first.data(), first.size()) != 0 || header.version != NGTCP2_PROTO_VER_V1)
    return fail(ErrorCode::kInvalidArgument, "not the beginning of a QUIC connection");
  EM_TRY_VOID(init_tls());
  ngtcp2_cid scid = random_id();
  auto cb = quic_callbacks(true);
  auto s = settings();
  auto p = params();
  p.original_dcid = header.dcid;
  quic_conn_is_being_made = true;
  int rv = ngtcp2_conn_server_new(&conn_, &header.scid, &scid, &path_.path, header.version, &cb, &s, &p,
                                  nullptr, this);
  quic_conn_is_being_made = false;
  if (rv != 0) return fail(quic_error("QUIC server", rv));
  ids_.push_back(scid);
  ids_.push_back(header.dcid);
  ngtcp2_conn_set_tls_native_handle(conn_, session_);
  ngtcp2_conn_set_keep_alive_timeout(conn_, static_cast<uint64_t>(options_.keep_alive.count()));
  return {};
}

uint64_t QuicConn::now_ns() const {
  return static_cast<uint64_t>(loop_.clock().now().time_since_epoch().count());
}

void QuicConn::receive(std::span<const uint8_t> datagram, TimePoint now) {
  if (closed_) return;
  ngtcp2_pkt_info info{};
  int rv = ngtcp2_conn_read_pkt(conn_, &path_.path, &info, datagram.data(), datagram.size(),
                                static_cast<uint64_t>(now.time_since_epoch().count()));
  if (too_many_drops_) {
    ngtcp2_connection_close_error load;
    ngtcp2_connection_close_error_default(&load);
    ngtcp2_connection_close_error_set_application_error(&load, kH3ExcessiveLoad, nullptr, 0);
    EM_LOG(kWarn, "p2p", "node {} opens streams and drops them at once, too often", peer_node_);
    fail_connection({ErrorCode::kResourceExhausted, "the peer dropped too many new streams", 0}, &load);
    return;
  }
  if (violation_ && !closed_) {
    ngtcp2_connection_close_error wrong;
    ngtcp2_connection_close_error_default(&wrong);
    ngtcp2_connection_close_error_set_application_error(&wrong, violation_->first, nullptr, 0);
    fail_connection(violation_->second, &wrong);
    return;
  }
  if (rv == 0) return;
  if (rv == NGTCP2_ERR_DRAINING) {
    ngtcp2_connection_close_error peer;
    ngtcp2_conn_get_connection_close_error(conn_, &peer);
    std::string reason(reinterpret_cast<const char*>(peer.reason), peer.reasonlen);  // NOLINT
    if (reason.empty()) reason = fmt::format("code {:#x}", peer.error_code);
    end({ErrorCode::kConnectionReset, fmt::format("the peer closed the tunnel: {}", reason), 0});
    return;
  }
  if (rv == NGTCP2_ERR_DROP_CONN || rv == NGTCP2_ERR_RETRY) {
    end(quic_error("tunnel", rv));
    return;
  }
  ngtcp2_connection_close_error to_send;
  ngtcp2_connection_close_error_default(&to_send);
  if (rv == NGTCP2_ERR_CRYPTO)
    ngtcp2_connection_close_error_set_transport_error_tls_alert(
        &to_send, ngtcp2_conn_get_tls_alert(conn_),
        reinterpret_cast<const uint8_t*>(verify_error_.data()),  // NOLINT
        std::min<size_t>(verify_error_.size(), 256));
  else
    ngtcp2_connection_close_error_set_transport_error_liberr(&to_send, rv, nullptr, 0);
  fail_connection(read_error(rv), &to_send);
}

Error QuicConn::read_error(int rv) {
  if (!verify_error_.empty()) return {ErrorCode::kUnauthenticated, verify_error_, 0};
  constexpr int kCertificateRequired = 116;
  if (rv == NGTCP2_ERR_CRYPTO && ngtcp2_conn_get_tls_alert(conn_) == kCertificateRequired)
    return {ErrorCode::kUnauthenticated, "the peer has no certificate of the mesh CA", 0};
  if (rv == NGTCP2_ERR_CRYPTO)
    return {ErrorCode::kUnauthenticated,
            fmt::format("TLS handshake failed (alert {})", ngtcp2_conn_get_tls_alert(conn_)), 0};
  return quic_error("tunnel", rv);
}

void QuicConn::fail_connection(Error error, const ngtcp2_connection_close_error* to_send) {
  if (closed_) return;
  if (to_send != nullptr) send_close(*to_send);
  end(std::move(error));
}

// Marks the connection as closed; streams and the handler are told by run_events().
void QuicConn::end(Error error) {
  if (closed_) return;
  closed_ = true;
  timer_.stop();
  close_error_ = error;
  for (auto& stream : waiting_) {
    stream->tx.clear();
    stream->fail_with(error);
  }
  for (auto& [id, stream] : streams_) {
    stream->open = false;
    stream->tx.clear();
    // A stream that had all of the peer's data may still be read to its end.
    if (!(stream->rx_fin && stream->fin_sent)) stream->fail_with(error);
  }
  waiting_.clear();
  waiting_dropped_ = 0;
  streams_.clear();
  send_list_.clear();
  datagram_list_.clear();
  datagram_of_.reset();
  datagram_size_ = 0;
  flush_later();
}

void QuicConn::close(const Error& reason) {
  if (closed_) return;
  ngtcp2_connection_close_error bye;
  ngtcp2_connection_close_error_default(&bye);
  ngtcp2_connection_close_error_set_application_error(
      &bye, kH3NoError, reinterpret_cast<const uint8_t*>(reason.message.data()),  // NOLINT
      std::min<size_t>(reason.message.size(), 256));
  send_close(bye);
  end(reason);
}

void QuicConn::flush() {
  auto alive = alive_;
  run_events();
  if (!*alive || closed_) return;
  send_packets();
}

void QuicConn::flush_later() {
  if (flush_queued_) return;
  flush_queued_ = true;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    flush_queued_ = false;
    flush();
  });
}

void QuicConn::on_output_writable() {
  if (!blocked_ || closed_) return;
  blocked_ = false;
  send_packets();
}

void QuicConn::on_path_changed() {
  if (closed_) return;
  blocked_ = false;  // what was left over is as good on this path
  widen();
  send_packets();
}

Result<> QuicConn::update_keys() {
  if (!ready()) return fail(ErrorCode::kUnavailable, "the tunnel is not open");
  if (int rv = ngtcp2_conn_initiate_key_update(conn_, now_ns()); rv != 0) return fail(quic_error("key update", rv));
  flush_later();
  return {};
}

void QuicConn::on_timer() {
  if (closed_) return;
  int rv = ngtcp2_conn_handle_expiry(conn_, now_ns());
  if (rv != 0) {
    if (rv == NGTCP2_ERR_IDLE_CLOSE)
      end({ErrorCode::kTimeout, "nothing was heard from the peer for too long", 0});
    else if (rv == NGTCP2_ERR_HANDSHAKE_TIMEOUT)
      end({ErrorCode::kTimeout, "the peer did not answer the QUIC handshake", 0});
    else
      end(quic_error("tunnel", rv));
    flush();
    return;
  }
  watch_path_size();
  flush();
}

void QuicConn::run_events() {
  if (in_events_) return;
  in_events_ = true;
  auto alive = alive_;
  if (ready_ && !ready_told_) {
    ready_told_ = true;
    handler_.on_quic_ready();
    if (!*alive) return;
  }
  for (int round = 0; round < 8 && !events_.empty(); ++round) {
    std::vector<StreamPtr> due;
    due.swap(events_);
    for (auto& stream : due) {
      tell(stream);
      if (!*alive) return;
    }
  }
  if (!events_.empty()) flush_later();
  in_events_ = false;
  if (closed_ && !close_told_ && events_.empty()) {
    close_told_ = true;
    handler_.on_quic_closed(*this, *close_error_);
  }
}

bool QuicConn::owns(std::span<const uint8_t> id) const {
  return std::any_of(ids_.begin(), ids_.end(), [id](const ngtcp2_cid& own) {
    return own.datalen == id.size() && std::memcmp(own.data, id.data(), id.size()) == 0;
  });
}

Duration QuicConn::rtt() const {
  if (conn_ == nullptr || !ready_) return {};
  ngtcp2_conn_stat stat;
  ngtcp2_conn_get_conn_stat(conn_, &stat);
  return Duration(static_cast<int64_t>(stat.smoothed_rtt));
}

uint64_t QuicConn::bytes_in_flight() const {
  ngtcp2_conn_stat stat;
  ngtcp2_conn_get_conn_stat(conn_, &stat);
  return stat.bytes_in_flight;
}

Result<std::unique_ptr<QuicConnection>> QuicConnection::client(
    io::Loop& loop, std::shared_ptr<const QuicIdentity> identity, std::string peer_node, Output& output,
    Handler& handler, const QuicOptions& options) {
  auto conn = std::make_unique<QuicConn>(loop, std::move(identity), std::move(peer_node), output,
                                         handler, options, false);
  EM_TRY_VOID(conn->init_client());
  return std::unique_ptr<QuicConnection>(std::move(conn));
}

Result<std::unique_ptr<QuicConnection>> QuicConnection::server(
    io::Loop& loop, std::shared_ptr<const QuicIdentity> identity, std::string peer_node, Output& output,
    Handler& handler, const QuicOptions& options, std::span<const uint8_t> first) {
  auto conn = std::make_unique<QuicConn>(loop, std::move(identity), std::move(peer_node), output,
                                         handler, options, true);
  EM_TRY_VOID(conn->init_server(first));
  return std::unique_ptr<QuicConnection>(std::move(conn));
}

}  // namespace edgemesh::p2p
