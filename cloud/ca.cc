#include "cloud/ca.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/files.h"
#include "cloud/token.h"
#include "core/base/log.h"
#include "core/base/net_addr.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr int64_t kDay = 86400;
constexpr int64_t kCaLifetime = 100 * 364 * kDay;  // KubeEdge's
constexpr int64_t kServerLifetime = 10 * 365 * kDay;
constexpr size_t kMaxCsrBytes = 16384;

// RFC 5915 DER of an EC private key in PEM.
Result<std::string> ec_key_der(const std::string& key_pem) {
  BIO* bio = BIO_new_mem_buf(key_pem.data(), static_cast<int>(key_pem.size()));
  EVP_PKEY* key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  if (key == nullptr) return fail(ErrorCode::kInvalidArgument, "not a private key in PEM");
  unsigned char* der = nullptr;
  const int length = i2d_PrivateKey(key, &der);
  EVP_PKEY_free(key);
  if (length <= 0) return fail(ErrorCode::kInternal, "cannot encode the private key");
  std::string out(reinterpret_cast<char*>(der), static_cast<size_t>(length));  // NOLINT
  OPENSSL_clear_free(der, static_cast<size_t>(length));
  return out;
}

void close_key_permissions(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0 || (st.st_mode & 077) == 0) return;
  EM_LOG(kWarn, "ca", "{} was readable by others (mode {:o}); set to 600", path, st.st_mode & 0777);
  if (::chmod(path.c_str(), 0600) != 0) EM_LOG(kError, "ca", "cannot chmod {}", path);
}

Result<std::vector<tls::KeyUse>> parse_usages(std::string_view text) {
  std::vector<tls::KeyUse> uses;
  if (text.empty()) return std::vector{tls::KeyUse::kClientAuth};
  const Json list = Json::parse(text, nullptr, false);
  if (!list.is_array() || list.size() > 16) {
    return fail(ErrorCode::kInvalidArgument, "ExtKeyUsages: want a JSON array of numbers");
  }
  const auto add = [&uses](tls::KeyUse use) {
    if (std::find(uses.begin(), uses.end(), use) == uses.end()) uses.push_back(use);
  };
  for (const Json& item : list) {
    const int value = item.is_number_integer() ? item.get<int>() : -1;
    if (value < 0 || value > 2) {
      return fail(ErrorCode::kInvalidArgument,
                  "ExtKeyUsages: {} is not allowed (want 1, server, or 2, client)", item.dump());
    }
    if (value != 2) add(tls::KeyUse::kServerAuth);
    if (value != 1) add(tls::KeyUse::kClientAuth);
  }
  if (uses.empty()) add(tls::KeyUse::kClientAuth);
  return uses;
}

}  // namespace

Result<> check_node_name(std::string_view name) {
  const auto alnum = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  const auto bad = [&](std::string_view why) {
    return fail(ErrorCode::kInvalidArgument, "node name '{}' {}", name.substr(0, 80), why);
  };
  if (name.empty()) return fail(ErrorCode::kInvalidArgument, "node name is missing");
  if (name.size() > kMaxNodeName) return bad("is longer than 52 characters");
  char before = '.';
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool edge = before == '.' || i + 1 == name.size() || name[i + 1] == '.';
    const bool allowed = alnum(c) || (!edge && c == '-') || (c == '.' && before != '.');
    if (!allowed || (c == '.' && i + 1 == name.size())) {
      return bad("is not allowed (want lower-case letters, digits, '-' and '.')");
    }
    before = c;
  }
  return {};
}

namespace {
// Key and certificate of a new CA, in one file first: whatever happens in between, both are there or none.
constexpr const char* kPairFile = "/ca.next";

Result<> finish_pair(const std::string& dir) {
  const std::string path = dir + kPairFile;
  auto both = read_file(path);
  if (!both) return both.error().code == ErrorCode::kNotFound ? Result<>() : fail(both.error());
  const size_t cut = both->find("-----BEGIN CERTIFICATE-----");
  if (cut == std::string::npos) return fail(ErrorCode::kInvalidArgument, "{}: no certificate in it", path);
  EM_TRY_VOID(write_file(dir + "/ca.key", std::string_view(*both).substr(0, cut), 0600));
  EM_TRY_VOID(write_file(dir + "/ca.crt", std::string_view(*both).substr(cut), 0644));
  if (::unlink(path.c_str()) != 0) return fail_errno("remove " + path, errno);
  return {};
}
}  // namespace

