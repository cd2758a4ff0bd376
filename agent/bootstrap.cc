#include "agent/bootstrap.h"

#include "core/tls/x509.h"

namespace edgemesh::agent {

namespace {

// Go's x509.ExtKeyUsage numbers, as KubeEdge sends them: server and client authentication. A node is
// both, for the tunnels of the mesh.
constexpr const char* kKeyUses = "[1,2]";

Result<std::string> make_csr(const Identity& identity, const std::string& trust_domain) {
  tls::Subject subject{.common_name = "system:node:" + identity.node,
                       .organizations = {"system:nodes"},
                       .country = "CN",
                       .locality = "Hangzhou",
                       .province = "Zhejiang"};
  tls::SubjectAltNames sans{.uri = {tls::node_spiffe_id(trust_domain, identity.node)}};
  return tls::make_csr_der(identity.key_pem, subject, sans);
}

Error unreachable(const std::string& cloud, const Error& error) {
  return {error.code,
          fmt::format("the cloud at {} cannot be reached: {}; check the address and that TCP port 10002 is open",
                      cloud, error.message),
          error.sys};
}

std::string first_line(std::string_view text) {
  return std::string(text.substr(0, std::min(text.find('\n'), size_t{300})));
}

}  // namespace

void Bootstrap::finish(Result<Identity> result) {
  loop_.post([done = std::make_shared<Done>(std::move(done_)),
              result = std::make_shared<Result<Identity>>(std::move(result))] {
    if (*done) (*done)(std::move(*result));
  });
}

void Bootstrap::join(JoinOptions options, Done done) {
  options_ = std::move(options);
  done_ = std::move(done);
  auto dot = options_.token.find('.');
  if (dot != 64 || options_.token.find_first_not_of("0123456789abcdef") != 64)
    return finish(fail(ErrorCode::kInvalidArgument,
                       "that is not a join token (want <64 hex digits>.<JWT>); 'edgemesh-cloud token "
                       "create' prints one"));
  identity_ = {};
  identity_.node = options_.node;
  auto key = tls::generate_key_pem();
  if (!key) return finish(fail(key.error()));
  identity_.key_pem = *key;
  client_ = std::make_unique<http::Client>(loop_, http::ClientOptions{.request_timeout = options_.timeout});
  fetch_ca(options_.token.substr(0, dot));
}

void Bootstrap::fetch_ca(std::string hash) {
  http::ClientRequest request{.url = "https://" + options_.cloud + "/ca.crt"};
  request.insecure = true;  // its hash is checked below, before anything secret is sent
  call_ = client_->call(std::move(request), [this, hash](Result<http::Response> r) {
    if (!r) return finish(fail(unreachable(options_.cloud, r.error())));
    if (r->status != 200)
      return finish(fail(ErrorCode::kUnavailable, "{} answered {} for /ca.crt; is it the bootstrap port (10002)?",
                         options_.cloud, r->status));
    if (!tls::constant_time_equal(tls::sha256_hex(r->body), hash))
      return finish(fail(ErrorCode::kUnauthenticated,
                         "the cloud at {} has another CA than the token names: a token of another "
                         "cloud, or someone between; get a new token",
                         options_.cloud));
    auto pem = tls::cert_der_to_pem(r->body);
    if (!pem) return finish(fail(pem.error()));
    identity_.ca_pem = *pem;
    auto context = tls::Context::client({.ca_pem = identity_.ca_pem});
    if (!context) return finish(fail(context.error()));
    client_->set_tls(*context);
    request_certificate("Bearer " + options_.token.substr(65));
  });
}

void Bootstrap::renew(const std::string& cloud, const Identity& current, Done done) {
  options_ = {};
  options_.cloud = cloud;
  done_ = std::move(done);
  identity_ = current;
  auto context = tls::Context::client(
      {.cert_pem = current.cert_pem, .key_pem = current.key_pem, .ca_pem = current.ca_pem});
  if (!context) return finish(fail(context.error()));
  client_ = std::make_unique<http::Client>(
      loop_, http::ClientOptions{.tls = *context, .request_timeout = options_.timeout});
  request_certificate("");
}

void Bootstrap::request_certificate(const std::string& authorization) {
  auto csr = make_csr(identity_, options_.trust_domain);
  if (!csr) return finish(fail(csr.error()));
  http::ClientRequest request{.url = "https://" + options_.cloud + "/edge.crt"};
  request.headers = {{"NodeName", identity_.node}, {"ExtKeyUsages", kKeyUses}};
  if (!authorization.empty()) request.headers.add("Authorization", authorization);
  request.body = *csr;
  call_ = client_->call(std::move(request), [this](Result<http::Response> r) {
    if (!r) return finish(fail(unreachable(options_.cloud, r.error())));
    finish(accept_certificate(*r));
  });
}

Result<Identity> Bootstrap::accept_certificate(const http::Response& response) const {
  if (response.status == 401)
    return fail(ErrorCode::kUnauthenticated,
                "the cloud refused this node: {}; get a new token with 'edgemesh-cloud token create' "
                "(and check this machine's clock)",
                first_line(response.body));
  if (response.status != 200)
    return fail(ErrorCode::kUnavailable, "the cloud gave no certificate ({}): {}", response.status,
                first_line(response.body));
  Identity out = identity_;
  EM_TRY(out.cert_pem, tls::cert_der_to_pem(response.body));
  EM_TRY_VOID(tls::verify_issued_by(response.body, out.ca_pem));
  if (!tls::key_matches(out.key_pem, out.cert_pem))
    return fail(ErrorCode::kProtocol, "the cloud signed another key than this node's");
  EM_TRY(auto info, tls::parse_cert_pem(out.cert_pem));
  if (info.common_name != "system:node:" + out.node)
    return fail(ErrorCode::kProtocol, "the cloud's certificate names '{}', not this node", info.common_name);
  out.not_before = info.not_before;
  out.not_after = info.not_after;
  return out;
}

}  // namespace edgemesh::agent
