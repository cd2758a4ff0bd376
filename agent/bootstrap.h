// Bootstrap: how a node gets its certificate (KubeEdge v1.3 to v1.23, cloudhub/servers/httpserver).
//
//   join   1. GET https://cloud:10002/ca.crt, the server not verified: the CA as DER
//          2. hex(sha256(CA)) must be the token's first part
//          3. GET /edge.crt, verified with that CA; Authorization: Bearer <the token's other parts>,
//             NodeName, ExtKeyUsages [1,2]; body: PKCS#10 DER. The answer is the certificate as DER
//   renew  3. again, authenticated by the certificate in use instead of a token, with a new key
//
// The answer must fit our key, name the node, and be signed by the CA. Errors are one line that says
// what to do. Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "agent/identity.h"
#include "core/base/function.h"
#include "core/config/reader.h"
#include "core/http/client.h"
#include "core/io/loop.h"

namespace edgemesh::agent {

struct BootstrapOptions {
  config::HostPort server;  // host:10002
  std::string node;
  Duration timeout = std::chrono::seconds(15);
  uint32_t mark = 0;  // SO_MARK
  // The key to join with; empty: a new one. The cloud gives a name away once, but again to the same key: with
  // it an answer that was lost can be asked for again.
  std::string key_pem;
};

// One exchange. Destroying it cancels: the callback never runs.
class Bootstrap {
 public:
  using Done = UniqueFunction<void(Result<Identity>)>;

  Bootstrap(io::Loop& loop, BootstrapOptions options);
  ~Bootstrap();
  Bootstrap(const Bootstrap&) = delete;
  Bootstrap& operator=(const Bootstrap&) = delete;

  // One of them, once. `done` never runs from within the call; it may destroy this object.
  void join(std::string token, Done done);
  void renew(const Identity& current, Done done);

 private:
  void on_ca(Result<http::Response> response);
  void ask(const std::string& bearer, const Identity* current);
  void on_certificate(Result<http::Response> response, bool by_token);
  void finish(Result<Identity> result);
  Error unreachable(const Error& error) const;

  io::Loop& loop_;
  BootstrapOptions options_;
  Done done_;
  std::string token_;
  std::string ca_pem_, key_pem_;
  std::unique_ptr<http::Client> client_;
  std::unique_ptr<http::Call> call_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// Joins and writes the files: for the command line. Runs a loop of its own. The key is on disk (join.key)
// before the cloud is asked, and is the one of the next try when this one fails.
Result<Identity> join_blocking(const BootstrapOptions& options, const std::string& token,
                               const std::string& state_dir);

// Renews in time: at a random point between 70 and 90 % of the certificate's life, so that nodes that
// joined together do not renew together; at once when it has run out meanwhile. Failures are tried
// again after 2 s, 4 s, ... 32 s, then every 5 min. The new files are on disk before on_renewed.
class Renewal {
 public:
  Renewal(io::Loop& loop, BootstrapOptions options, std::string state_dir, Identity identity,
          std::function<void(const Identity&)> on_renewed);
  void start();
  // The network changed: a renewal that waits for its next try is tried at once.
  void kick();
  const Identity& identity() const { return identity_; }
  int64_t due() const { return due_; }  // Unix seconds
  const std::string& last_error() const { return last_error_; }

 private:
  void plan();
  void check();
  void attempt();
  void on_result(Result<Identity> result);
  int64_t wall_seconds() const;

  io::Loop& loop_;
  BootstrapOptions options_;
  std::string state_dir_;
  Identity identity_;
  std::function<void(const Identity&)> on_renewed_;
  int64_t due_ = 0;
  int failures_ = 0;
  std::string last_error_;
  std::unique_ptr<Bootstrap> running_;
  io::Timer timer_;
};

}  // namespace edgemesh::agent
