// Ca: the certificate authority of the mesh. Made on the first start and kept in the state
// directory (ca/ca.crt, ca/ca.key, the key readable by the owner only). KubeEdge's CA in form (CN
// "KubeEdge", P-256, self-signed), so that its agents join.
//
// One CA issues: node certificates (bootstrap), the cloud's own server certificate, and the
// administrator's client certificate for the embedded Kubernetes API.
// Thread-safe after open().
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cloud/token.h"
#include "core/base/clock.h"
#include "core/base/result.h"
#include "core/tls/x509.h"

namespace edgemesh::cloud {

struct CaOptions {
  std::string state_dir;
  std::string trust_domain = "edgemesh.local";
  std::chrono::seconds node_lifetime = std::chrono::hours(24 * 365);
  bool must_exist = false;  // none there: an error, and none is made
};

class Ca {
 public:
  // Loads the CA, or makes one when the directory holds none. Half a CA (a key without its
  // certificate, or one that does not belong to it) is an error, never replaced.
  static Result<std::unique_ptr<Ca>> open(CaOptions options, const Clock& clock = system_clock());

  const std::string& cert_pem() const { return pair_.cert_pem; }
  const std::string& cert_der() const { return cert_der_; }
  const std::string& hash() const { return hash_; }  // hex SHA-256 of the DER
  const std::string& trust_domain() const { return options_.trust_domain; }

  // A node's certificate (DER). The CSR's CN must be system:node:<node> and its O system:nodes.
  // `ext_key_usages`: a JSON array of Go's x509.ExtKeyUsage numbers (1 server, 2 client; 0, any,
  // means both), empty: client. The certificate gets a SPIFFE id and the node's name as SANs
  // whatever the CSR asks. It begins at `not_before_floor` (Unix seconds) at the earliest. Errors are
  // kInvalidArgument and may be shown to the peer.
  Result<std::string> sign_node(std::string_view csr_der, const std::string& node,
                                std::string_view ext_key_usages, int64_t not_before_floor = 0) const;
  // For the hub, the bootstrap and the API. `names` are DNS names or addresses that clients dial.
  Result<tls::KeyAndCert> issue_server(const std::vector<std::string>& names) const;
  // A Kubernetes administrator (O=system:masters).
  Result<tls::KeyAndCert> issue_admin() const;

  // A cloud of this mesh, to others (subject kCloudUser, kCloudsGroup).
  Result<tls::KeyAndCert> issue_cloud() const;

  // "<hash>.<jwt>".
  std::string new_token(std::chrono::seconds lifetime, const TokenRights& rights = {}) const;
  // Takes the JWT alone (as the edge sends it) or the whole token.
  Result<TokenRights> verify_token(std::string_view token) const;

 private:
  Ca(CaOptions options, const Clock& clock, tls::CaPair pair);
  Result<> load_derived();
  Result<tls::KeyAndCert> issue_client(std::string_view name, std::string_view group) const;
  int64_t now() const;

  CaOptions options_;
  const Clock& clock_;
  tls::CaPair pair_;
  std::string cert_der_;
  std::string hash_;
  std::string key_der_;  // RFC 5915, the key of the tokens
};

// Clocks of small machines run behind after a power cut: certificates begin so far in the past.
inline constexpr int64_t kBackdateSeconds = 3600;

// Hex SHA-256 of the certificate's public key (SubjectPublicKeyInfo).
Result<std::string> public_key_hash(std::string_view cert_der);

// A node name as Kubernetes wants it (RFC 1123 subdomain), and short enough for
// "system:node:<name>" to fit a certificate's common name (64).
inline constexpr size_t kMaxNodeName = 52;
Result<> check_node_name(std::string_view name);
inline constexpr std::string_view kNodeUserPrefix = "system:node:";
inline constexpr std::string_view kNodesGroup = "system:nodes";
inline constexpr std::string_view kCloudUser = "system:edgemesh-cloud";
inline constexpr std::string_view kCloudsGroup = "system:edgemesh-clouds";

}  // namespace edgemesh::cloud
