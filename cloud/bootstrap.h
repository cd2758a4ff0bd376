// Bootstrap: how a node gets its first certificate and renews it (KubeEdge's CloudHub HTTPS
// server).
//
//   GET /ca.crt    the CA certificate, raw DER. Open to all: the edge checks its hash from the token.
//   GET /edge.crt  a node certificate, raw DER. Fields: NodeName, Authorization: Bearer <JWT>,
//                  ExtKeyUsages (optional); the body is the CSR in DER (a GET with a body, as KubeEdge
//                  sends it; POST is taken too). A token is good for names that are free (see
//                  node_claims.h). Without a token the connection's client certificate must be the
//                  node's own: that is a renewal. One that ran out less than `renew_grace` ago still
//                  renews, so that a node that was offline comes back alone.
//   GET /node/<n>  200 when the hub knows the node, else 404 (keadm asks).
// Errors: 400 (bad request), 401 (token or certificate), 404, 405, 409 (the name is taken), 429 (too many from
// one address), 503 (the Kubernetes API does not answer); the body is one line of text.
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cloud/ca.h"
#include "cloud/node_claims.h"
#include "cloud/rate_limit.h"
#include "core/http/server.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"

namespace edgemesh::cloud {

struct BootstrapOptions {
  std::vector<SockAddr> listen;  // port 10002 by default
  std::string cert_pem;          // the server's
  std::string key_pem;
  std::chrono::seconds renew_grace = std::chrono::hours(24 * 365);
  Rate rate{.per_second = 5, .burst = 50};                  // a client address
  std::function<bool(const std::string& node)> node_known;  // for /node/<n>; may be empty
  // Whether a certificate of the node with this notBefore may be renewed, as Revocations::check; may be empty.
  std::function<Result<>(const std::string& node, int64_t not_before)> check_certificate;
  // As Revocations::not_before_floor; may be empty.
  std::function<int64_t(const std::string& node, bool replaces)> not_before_floor;
  // Takes a name for the holder of a token, as NodeClaims::claim.
  std::function<void(NodeClaim claim, NodeClaims::Done done)> claim;
};

class Bootstrap {
 public:
  static Result<std::unique_ptr<Bootstrap>> create(io::Loop& loop, const Ca& ca,
                                                   BootstrapOptions options,
                                                   obs::Registry& registry);
  // Of the first listener.
  SockAddr local_addr() const { return servers_.front()->local_addr(); }
  void drain();

  // The request's answer, without a socket, at once or later. For the server and for tests.
  using Answer = UniqueFunction<void(http::Response)>;
  void answer(const http::Request& request, Answer done);

 private:
  Bootstrap(io::Loop& loop, const Ca& ca, BootstrapOptions options, obs::Registry& registry);
  void edge_certificate(const http::Request& request, Answer done);
  http::Response answer_at_once(const http::Request& request, const std::string& path);
  Result<TokenRights> check_token(std::string_view authorization, const std::string& node) const;
  Result<> check_renewal(const http::Request& request, const std::string& node) const;
  http::Response refuse(const http::Request& request, int status, std::string_view why);
  http::Response refuse(const std::string& path, const IpAddr& peer, int status, std::string_view why);
  http::Response issue(const std::string& cert, const std::string& node, const IpAddr& peer, bool by_token);

  io::Loop& loop_;
  const Ca& ca_;
  BootstrapOptions options_;
  KeyedLimiter limiter_;
  obs::Counter& issued_;
  obs::Counter& refused_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::vector<std::unique_ptr<http::Server>> servers_;
};

}  // namespace edgemesh::cloud
