// Bootstrap: how a node gets its first certificate and renews it (KubeEdge's CloudHub HTTPS
// server).
//
//   GET /ca.crt    the CA certificate, raw DER. Open to all: the edge checks its hash from the
//   token. GET /edge.crt  a node certificate, raw DER. Fields: NodeName, Authorization: Bearer
//   <JWT>,
//                  ExtKeyUsages (optional); the body is the CSR in DER (a GET with a body, as
//                  KubeEdge sends it; POST is taken too). Without a token the connection's client
//                  certificate must be the node's own: that is a renewal. One that ran out less
//                  than `renew_grace` ago still renews, so that a node that was offline comes back
//                  alone.
//   GET /node/<n>  200 when the hub knows the node, else 404 (keadm asks).
// Errors: 400 (bad request), 401 (token or certificate), 404, 405, 429 (too many from one address);
// the body is one line of text.
// Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cloud/ca.h"
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
};

class Bootstrap {
 public:
  static Result<std::unique_ptr<Bootstrap>> create(io::Loop& loop, const Ca& ca,
                                                   BootstrapOptions options,
                                                   obs::Registry& registry);
  // Of the first listener.
  SockAddr local_addr() const { return servers_.front()->local_addr(); }
  void drain();

  // The request's answer, without a socket. For the server and for tests.
  http::Response answer(const http::Request& request);

 private:
  Bootstrap(io::Loop& loop, const Ca& ca, BootstrapOptions options, obs::Registry& registry);
  http::Response edge_certificate(const http::Request& request);
  Result<> authenticate(const http::Request& request, const std::string& node) const;
  http::Response refuse(const http::Request& request, int status, std::string_view why);

  io::Loop& loop_;
  const Ca& ca_;
  BootstrapOptions options_;
  KeyedLimiter limiter_;
  obs::Counter& issued_;
  obs::Counter& refused_;
  std::vector<std::unique_ptr<http::Server>> servers_;
};

}  // namespace edgemesh::cloud
