// A certificate authority for tests.
#pragma once

#include <ctime>
#include <memory>
#include <string>

#include "core/tls/context.h"
#include "core/tls/x509.h"

namespace edgemesh::test {

// Fails the process on errors: a test cannot go on without certificates.
class TestPki {
 public:
  explicit TestPki(const std::string& ca_name = "test CA") {
    ca_ = take(tls::self_signed_ca({ca_name, {}, "", "", ""}, now() - 3600, now() + 86400));
  }
  static int64_t now() { return static_cast<int64_t>(std::time(nullptr)); }
  const tls::CaPair& ca() const { return ca_; }

  tls::KeyAndCert issue(const std::string& name, const tls::SubjectAltNames& sans = {},
                        int64_t valid_from = -60, int64_t valid_to = 3600) const {
    tls::SignOptions options;
    options.subject = {name, {"system:nodes"}, "", "", ""};
    options.sans = sans;
    options.uses = {tls::KeyUse::kClientAuth, tls::KeyUse::kServerAuth};
    options.not_before = now() + valid_from;
    options.not_after = now() + valid_to;
    return take(tls::issue(ca_, options));
  }
  // A certificate for localhost and both loopback addresses.
  tls::KeyAndCert localhost() const {
    return issue("localhost", {{}, {"localhost"}, {"127.0.0.1", "::1"}});
  }
  tls::ContextOptions options(const tls::KeyAndCert& id, tls::ContextOptions::Verify verify =
                                                             tls::ContextOptions::kRequired) const {
    tls::ContextOptions o;
    o.cert_pem = id.cert_pem;
    o.key_pem = id.key_pem;
    o.ca_pem = ca_.cert_pem;
    o.verify = verify;
    return o;
  }
  std::shared_ptr<tls::Context> server(const tls::KeyAndCert& id,
                                       tls::ContextOptions::Verify verify) const {
    return take(tls::Context::server(options(id, verify)));
  }
  std::shared_ptr<tls::Context> client(const tls::KeyAndCert& id = {}) const {
    return take(tls::Context::client(options(id)));
  }

  template <class T>
  static T take(Result<T> result) {
    if (!result) fmt::print(stderr, "test set-up: {}\n", result.error().message);
    EM_CHECK(result.has_value());
    return std::move(*result);
  }

 private:
  tls::CaPair ca_;
};

}  // namespace edgemesh::test
