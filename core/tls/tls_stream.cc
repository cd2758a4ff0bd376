#include "core/tls/tls_stream.h"

#include <openssl/err.h>

#include <algorithm>
#include <cerrno>

#include "core/base/net_addr.h"
#include "core/io/lingering_close.h"
#include "core/tls/tls_stream_impl.h"

namespace edgemesh::tls {

using io::IoResult;

namespace {

constexpr size_t kRecord = 16 * 1024;          // plaintext of one record, at most
constexpr size_t kBatch = 8 * (kRecord + 64);  // ciphertext given to the stream below at once
constexpr size_t kMaxEarly = 64 * 1024;
// Ciphertext waiting below: one batch, and room for alerts and key updates.
constexpr size_t kMaxOut = 2 * kBatch;

struct Batch {
  std::unique_ptr<uint8_t[]> data{new uint8_t[kBatch + kRecord]};
  size_t size = 0;
};
Batch& batch() {
  thread_local Batch shared;
  return shared;
}

int bio_read_ex(BIO* bio, char* into, size_t size, size_t* got) {
  return static_cast<TlsStreamImpl*>(BIO_get_data(bio))->bio_read(into, size, got);
}
int bio_write_ex(BIO* bio, const char* data, size_t size, size_t* taken) {
  return static_cast<TlsStreamImpl*>(BIO_get_data(bio))->bio_write(data, size, taken);
}
long bio_ctrl(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

// Alerts that speak about our certificate ("alert certificate required", "alert unknown ca").
ErrorCode code_of(std::string_view reason) {
  bool identity = reason.find("certificate") != std::string_view::npos ||
                  reason.find("unknown ca") != std::string_view::npos;
  return identity ? ErrorCode::kUnauthenticated : ErrorCode::kProtocol;
}

const BIO_METHOD* stream_bio() {
  static const BIO_METHOD* method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "edgemesh stream");
    BIO_meth_set_read_ex(m, bio_read_ex);
    BIO_meth_set_write_ex(m, bio_write_ex);
    BIO_meth_set_ctrl(m, bio_ctrl);
    return m;
  }();
  return method;
}

}  // namespace

Result<std::unique_ptr<TlsStream>> TlsStream::server(io::Loop& loop,
                                                     std::unique_ptr<io::Stream> below,
                                                     std::shared_ptr<Context> context) {
  EM_CHECK(context && context->is_server());
  auto stream = std::make_unique<TlsStreamImpl>(loop, std::move(below), std::move(context), true);
  EM_TRY_VOID(stream->init("", false));
  return std::unique_ptr<TlsStream>(std::move(stream));
}

Result<std::unique_ptr<TlsStream>> TlsStream::client(io::Loop& loop,
                                                     std::unique_ptr<io::Stream> below,
                                                     std::shared_ptr<Context> context,
                                                     std::string server_name, bool verify,
                                                     bool check_name) {
  EM_CHECK(context && !context->is_server());
  auto stream = std::make_unique<TlsStreamImpl>(loop, std::move(below), std::move(context), verify);
  EM_TRY_VOID(stream->init(server_name, check_name));
  return std::unique_ptr<TlsStream>(std::move(stream));
}

TlsStreamImpl::TlsStreamImpl(io::Loop& loop, std::unique_ptr<io::Stream> below,
                             std::shared_ptr<Context> context, bool verify)
    : loop_(loop),
      below_(std::move(below)),
      context_(std::move(context)),
      verify_(verify && context_->impl().verifies) {}

TlsStreamImpl::~TlsStreamImpl() {
  *alive_ = false;
  if (!below_) return;
  below_->set_handler(nullptr);
  // Our end was said and left whole, but the TCP end of the peer may not be here yet: then a plain
  // close would reset the connection over our last bytes.
  bool graceful = !reset_ && below_shut_ && !below_failed_ && out_.empty() &&
                  (read_eof_ || state_ == State::kFailed);
  if (!graceful) {
    below_->reset();
  } else if (!below_eof_) {
    io::lingering_close(loop_, std::move(below_));
  }
}

