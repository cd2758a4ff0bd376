// Bootstrap, the edge's side: how a node gets its certificate with a token and renews it with the
// certificate it has (KubeEdge's /ca.crt and /edge.crt).
//
// Token: <hex sha256 of the CA's DER>.<JWT>. The CA is fetched unverified, checked against the hash, and
// everything after that is verified with it; the JWT is sent only then.
// Threads: the loop given. Errors are one line that says what to do.
#pragma once

#include <memory>
#include <string>

#include "agent/identity.h"
#include "core/base/function.h"
#include "core/http/client.h"
#include "core/io/loop.h"

namespace edgemesh::agent {

struct JoinOptions {
  std::string cloud;  // HOST:PORT of the bootstrap server, "[v6]:PORT" for IPv6
  std::string token;
  std::string node;
  std::string trust_domain = "edgemesh.local";
  Duration timeout = std::chrono::seconds(15);
};

class Bootstrap {
 public:
  using Done = UniqueFunction<void(Result<Identity>)>;

  explicit Bootstrap(io::Loop& loop) : loop_(loop) {}

  // `done` never runs from within. One call at a time. Destroying the Bootstrap cancels.
  void join(JoinOptions options, Done done);
  void renew(const std::string& cloud, const Identity& current, Done done);

 private:
  void fetch_ca(std::string hash);
  void request_certificate(const std::string& authorization);
  void finish(Result<Identity> result);
  Result<Identity> accept_certificate(const http::Response& response) const;

  io::Loop& loop_;
  std::unique_ptr<http::Client> client_;
  std::unique_ptr<http::Call> call_;
  JoinOptions options_;
  Identity identity_;
  Done done_;
};

}  // namespace edgemesh::agent
