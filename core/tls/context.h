// TLS configuration shared by many connections: certificate, key, trusted CAs, ALPN. Immutable
// after creation; may be shared between threads. TLS 1.2 and 1.3, no renegotiation, no compression,
// forward secret AEAD suites only (RFC 9325).
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/base/result.h"

namespace edgemesh::tls {

// Who the peer is, from its leaf certificate after the chain was verified. Never filled from an
// unverified certificate.
struct PeerIdentity {
  std::string common_name;
  std::string organization;  // the first O of the subject
  std::vector<std::string> organizations;
  std::vector<std::string> uri_sans;
  std::vector<std::string> dns_sans;
  std::vector<std::string> ip_sans;  // text form
  std::string der;                   // the leaf
  std::string sha256;                // of `der`, lower-case hex
  int64_t not_before = 0;            // Unix seconds
  int64_t not_after = 0;
  bool expired = false;  // only possible with accept_expired_peer
};

enum TlsVersion : int { kTls12 = 0x0303, kTls13 = 0x0304 };

struct ContextOptions {
  // What to ask of the peer's certificate. On a server: kNone does not ask for one; kOptional asks,
  // and a certificate that is given must verify; kRequired refuses a peer without one. On a client:
  // kNone accepts any server (only for fetching a CA whose hash is checked afterwards), the others
  // verify.
  enum Verify { kNone, kOptional, kRequired };

  std::string cert_pem;  // leaf first, then intermediates; required on a server
  std::string key_pem;
  std::string ca_pem;  // trusted roots; empty on a client: the system's store
  Verify verify = kRequired;
  std::vector<std::string> alpn;  // in order of preference; empty: ALPN is not used
  int min_version = kTls12;
  int max_version = kTls13;
  // A peer certificate whose validity ended verifies otherwise as usual; PeerIdentity says so. For
  // a bootstrap server that renews certificates which ran out while a node was offline.
  bool accept_expired_peer = false;
  // The handshake as a whole, beginning when the TlsStream is made.
  Duration handshake_timeout = std::chrono::seconds(10);
};

class Context {
 public:
  // Errors name the part that is wrong (certificate, key, CA, key does not match certificate).
  static Result<std::shared_ptr<Context>> server(const ContextOptions& options);
  static Result<std::shared_ptr<Context>> client(const ContextOptions& options);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  bool is_server() const;
  // When its own certificate ends, in seconds since the epoch; 0: it has none.
  int64_t not_after() const;

  struct Impl;  // for core/tls only
  Impl& impl() const { return *impl_; }

 private:
  explicit Context(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgemesh::tls