Result<> TlsStreamImpl::init(const std::string& server_name, bool check_name) {
  ERR_clear_error();
  ssl_.reset(SSL_new(context_->impl().ssl.get()));
  BIO* bio = BIO_new(stream_bio());
  if (!ssl_ || bio == nullptr) return fail_openssl("TLS connection", ErrorCode::kInternal);
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  if (context_->impl().server) {
    SSL_set_accept_state(ssl_.get());
  } else {
    SSL_set_connect_state(ssl_.get());
    bool ok = true;
    if (!server_name.empty() && check_name)
      set_name_check(server_name, &ok);
    else if (!server_name.empty() && !IpAddr::parse(server_name))
      ok = SSL_set_tlsext_host_name(ssl_.get(), server_name.c_str()) == 1;
    if (!ok) return fail_openssl(fmt::format("TLS server name '{}'", server_name));
    if (!verify_) SSL_set_verify(ssl_.get(), SSL_VERIFY_NONE, nullptr);
  }
  below_->set_handler(this);
  handshake_timer_ = std::make_unique<io::Timer>(loop_, [this] {
    fail_later(Error{ErrorCode::kTimeout, "TLS handshake: the peer does not answer", 0});
  });
  handshake_timer_->start(context_->impl().handshake_timeout);
  loop_.defer([this, alive = alive_] {
    if (*alive) drive_handshake();
  });
  return {};
}

void TlsStreamImpl::set_name_check(const std::string& name, bool* ok) {
  X509_VERIFY_PARAM* param = SSL_get0_param(ssl_.get());
  if (IpAddr::parse(name)) {
    *ok = X509_VERIFY_PARAM_set1_ip_asc(param, name.c_str()) == 1;
    return;
  }
  X509_VERIFY_PARAM_set_hostflags(
      param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  *ok = SSL_set_tlsext_host_name(ssl_.get(), name.c_str()) == 1 &&
        X509_VERIFY_PARAM_set1_host(param, name.data(), name.size()) == 1;
}

int TlsStreamImpl::bio_read(char* into, size_t size, size_t* got) {
  BIO* bio = SSL_get_rbio(ssl_.get());
  BIO_clear_retry_flags(bio);
  *got = 0;
  if (below_eof_ || below_failed_) return 0;
  if (!below_blocked_) {
    IoResult r = below_->read({reinterpret_cast<uint8_t*>(into), size});  // NOLINT
    if (r.status == IoResult::kOk) {
      *got = r.n;
      return 1;
    }
    below_eof_ = r.status == IoResult::kEof;
    below_failed_ = r.status == IoResult::kError;
    below_blocked_ = r.status == IoResult::kWouldBlock;
  }
  if (below_blocked_) BIO_set_retry_read(bio);
  return 0;
}

int TlsStreamImpl::bio_write(const char* data, size_t size, size_t* taken) {
  BIO_clear_retry_flags(SSL_get_wbio(ssl_.get()));
  *taken = 0;
  Batch& shared = batch();
  if (collecting_ && shared.size + size <= kBatch + kRecord) {
    std::copy_n(data, size, shared.data.get() + shared.size);
    shared.size += size;
  } else {
    if (out_.size() - out_at_ + size > kMaxOut) return 0;  // a peer that floods and never reads
    out_.insert(out_.end(), data, data + size);
  }
  *taken = size;
  return 1;
}

void TlsStreamImpl::drive_handshake() {
  if (state_ != State::kHandshake) return;
  ERR_clear_error();
  int result = SSL_do_handshake(ssl_.get());
  if (result == 1) return handshake_done();
  int reason = SSL_get_error(ssl_.get(), result);
  if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) {
    flush_out();
    return;
  }
  if (below_failed_) return;  // its on_error is on the way
  Error error = handshake_error();
  // The alert should reach the peer, so that its log tells the reason too.
  state_ = State::kFailed;
  flush_out();
  if (out_.empty()) {
    below_shut_ = true;
    below_->shutdown_write();
  }
  fail_later(std::move(error));
}

Error TlsStreamImpl::handshake_error() const {
  if (below_eof_) {
    ERR_clear_error();
    return {ErrorCode::kConnectionReset, "TLS handshake: the peer closed the connection", 0};
  }
  long verify = SSL_get_verify_result(ssl_.get());
  std::string reason = openssl_reason();
  if (verify_ && verify != X509_V_OK) {
    return {ErrorCode::kUnauthenticated,
            fmt::format("TLS: the peer's certificate is refused: {}",
                        X509_verify_cert_error_string(verify)),
            0};
  }
  return {code_of(reason), fmt::format("TLS handshake: {}", reason), 0};
}