Ca::Ca(CaOptions options, const Clock& clock, tls::CaPair pair)
    : options_(std::move(options)), clock_(clock), pair_(std::move(pair)) {}

int64_t Ca::now() const {
  return std::chrono::duration_cast<std::chrono::seconds>(clock_.wall_now().time_since_epoch())
      .count();
}

Result<std::unique_ptr<Ca>> Ca::open(CaOptions options, const Clock& clock) {
  const std::string dir = options.state_dir + "/ca";
  const std::string cert_path = dir + "/ca.crt";
  const std::string key_path = dir + "/ca.key";
  const auto none = [&dir] {
    return fail(ErrorCode::kNotFound,
                "there is no CA in {}: start edgemesh-cloud once, or name its folder by --state-dir", dir);
  };
  if (options.must_exist && ::access(dir.c_str(), F_OK) != 0 && errno == ENOENT) return none();
  EM_TRY_VOID(make_dirs(dir));
  EM_TRY(auto lock, FileLock::acquire(dir + "/.lock"));
  EM_TRY_VOID(finish_pair(dir));
  auto cert = read_file(cert_path);
  auto key = read_file(key_path);
  if (!cert && cert.error().code != ErrorCode::kNotFound) return fail(cert.error());
  if (!key && key.error().code != ErrorCode::kNotFound) return fail(key.error());
  if (cert.has_value() != key.has_value()) {
    return fail(ErrorCode::kInvalidArgument,
                "{} is missing while {} is there: put it back, or remove both to start a new mesh",
                cert ? key_path : cert_path, cert ? cert_path : key_path);
  }
  if (cert) {
    close_key_permissions(key_path);
    std::unique_ptr<Ca> ca(new Ca(std::move(options), clock, {*cert, *key}));
    if (auto ok = ca->load_derived(); !ok) return fail(ok.error().with_context(cert_path));
    return ca;
  }
  if (options.must_exist) return none();
  std::unique_ptr<Ca> ca(new Ca(std::move(options), clock, {}));
  const int64_t begin = ca->now() - kBackdateSeconds;
  EM_TRY(ca->pair_, tls::self_signed_ca({.common_name = "KubeEdge"}, begin, begin + kCaLifetime));
  EM_TRY_VOID(ca->load_derived());
  EM_TRY_VOID(write_file(dir + kPairFile, ca->pair_.key_pem + ca->pair_.cert_pem, 0600));
  EM_TRY_VOID(finish_pair(dir));
  EM_LOG(kInfo, "ca", "made a new CA in {} (sha256 {})", dir, ca->hash_);
  return ca;
}

Result<> Ca::load_derived() {
  EM_TRY(cert_der_, tls::cert_pem_to_der(pair_.cert_pem));
  if (!tls::key_matches(pair_.key_pem, pair_.cert_pem)) {
    return fail(ErrorCode::kInvalidArgument, "ca.key does not belong to this certificate");
  }
  EM_TRY(const tls::CertInfo info, tls::parse_cert_der(cert_der_));
  if (!info.is_ca) return fail(ErrorCode::kInvalidArgument, "not a CA certificate");
  if (info.not_after <= now()) return fail(ErrorCode::kInvalidArgument, "the CA has expired");
  EM_TRY(key_der_, ec_key_der(pair_.key_pem));
  hash_ = tls::sha256_hex(cert_der_);
  return {};
}

