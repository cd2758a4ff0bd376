// QuicIdentity: this node's certificate, key and the mesh CA, as GnuTLS wants them for QUIC's TLS 1.3,
// and the check of the peer: chain, validity, the SPIFFE id of a node of our trust domain, and that its
// certificate was not revoked.
// Immutable; shared by connections. Threads: any.
#pragma once

#include <memory>
#include <string>

#include "core/base/result.h"
#include "p2p/revocations.h"

struct gnutls_session_int;
struct gnutls_certificate_credentials_st;

namespace edgemesh::p2p {

class QuicIdentity {
 public:
  static Result<std::shared_ptr<const QuicIdentity>> create(const std::string& cert_pem,
                                                            const std::string& key_pem,
                                                            const std::string& ca_pem,
                                                            std::string trust_domain,
                                                            std::shared_ptr<const Revocations> revocations = {});
  ~QuicIdentity();
  QuicIdentity(const QuicIdentity&) = delete;
  QuicIdentity& operator=(const QuicIdentity&) = delete;

  gnutls_certificate_credentials_st* credentials() const { return credentials_; }
  // For the session whose handshake is under way: the node that the peer's verified certificate names.
  struct Peer {
    std::string node;
    int64_t not_before = 0;  // of its certificate, Unix seconds
  };
  Result<Peer> verify_peer(gnutls_session_int* session) const;

 private:
  QuicIdentity() = default;
  gnutls_certificate_credentials_st* credentials_ = nullptr;
  std::string trust_domain_;
  std::shared_ptr<const Revocations> revocations_;
};

}  // namespace edgemesh::p2p
