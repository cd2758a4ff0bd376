// TlsRuntime: a chain's TLS termination made ready: one context for each certificate. Immutable.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/tls/context.h"
#include "proxy/model/listener.h"
#include "proxy/route/matchers.h"

namespace edgemesh::proxy {

class TlsRuntime {
 public:
  // Costly (keys are parsed). Errors name the certificate that is wrong.
  static Result<std::shared_ptr<const TlsRuntime>> make(model::Part<model::TlsTermination> spec);
  // The context for a client that asks for `server_name` (may be empty).
  const std::shared_ptr<tls::Context>& choose(std::string_view server_name) const;
  // The certificates that it shows: the server names each is for, and its context.
  void each_certificate(const std::function<void(const std::vector<std::string>& names,
                                                 const tls::Context&)>& visit) const;
  // Whether the client's certificate has one of the names that are asked for.
  bool takes(const tls::PeerIdentity* peer) const;

 private:
  struct More {
    const model::TlsTermination::Certificate* spec;
    std::shared_ptr<tls::Context> context;
  };
  model::Part<model::TlsTermination> spec_;
  std::shared_ptr<tls::Context> first_;
  std::vector<More> more_;
  std::vector<TextMatcher> sans_;
};

}  // namespace edgemesh::proxy