Result<std::string> Ca::sign_node(std::string_view csr_der, const std::string& node,
                                  std::string_view ext_key_usages, int64_t not_before_floor) const {
  EM_TRY_VOID(check_node_name(node));
  if (csr_der.empty() || csr_der.size() > kMaxCsrBytes) {
    return fail(ErrorCode::kInvalidArgument, "the body must be a certificate request in DER");
  }
  const auto csr = tls::parse_csr_der(csr_der);
  if (!csr) {
    return fail(ErrorCode::kInvalidArgument, "certificate request: {}", csr.error().message);
  }
  const std::string user = std::string(kNodeUserPrefix) + node;
  if (csr->subject.common_name != user) {
    return fail(ErrorCode::kInvalidArgument, "certificate request is for '{}', not for '{}'",
                csr->subject.common_name, user);
  }
  if (csr->subject.organizations != std::vector<std::string>{std::string(kNodesGroup)}) {
    return fail(ErrorCode::kInvalidArgument, "certificate request must have O={}", kNodesGroup);
  }
  tls::SignOptions sign;
  EM_TRY(sign.uses, parse_usages(ext_key_usages));
  sign.subject = {.common_name = user, .organizations = {std::string(kNodesGroup)}};
  sign.sans.uri = {tls::node_spiffe_id(options_.trust_domain, node)};
  // No DNS name: a node that chose the cloud's host name for its own could pass for the cloud.
  sign.not_before = std::max(now() - kBackdateSeconds, not_before_floor);
  sign.not_after = now() + options_.node_lifetime.count();
  return tls::sign_csr(pair_, csr_der, sign);
}

Result<tls::KeyAndCert> Ca::issue_server(const std::vector<std::string>& names) const {
  tls::SignOptions sign;
  sign.subject = {.common_name = "edgemesh-cloud"};
  for (const std::string& name : names) {
    (IpAddr::parse(name) ? sign.sans.ip : sign.sans.dns).push_back(name);
  }
  sign.uses = {tls::KeyUse::kServerAuth};
  sign.not_before = now() - kBackdateSeconds;
  sign.not_after = now() + kServerLifetime;
  return tls::issue(pair_, sign);
}

Result<tls::KeyAndCert> Ca::issue_client(std::string_view name, std::string_view group) const {
  tls::SignOptions sign;
  sign.subject = {.common_name = std::string(name), .organizations = {std::string(group)}};
  sign.uses = {tls::KeyUse::kClientAuth};
  sign.not_before = now() - kBackdateSeconds;
  sign.not_after = now() + kServerLifetime;
  return tls::issue(pair_, sign);
}

Result<tls::KeyAndCert> Ca::issue_admin() const {
  return issue_client("kubernetes-admin", "system:masters");
}

Result<tls::KeyAndCert> Ca::issue_cloud() const {
  return issue_client(kCloudUser, kCloudsGroup);
}

std::string Ca::new_token(std::chrono::seconds lifetime, const TokenRights& rights) const {
  return hash_ + "." + make_jwt(key_der_, now() + lifetime.count(), rights);
}

Result<std::string> public_key_hash(std::string_view cert_der) {
  const auto* at = reinterpret_cast<const unsigned char*>(cert_der.data());  // NOLINT
  X509* cert = d2i_X509(nullptr, &at, static_cast<long>(cert_der.size()));   // NOLINT: OpenSSL's type
  if (cert == nullptr) return fail(ErrorCode::kInvalidArgument, "not a certificate in DER");
  unsigned char* der = nullptr;
  const int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
  X509_free(cert);
  if (length <= 0) return fail(ErrorCode::kInternal, "cannot encode the public key");
  std::string hash = tls::sha256_hex({reinterpret_cast<const char*>(der), static_cast<size_t>(length)});  // NOLINT
  OPENSSL_free(der);
  return hash;
}

Result<TokenRights> Ca::verify_token(std::string_view token) const {
  // The whole token has four parts: people paste it where the JWT alone is meant.
  if (token.size() > hash_.size() && token[hash_.size()] == '.' &&
      std::count(token.begin(), token.end(), '.') == 3) {
    if (token.substr(0, hash_.size()) != hash_) {
      return fail(ErrorCode::kUnauthenticated, "token is of another CA");
    }
    token.remove_prefix(hash_.size() + 1);
  }
  return verify_jwt(token, key_der_, now());
}

}  // namespace edgemesh::cloud
