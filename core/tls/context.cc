#include "core/tls/context.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include "core/tls/context_impl.h"

namespace edgemesh::tls {

namespace {

// AEAD with forward secrecy only; AES-128 first, it is the fastest with AES-NI and as strong as the
// P-256 keys around it.
constexpr char kTls12Suites[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
constexpr char kTls13Suites[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

int verify_allowing_expired(int ok, X509_STORE_CTX* store) {
  if (ok == 1) return 1;
  if (X509_STORE_CTX_get_error(store) != X509_V_ERR_CERT_HAS_EXPIRED ||
      X509_STORE_CTX_get_error_depth(store) != 0)
    return 0;
  X509_STORE_CTX_set_error(store, X509_V_OK);
  return 1;
}

int select_alpn(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in,
                unsigned int in_size, void* user) {
  const auto& ours = *static_cast<const std::string*>(user);
  unsigned char* selected = nullptr;
  int found = SSL_select_next_proto(&selected, out_size,
                                    reinterpret_cast<const unsigned char*>(ours.data()),  // NOLINT
                                    static_cast<unsigned int>(ours.size()), in, in_size);
  *out = selected;
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

Result<> load_identity(SSL_CTX* ssl, const ContextOptions& options) {
  BioPtr bio = bio_over(options.cert_pem);
  X509Ptr leaf(PEM_read_bio_X509(bio.get(), nullptr, no_pass_phrase, nullptr));
  if (!leaf) return fail_openssl("TLS certificate is not readable PEM");
  if (SSL_CTX_use_certificate(ssl, leaf.get()) != 1) return fail_openssl("TLS certificate");
  while (X509* next = PEM_read_bio_X509(bio.get(), nullptr, no_pass_phrase, nullptr)) {
    if (SSL_CTX_add0_chain_cert(ssl, next) != 1) {
      X509_free(next);
      return fail_openssl("TLS certificate chain");
    }
  }
  ERR_clear_error();
  EM_TRY(KeyPtr key, read_key(options.key_pem));
  if (SSL_CTX_use_PrivateKey(ssl, key.get()) != 1 || SSL_CTX_check_private_key(ssl) != 1)
    return fail_openssl("TLS key does not belong to the TLS certificate");
  return {};
}

Result<> load_roots(SSL_CTX* ssl, const ContextOptions& options, bool server) {
  X509_STORE* store = SSL_CTX_get_cert_store(ssl);
  BioPtr bio = bio_over(options.ca_pem);
  int count = 0;
  while (true) {
    X509Ptr root(PEM_read_bio_X509(bio.get(), nullptr, no_pass_phrase, nullptr));
    if (!root) break;
    if (X509_STORE_add_cert(store, root.get()) != 1) return fail_openssl("TLS trusted CA");
    // A server tells clients which CAs it takes, so that they can choose a certificate.
    if (server) SSL_CTX_add_client_CA(ssl, root.get());
    ++count;
  }
  ERR_clear_error();
  if (count == 0)
    return fail(ErrorCode::kInvalidArgument,
                "TLS trusted CA: no readable certificate in the PEM text");
  return {};
}

std::string alpn_wire(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) {
    out += static_cast<char>(name.size());
    out += name;
  }
  return out;
}

Result<> set_protocol(SSL_CTX* ssl, const ContextOptions& options) {
  if (SSL_CTX_set_min_proto_version(ssl, options.min_version) != 1 ||
      SSL_CTX_set_max_proto_version(ssl, options.max_version) != 1 ||
      SSL_CTX_set_cipher_list(ssl, kTls12Suites) != 1 ||
      SSL_CTX_set_ciphersuites(ssl, kTls13Suites) != 1 ||
      SSL_CTX_set1_groups_list(ssl, "X25519:P-256:P-384") != 1)
    return fail_openssl("TLS versions and suites", ErrorCode::kInternal);
  // No resumption: a resumed session would skip the check of the peer's certificate.
  SSL_CTX_set_options(ssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_num_tickets(ssl, 0);
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
  // Reads of many records at once go straight from the stream below into OpenSSL's buffer.
  SSL_CTX_set_read_ahead(ssl, 1);
  SSL_CTX_set_default_read_buffer_len(ssl, 64 * 1024);
  return {};
}

Result<> set_verify(SSL_CTX* ssl, const ContextOptions& options, bool server) {
  using Options = ContextOptions;
  if (options.verify == Options::kNone) {
    SSL_CTX_set_verify(ssl, SSL_VERIFY_NONE, nullptr);
    return {};
  }
  if (!options.ca_pem.empty()) {
    EM_TRY_VOID(load_roots(ssl, options, server));
  } else if (server) {
    return fail(ErrorCode::kInvalidArgument,
                "TLS server: client certificates are to be verified but no CA is given");
  } else if (SSL_CTX_set_default_verify_paths(ssl) != 1) {
    return fail_openssl("the system's trusted CAs");
  }
  int mode = SSL_VERIFY_PEER;
  if (options.verify == Options::kRequired) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_CTX_set_verify(ssl, mode, options.accept_expired_peer ? verify_allowing_expired : nullptr);
  return {};
}

Result<std::unique_ptr<Context::Impl>> make(const ContextOptions& options, bool server) {
  auto impl = std::make_unique<Context::Impl>();
  ERR_clear_error();
  impl->ssl.reset(SSL_CTX_new(server ? TLS_server_method() : TLS_client_method()));
  if (!impl->ssl) return fail_openssl("TLS context", ErrorCode::kInternal);
  SSL_CTX* ssl = impl->ssl.get();
  impl->server = server;
  impl->verifies = options.verify != ContextOptions::kNone;
  impl->handshake_timeout = options.handshake_timeout;
  EM_TRY_VOID(set_protocol(ssl, options));
  if (server || !options.cert_pem.empty()) EM_TRY_VOID(load_identity(ssl, options));
  EM_TRY_VOID(set_verify(ssl, options, server));
  for (const std::string& name : options.alpn)
    if (name.empty() || name.size() > 255)
      return fail(ErrorCode::kInvalidArgument, "TLS: '{}' is no ALPN name", name);
  impl->alpn_wire = alpn_wire(options.alpn);
  if (impl->alpn_wire.empty()) return impl;
  if (server) {
    SSL_CTX_set_alpn_select_cb(ssl, select_alpn, &impl->alpn_wire);
  } else if (SSL_CTX_set_alpn_protos(
                 ssl, reinterpret_cast<const unsigned char*>(impl->alpn_wire.data()),  // NOLINT
                 static_cast<unsigned int>(impl->alpn_wire.size())) != 0) {
    return fail_openssl("TLS ALPN", ErrorCode::kInternal);
  }
  return impl;
}

}  // namespace

Context::Context(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Context::~Context() = default;
int64_t Context::not_after() const {
  const X509* own = SSL_CTX_get0_certificate(impl_->ssl.get());
  return own == nullptr ? 0 : asn1_to_unix(X509_get0_notAfter(own));
}

bool Context::is_server() const {
  return impl_->server;
}

Result<std::shared_ptr<Context>> Context::server(const ContextOptions& options) {
  EM_TRY(auto impl, make(options, true));
  return std::shared_ptr<Context>(new Context(std::move(impl)));
}

Result<std::shared_ptr<Context>> Context::client(const ContextOptions& options) {
  EM_TRY(auto impl, make(options, false));
  return std::shared_ptr<Context>(new Context(std::move(impl)));
}

}  // namespace edgemesh::tls