void TlsStreamImpl::handshake_done() {
  handshake_timer_.reset();
  if (verify_) {
    OpensslPtr<X509, X509_free> cert(SSL_get1_peer_certificate(ssl_.get()));
    if (cert && SSL_get_verify_result(ssl_.get()) == X509_V_OK)
      peer_ = std::make_shared<PeerIdentity>(identity_of(cert.get()));
  }
  state_ = State::kOpen;
  flush_out();
  flush_early();
  auto alive = alive_;
  if (handler_ != nullptr) handler_->on_connected();
  if (!*alive || state_ == State::kFailed) return;
  if (write_shut_ && early_.empty()) send_shutdown();
  if (want_writable_ && early_.empty() && out_.empty()) {
    want_writable_ = false;
    if (handler_ != nullptr) handler_->on_writable();
    if (!*alive || state_ == State::kFailed) return;
  }
  // Data that came with the end of the handshake waits in OpenSSL's buffer.
  if (want_readable_ && handler_ != nullptr) {
    want_readable_ = false;
    handler_->on_readable();
  }
}

void TlsStreamImpl::flush_early() {
  while (!early_.empty() && out_.empty() && state_ == State::kOpen) {
    IoResult r = write_open(io::as_bytes(early_));
    if (r.status != IoResult::kOk) return;
    early_.erase(0, r.n);
  }
  if (early_.empty()) early_.shrink_to_fit();
}

bool TlsStreamImpl::flush_out() {
  while (out_at_ < out_.size()) {
    IoResult r = below_->write({out_.data() + out_at_, out_.size() - out_at_});
    if (r.status == IoResult::kError) below_failed_ = true;
    if (r.status != IoResult::kOk) return false;
    out_at_ += r.n;
  }
  out_at_ = 0;
  std::vector<uint8_t>().swap(out_);
  if (close_notify_sent_ && !below_shut_) {
    below_shut_ = true;
    below_->shutdown_write();
  }
  return true;
}

IoResult TlsStreamImpl::read(std::span<uint8_t> into) {
  if (state_ == State::kFailed || below_failed_) return {IoResult::kError, ECONNRESET, 0};
  if (read_eof_) return io::kEof;
  if (state_ == State::kHandshake) {
    want_readable_ = true;
    return io::kWouldBlock;
  }
  size_t total = 0;
  int result = 1;
  ERR_clear_error();
  while (total < into.size()) {
    size_t n = 0;
    result = SSL_read_ex(ssl_.get(), into.data() + total, into.size() - total, &n);
    if (result != 1) break;
    total += n;
  }
  if (result != 1 && total == 0) return failed_read(result);
  if (!out_.empty()) flush_out();  // a key update was answered
  return {IoResult::kOk, 0, total};
}

IoResult TlsStreamImpl::failed_read(int result) {
  int reason = SSL_get_error(ssl_.get(), result);
  if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) {
    if (!out_.empty()) flush_out();
    want_readable_ = true;
    return io::kWouldBlock;
  }
  if (reason == SSL_ERROR_ZERO_RETURN) {
    read_eof_ = true;
    // Mostly the TCP end came along; knowing it saves the lingering close.
    uint8_t byte = 0;
    if (!below_eof_ && !below_blocked_)
      below_eof_ = below_->read({&byte, 1}).status == IoResult::kEof;
    return io::kEof;
  }
  if (below_failed_) return {IoResult::kError, ECONNRESET, 0};  // its on_error is on the way
  if (below_eof_) {
    ERR_clear_error();
    fail_later(Error{ErrorCode::kConnectionReset,
                     "TLS: the connection was cut (no close_notify before its end)", 0});
  } else {
    flush_out();
    std::string text = openssl_reason();
    fail_later(Error{code_of(text), fmt::format("TLS: {}", text), 0});
  }
  return {IoResult::kError, EPROTO, 0};
}

