#include "agent/bootstrap.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "core/base/log.h"
#include "core/tls/x509.h"

namespace edgemesh::agent {

namespace {

constexpr size_t kHashHex = 64;
constexpr size_t kMaxAnswer = 64 << 10;
constexpr size_t kMaxShown = 400;

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  });
}

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

// The server's words on one line.
std::string first_line(std::string_view body) {
  std::string out;
  for (char c : body.substr(0, kMaxShown)) {
    if (c == '\n' || c == '\r') break;
    out += c >= ' ' && c != 0x7f ? c : '?';
  }
  return out;
}

}  // namespace

Bootstrap::Bootstrap(io::Loop& loop, BootstrapOptions options)
    : loop_(loop), options_(std::move(options)) {}

Bootstrap::~Bootstrap() = default;

Error Bootstrap::unreachable(const Error& error) const {
  Error out = error;
  out.message = fmt::format(
      "cannot get a certificate from {}: {} (is the address right, does edgemesh-cloud run there, "
      "is TCP port {} open?)",
      options_.server.to_string(), error.message, options_.server.port);
  return out;
}

void Bootstrap::finish(Result<Identity> result) {
  call_.reset();
  // May destroy this object.
  Done done = std::move(done_);
  done(std::move(result));
}

void Bootstrap::join(std::string token, Done done) {
  done_ = std::move(done);
  // A token that was pasted often brings its line end along.
  while (!token.empty() && static_cast<unsigned char>(token.back()) <= ' ') token.pop_back();
  token_ = std::move(token);
  const bool shape_ok = std::count(token_.begin(), token_.end(), '.') == 3 &&
                        token_.find('.') == kHashHex && is_hex(token_.substr(0, kHashHex));
  if (!shape_ok) {
    loop_.defer([this, alive = std::weak_ptr<bool>(alive_)] {
      if (alive.lock())
        finish(fail(ErrorCode::kInvalidArgument,
                    "the token is not complete (want <64 hex digits>.<3 more parts>); "
                    "'edgemesh-cloud token create' prints one"));
    });
    return;
  }
  http::ClientOptions client;
  client.request_timeout = options_.timeout;
  client.mark = options_.mark;
  client.max_body = kMaxAnswer;
  client_ = std::make_unique<http::Client>(loop_, client);
  http::ClientRequest request;
  request.url = fmt::format("https://{}/ca.crt", options_.server.to_string());
  request.insecure = true;  // the hash in the token is what proves the CA
  call_ =
      client_->call(std::move(request), [this](Result<http::Response> r) { on_ca(std::move(r)); });
}

void Bootstrap::on_ca(Result<http::Response> response) {
  if (!response) return finish(fail(unreachable(response.error())));
  if (response->status != 200) {
    return finish(fail(ErrorCode::kProtocol, "{} answered {} to /ca.crt: is it an edgemesh-cloud?",
                       options_.server.to_string(), response->status));
  }
  if (!tls::constant_time_equal(tls::sha256_hex(response->body),
                                lower(token_.substr(0, kHashHex)))) {
    return finish(fail(ErrorCode::kUnauthenticated,
                       "the CA of {} is not the one in the token: the token is of another mesh, or "
                       "someone stands between this node and the cloud",
                       options_.server.to_string()));
  }
  auto pem = tls::cert_der_to_pem(response->body);
  if (!pem)
    return finish(fail(pem.error().with_context("the CA of " + options_.server.to_string())));
  ca_pem_ = std::move(*pem);
  ask(token_.substr(kHashHex + 1), nullptr);
}

void Bootstrap::renew(const Identity& current, Done done) {
  done_ = std::move(done);
  ca_pem_ = current.ca_pem;
  ask("", &current);
}

