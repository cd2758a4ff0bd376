#include "p2p/quic_identity.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "core/tls/x509.h"

namespace edgemesh::p2p {

namespace {

gnutls_datum_t datum(const std::string& text) {
  return {reinterpret_cast<unsigned char*>(const_cast<char*>(text.data())),  // NOLINT
          static_cast<unsigned>(text.size())};
}

struct Leaf {
  gnutls_x509_crt_t crt = nullptr;
  Leaf() { gnutls_x509_crt_init(&crt); }
  ~Leaf() { gnutls_x509_crt_deinit(crt); }
  Leaf(const Leaf&) = delete;
  Leaf& operator=(const Leaf&) = delete;
};

std::string status_text(unsigned status) {
  if ((status & GNUTLS_CERT_EXPIRED) != 0) return "the certificate has expired";
  if ((status & GNUTLS_CERT_NOT_ACTIVATED) != 0) return "the certificate is not valid yet";
  if ((status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNATURE_FAILURE)) != 0)
    return "the certificate is not from the mesh CA";
  gnutls_datum_t text{};
  std::string out = "the certificate does not verify";
  if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) == 0) {
    out.assign(reinterpret_cast<char*>(text.data), text.size);  // NOLINT
    gnutls_free(text.data);
  }
  return out;
}

}  // namespace

Result<std::shared_ptr<const QuicIdentity>> QuicIdentity::create(const std::string& cert_pem,
                                                                 const std::string& key_pem,
                                                                 const std::string& ca_pem,
                                                                 std::string trust_domain,
                                                                 std::shared_ptr<const Revocations> revocations) {
  std::shared_ptr<QuicIdentity> identity(new QuicIdentity);
  identity->trust_domain_ = std::move(trust_domain);
  identity->revocations_ = std::move(revocations);
  if (gnutls_certificate_allocate_credentials(&identity->credentials_) != 0)
    return fail(ErrorCode::kResourceExhausted, "no memory");
  gnutls_datum_t ca = datum(ca_pem);
  int roots = gnutls_certificate_set_x509_trust_mem(identity->credentials_, &ca, GNUTLS_X509_FMT_PEM);
  if (roots <= 0)
    return fail(ErrorCode::kInvalidArgument, "mesh CA: {}",
                roots == 0 ? "no certificate in it" : gnutls_strerror(roots));
  gnutls_datum_t cert = datum(cert_pem);
  gnutls_datum_t key = datum(key_pem);
  int rc = gnutls_certificate_set_x509_key_mem(identity->credentials_, &cert, &key,
                                               GNUTLS_X509_FMT_PEM);
  if (rc != 0)
    return fail(ErrorCode::kInvalidArgument, "node certificate and key: {}", gnutls_strerror(rc));
  return std::shared_ptr<const QuicIdentity>(std::move(identity));
}

QuicIdentity::~QuicIdentity() {
  if (credentials_ != nullptr) gnutls_certificate_free_credentials(credentials_);
}

Result<QuicIdentity::Peer> QuicIdentity::verify_peer(gnutls_session_t session) const {
  unsigned status = 0;
  int rc = gnutls_certificate_verify_peers2(session, &status);
  if (rc != 0)
    return fail(ErrorCode::kUnauthenticated, "peer certificate: {}", gnutls_strerror(rc));
  if (status != 0) return fail(ErrorCode::kUnauthenticated, "peer certificate: {}", status_text(status));
  unsigned count = 0;
  const gnutls_datum_t* chain = gnutls_certificate_get_peers(session, &count);
  if (chain == nullptr || count == 0)
    return fail(ErrorCode::kUnauthenticated, "the peer gave no certificate");
  Leaf leaf;
  if (gnutls_x509_crt_import(leaf.crt, &chain[0], GNUTLS_X509_FMT_DER) != 0)
    return fail(ErrorCode::kUnauthenticated, "the peer's certificate cannot be read");
  const int64_t not_before = gnutls_x509_crt_get_activation_time(leaf.crt);
  for (unsigned i = 0; i < 64; ++i) {
    char name[1024];
    size_t size = sizeof name;
    int type = gnutls_x509_crt_get_subject_alt_name(leaf.crt, i, name, &size, nullptr);
    if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) break;
    if (type != GNUTLS_SAN_URI) continue;
    std::string node = tls::node_from_spiffe_id(std::string(name, size), trust_domain_);
    if (node.empty()) continue;
    if (revocations_ != nullptr) EM_TRY_VOID(revocations_->check(node, not_before));
    return Peer{std::move(node), not_before};
  }
  return fail(ErrorCode::kUnauthenticated, "the peer's certificate names no node of {}", trust_domain_);
}

}  // namespace edgemesh::p2p
