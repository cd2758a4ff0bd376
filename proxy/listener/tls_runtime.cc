#include "proxy/listener/tls_runtime.h"

#include <algorithm>

#include "core/http/message.h"

namespace edgemesh::proxy {

namespace {

using ClientCert = model::TlsTermination::ClientCert;

tls::ContextOptions options_of(const model::TlsTermination& spec) {
  tls::ContextOptions options;
  options.ca_pem = spec.ca_pem;
  options.alpn = spec.alpn;
  options.min_version = spec.min_version;
  options.handshake_timeout = spec.handshake_timeout;
  options.verify = spec.client_cert == ClientCert::kRequired   ? tls::ContextOptions::kRequired
                   : spec.client_cert == ClientCert::kOptional ? tls::ContextOptions::kOptional
                                                               : tls::ContextOptions::kNone;
  return options;
}

// 0: no; else the longer the better.
size_t name_fits(std::string_view pattern, std::string_view name) {
  if (!pattern.starts_with("*.")) return http::equals_ignore_case(pattern, name) ? SIZE_MAX : 0;
  const std::string_view suffix = pattern.substr(1);
  if (name.size() <= suffix.size()) return 0;
  return http::equals_ignore_case(name.substr(name.size() - suffix.size()), suffix) ? suffix.size()
                                                                                    : 0;
}

}  // namespace

Result<std::shared_ptr<const TlsRuntime>> TlsRuntime::make(
    model::Part<model::TlsTermination> spec) {
  auto out = std::make_shared<TlsRuntime>();
  tls::ContextOptions options = options_of(*spec);
  options.cert_pem = spec->cert_pem;
  options.key_pem = spec->key_pem;
  EM_TRY(out->first_, tls::Context::server(options));
  for (const auto& certificate : spec->more) {
    options.cert_pem = certificate.cert_pem;
    options.key_pem = certificate.key_pem;
    auto made = tls::Context::server(options);
    if (!made)
      return fail(made.error().with_context(fmt::format(
          "certificate of {}",
          certificate.server_names.empty() ? "no name" : certificate.server_names.front())));
    out->more_.push_back({&certificate, std::move(*made)});
  }
  EM_TRY(out->sans_, compile_texts(spec->client_sans));
  out->spec_ = std::move(spec);
  return std::shared_ptr<const TlsRuntime>(std::move(out));
}

const std::shared_ptr<tls::Context>& TlsRuntime::choose(std::string_view server_name) const {
  const std::shared_ptr<tls::Context>* best = &first_;
  size_t best_fit = 0;
  for (const More& more : more_) {
    for (const std::string& pattern : more.spec->server_names) {
      const size_t fits = name_fits(pattern, server_name);
      if (fits <= best_fit) continue;
      best_fit = fits;
      best = &more.context;
    }
  }
  return *best;
}

void TlsRuntime::each_certificate(const std::function<void(const std::vector<std::string>& names,
                                                           const tls::Context&)>& visit) const {
  visit({}, *first_);
  for (const More& more : more_) visit(more.spec->server_names, *more.context);
}

bool TlsRuntime::takes(const tls::PeerIdentity* peer) const {
  if (sans_.empty()) return true;
  if (peer == nullptr) return spec_->client_cert != ClientCert::kRequired;
  auto any = [this](const std::vector<std::string>& names) {
    return std::any_of(names.begin(), names.end(),
                       [this](const std::string& name) { return any_matches(sans_, name); });
  };
  return any(peer->uri_sans) || any(peer->dns_sans) || any(peer->ip_sans);
}

}  // namespace edgemesh::proxy