void Bootstrap::ask(const std::string& bearer, const Identity* current) {
  // Failures of our own take the same, deferred way out as those of the network.
  const auto give_up = [this](Error error) {
    loop_.defer([this, alive = std::weak_ptr<bool>(alive_), error = std::move(error)] {
      if (alive.lock()) finish(fail(error));
    });
  };
  if (current == nullptr) key_pem_ = options_.key_pem;
  if (current != nullptr || key_pem_.empty()) {
    auto key = tls::generate_key_pem();
    if (!key) return give_up(key.error());
    key_pem_ = std::move(*key);
  }
  tls::Subject subject;
  subject.common_name = "system:node:" + options_.node;
  subject.organizations = {"system:nodes"};
  subject.country = "CN";
  subject.province = "Zhejiang";
  subject.locality = "Hangzhou";  // as KubeEdge's edges ask; the CA keeps CN and O only
  auto csr = tls::make_csr_der(key_pem_, subject);
  if (!csr) return give_up(csr.error());
  tls::ContextOptions tls_options;
  tls_options.ca_pem = ca_pem_;
  tls_options.alpn = {"http/1.1"};
  if (current != nullptr) {
    tls_options.cert_pem = current->cert_pem;
    tls_options.key_pem = current->key_pem;
  }
  auto context = tls::Context::client(tls_options);
  if (!context) return give_up(context.error());
  http::ClientOptions client;
  client.tls = std::move(*context);
  client.request_timeout = options_.timeout;
  client.mark = options_.mark;
  client.max_body = kMaxAnswer;
  http::ClientRequest request;
  request.url = fmt::format("https://{}/edge.crt", options_.server.to_string());
  if (!bearer.empty()) request.headers.add("Authorization", "Bearer " + bearer);
  request.headers.add("NodeName", options_.node);
  request.headers.add("ExtKeyUsages", "[1,2]");  // Go's x509.ExtKeyUsage: server and client
  request.body = std::move(*csr);
  // The client of the first step is kept until this one is there: its callback may be running.
  auto previous = std::exchange(client_, std::make_unique<http::Client>(loop_, client));
  loop_.defer([previous = std::move(previous)] {});
  call_ = client_->call(std::move(request),
                        [this, by_token = !bearer.empty()](Result<http::Response> r) {
                          on_certificate(std::move(r), by_token);
                        });
}

void Bootstrap::on_certificate(Result<http::Response> response, bool by_token) {
  const std::string server = options_.server.to_string();
  if (!response) return finish(fail(unreachable(response.error())));
  const std::string words = first_line(response->body);
  if (response->status == 401) {
    return finish(fail(
        ErrorCode::kUnauthenticated, "{} refused {}: {}; {}", server,
        by_token ? "the token" : "to renew the certificate", words,
        by_token ? "take a new one ('edgemesh-cloud token create'), and check this machine's clock"
                 : "join again with 'edgemesh join --cloud HOST:PORT --token T'"));
  }
  if (response->status == 409) {
    return finish(fail(ErrorCode::kAlreadyExists, "{} refused: {}", server, words));
  }
  if (response->status != 200) {
    const ErrorCode code = response->status >= 500 || response->status == 429
                               ? ErrorCode::kUnavailable
                               : ErrorCode::kInvalidArgument;
    return finish(fail(code, "{} answered {} to the request for a certificate: {}", server,
                       response->status, words));
  }
  auto pem = tls::cert_der_to_pem(response->body);
  if (!pem) return finish(fail(pem.error().with_context("the certificate from " + server)));
  auto identity = make_identity(std::move(*pem), key_pem_, ca_pem_);
  if (!identity)
    return finish(fail(identity.error().with_context("the certificate from " + server)));
  if (identity->node != options_.node) {
    return finish(fail(ErrorCode::kProtocol, "{} gave a certificate of node '{}' instead of '{}'",
                       server, identity->node, options_.node));
  }
  finish(std::move(*identity));
}

namespace {

// Of the try before this one, or a new one.
Result<std::string> join_key(const std::string& path) {
  auto key = read_file(path);
  // A key that makes a request is whole.
  if (key && tls::make_csr_der(*key, {.common_name = "join"})) return key;
  EM_TRY(std::string fresh, tls::generate_key_pem());
  EM_TRY_VOID(write_file_atomically(path, fresh, 0600));
  return fresh;
}

}  // namespace

Result<Identity> join_blocking(const BootstrapOptions& given, const std::string& token,
                               const std::string& state_dir) {
  BootstrapOptions options = given;
  const std::string key_file = state_dir + kJoinKeyFile;
  EM_TRY_VOID(make_state_dir(state_dir));
  EM_TRY(options.key_pem, join_key(key_file));
  EM_TRY(auto loop, io::Loop::create());
  Result<Identity> result =
      fail(ErrorCode::kTimeout, "no answer from {} in time", options.server.to_string());
  bool done = false;
  {
    Bootstrap bootstrap(*loop, options);
    bootstrap.join(token, [&](Result<Identity> r) {
      result = std::move(r);
      done = true;
    });
    // Both steps have their own limit; this one is for what they do not cover.
    loop->run_until([&] { return done; }, 3 * options.timeout);
  }
  if (!result) return result;
  EM_TRY_VOID(save_identity(state_dir, *result));
  if (::unlink(key_file.c_str()) != 0) return fail_errno("remove " + key_file, errno);
  return result;
}

}  // namespace edgemesh::agent