IoResult TlsStreamImpl::write(std::span<const uint8_t> data) {
  if (state_ == State::kFailed || below_failed_ || write_shut_) return {IoResult::kError, EPIPE, 0};
  if (data.empty()) return io::kWouldBlock;
  if (state_ == State::kHandshake || !early_.empty()) {
    size_t n = std::min(data.size(), kMaxEarly - early_.size());
    if (n < data.size()) want_writable_ = true;
    if (n == 0) return io::kWouldBlock;
    early_.append(io::as_text(data.first(n)));
    return {IoResult::kOk, 0, n};
  }
  IoResult r = write_open(data);
  if (r.status == IoResult::kWouldBlock || (r.status == IoResult::kOk && r.n < data.size()))
    want_writable_ = true;
  return r;
}

IoResult TlsStreamImpl::write_open(std::span<const uint8_t> data) {
  if (!out_.empty() && !flush_out()) {
    if (below_failed_) return {IoResult::kError, EPIPE, 0};
    return io::kWouldBlock;
  }
  size_t total = 0;
  Batch& shared = batch();
  ERR_clear_error();
  while (total < data.size() && out_.empty()) {
    collecting_ = true;
    shared.size = 0;
    bool broken = false;
    while (total < data.size() && shared.size + kRecord <= kBatch && !broken) {
      size_t n = 0;
      size_t want = std::min(data.size() - total, kRecord);
      broken = SSL_write_ex(ssl_.get(), data.data() + total, want, &n) != 1;
      if (!broken) total += n;
    }
    collecting_ = false;
    IoResult r = below_->write({shared.data.get(), shared.size});
    if (r.status == IoResult::kError) {
      below_failed_ = true;
      return {IoResult::kError, EPIPE, 0};
    }
    if (r.n < shared.size) out_.assign(shared.data.get() + r.n, shared.data.get() + shared.size);
    if (broken) {
      fail_later(Error{ErrorCode::kProtocol, fmt::format("TLS write: {}", openssl_reason()), 0});
      return {IoResult::kError, EPROTO, 0};
    }
  }
  return {IoResult::kOk, 0, total};
}

bool TlsStreamImpl::close_both() {
  if (state_ != State::kOpen || reset_ || !early_.empty()) return false;
  shutdown_write();
  return out_.empty() && !below_failed_ && below_->close_both();
}

void TlsStreamImpl::shutdown_write() {
  if (write_shut_ || state_ == State::kFailed) return;
  write_shut_ = true;
  if (state_ == State::kOpen && early_.empty()) send_shutdown();
}

void TlsStreamImpl::send_shutdown() {
  if (close_notify_sent_ || below_failed_) return;
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
  close_notify_sent_ = true;
  flush_out();
}

void TlsStreamImpl::reset() {
  reset_ = true;
}

std::string_view TlsStreamImpl::alpn() const {
  const unsigned char* name = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl_.get(), &name, &size);
  return {reinterpret_cast<const char*>(name), size};  // NOLINT
}

std::string TlsStreamImpl::version() const {
  return SSL_get_version(ssl_.get());
}

std::string_view TlsStreamImpl::server_name() const {
  const char* name = SSL_get_servername(ssl_.get(), TLSEXT_NAMETYPE_host_name);
  return name != nullptr ? name : "";
}

void TlsStreamImpl::on_readable() {
  below_blocked_ = false;
  if (state_ == State::kHandshake) return drive_handshake();
  if (!want_readable_ || state_ == State::kFailed || handler_ == nullptr) return;
  want_readable_ = false;
  handler_->on_readable();
}

void TlsStreamImpl::on_writable() {
  if (!flush_out()) return;
  if (state_ == State::kHandshake) return drive_handshake();
  if (state_ == State::kFailed) return;
  flush_early();
  if (!early_.empty() || !out_.empty()) return;
  if (write_shut_) return send_shutdown();
  if (!want_writable_ || handler_ == nullptr) return;
  want_writable_ = false;
  handler_->on_writable();
}

void TlsStreamImpl::on_error(const Error& error) {
  below_failed_ = true;
  if (state_ == State::kFailed) return;
  bool handshake = state_ == State::kHandshake;
  state_ = State::kFailed;
  handshake_timer_.reset();
  if (handler_ == nullptr) return;
  handler_->on_error(handshake ? error.with_context("TLS handshake") : error);
}

void TlsStreamImpl::fail_later(Error error) {
  state_ = State::kFailed;
  if (handshake_timer_) handshake_timer_->stop();
  loop_.defer([this, alive = alive_, error = std::move(error)] {
    if (*alive && handler_ != nullptr) handler_->on_error(error);
  });
}

}  // namespace edgemesh::tls
