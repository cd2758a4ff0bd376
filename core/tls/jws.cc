#include "core/tls/jws.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/param_build.h>

#include "core/tls/openssl_util.h"

namespace edgemesh::tls {

namespace {

using NumberPtr = OpensslPtr<BIGNUM, BN_free>;
using BuilderPtr = OpensslPtr<OSSL_PARAM_BLD, OSSL_PARAM_BLD_free>;
using ParamsPtr = OpensslPtr<OSSL_PARAM, OSSL_PARAM_free>;
using KeyContextPtr = OpensslPtr<EVP_PKEY_CTX, EVP_PKEY_CTX_free>;
using DigestPtr = OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free>;
using EcdsaPtr = OpensslPtr<ECDSA_SIG, ECDSA_SIG_free>;

constexpr size_t kHalf = 32;  // of an ES256 signature, and a coordinate of P-256

const unsigned char* bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());  // NOLINT
}

NumberPtr number(std::string_view big_endian) {
  return NumberPtr(BN_bin2bn(bytes(big_endian), static_cast<int>(big_endian.size()), nullptr));
}

Result<KeyPtr> key_from(const char* kind, OSSL_PARAM_BLD* builder) {
  const ParamsPtr params(OSSL_PARAM_BLD_to_param(builder));
  const KeyContextPtr context(EVP_PKEY_CTX_new_from_name(nullptr, kind, nullptr));
  EVP_PKEY* key = nullptr;
  if (!params || !context || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.get()) != 1)
    return fail_openssl("JWK");
  return KeyPtr(key);
}

}  // namespace

Result<JwsKey> JwsKey::rsa(std::string_view modulus, std::string_view exponent) {
  constexpr size_t kMinBytes = 256, kMaxBytes = 1024, kMaxExponent = 8;
  while (modulus.starts_with('\0')) modulus.remove_prefix(1);
  if (modulus.size() < kMinBytes || modulus.size() > kMaxBytes || exponent.empty() ||
      exponent.size() > kMaxExponent)
    return fail(ErrorCode::kInvalidArgument, "JWK: an RSA key has 2048 to 8192 bits");
  const NumberPtr n = number(modulus), e = number(exponent);
  const BuilderPtr builder(OSSL_PARAM_BLD_new());
  if (!n || !e || !builder ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n.get()) != 1 ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, e.get()) != 1)
    return fail_openssl("JWK");
  EM_TRY(KeyPtr key, key_from("RSA", builder.get()));
  JwsKey out;
  out.rsa_ = true;
  out.key_ = std::shared_ptr<void>(key.release(),
                                   [](void* p) { EVP_PKEY_free(static_cast<EVP_PKEY*>(p)); });
  return out;
}

Result<JwsKey> JwsKey::p256(std::string_view x, std::string_view y) {
  if (x.size() != kHalf || y.size() != kHalf)
    return fail(ErrorCode::kInvalidArgument, "JWK: a coordinate of P-256 has 32 bytes");
  std::string point = "\x04";  // uncompressed
  point.append(x).append(y);
  const BuilderPtr builder(OSSL_PARAM_BLD_new());
  if (!builder ||
      OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) !=
          1 ||
      OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(),
                                       point.size()) != 1)
    return fail_openssl("JWK");
  EM_TRY(KeyPtr key, key_from("EC", builder.get()));
  JwsKey out;
  out.key_ = std::shared_ptr<void>(key.release(),
                                   [](void* p) { EVP_PKEY_free(static_cast<EVP_PKEY*>(p)); });
  return out;
}

bool JwsKey::verify(std::string_view text, std::string_view signature) const {
  std::string der;
  if (!rsa_) {
    if (signature.size() != 2 * kHalf) return false;
    const EcdsaPtr sig(ECDSA_SIG_new());
    NumberPtr r = number(signature.substr(0, kHalf)), s = number(signature.substr(kHalf));
    if (!sig || !r || !s) return false;
    if (ECDSA_SIG_set0(sig.get(), r.get(), s.get()) != 1) return false;
    static_cast<void>(r.release());  // `sig` owns them now
    static_cast<void>(s.release());
    unsigned char* out = nullptr;
    const int size = i2d_ECDSA_SIG(sig.get(), &out);
    if (size <= 0) return false;
    der.assign(reinterpret_cast<char*>(out), static_cast<size_t>(size));  // NOLINT
    OPENSSL_free(out);
    signature = der;
  }
  const DigestPtr context(EVP_MD_CTX_new());
  const bool good = context && key_ &&
                    EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr,
                                         static_cast<EVP_PKEY*>(key_.get())) == 1 &&
                    EVP_DigestVerify(context.get(), bytes(signature), signature.size(), bytes(text),
                                     text.size()) == 1;
  if (!good) openssl_reason();  // leaves an empty error queue
  return good;
}

Result<JwsSigner> JwsSigner::p256(std::string_view key_pem) {
  EM_TRY(KeyPtr key, read_key(key_pem));
  std::string point(2 * kHalf + 1, '\0');
  size_t size = 0;
  char group[32] = {};
  const bool good =
      EVP_PKEY_is_a(key.get(), "EC") == 1 &&
      EVP_PKEY_get_group_name(key.get(), group, sizeof(group), nullptr) == 1 &&
      std::string_view(group) == "prime256v1" &&
      EVP_PKEY_get_octet_string_param(key.get(), OSSL_PKEY_PARAM_PUB_KEY,
                                      reinterpret_cast<unsigned char*>(point.data()),  // NOLINT
                                      point.size(), &size) == 1 &&
      size == point.size() && point[0] == '\x04';
  if (!good) {
    openssl_reason();
    return fail(ErrorCode::kInvalidArgument, "the key is none on P-256");
  }
  unsigned char* der = nullptr;
  const int der_size = i2d_PUBKEY(key.get(), &der);
  if (der_size <= 0) return fail_openssl("public key");
  JwsSigner out;
  out.public_der_.assign(reinterpret_cast<char*>(der), static_cast<size_t>(der_size));  // NOLINT
  OPENSSL_free(der);
  out.x_ = point.substr(1, kHalf);
  out.y_ = point.substr(1 + kHalf);
  out.key_ = std::shared_ptr<void>(key.release(),
                                   [](void* p) { EVP_PKEY_free(static_cast<EVP_PKEY*>(p)); });
  return out;
}

Result<std::string> JwsSigner::sign(std::string_view text) const {
  const DigestPtr context(EVP_MD_CTX_new());
  std::string der(128, '\0');  // a signature has 72 bytes at most
  size_t size = der.size();
  if (!context || !key_ ||
      EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr,
                         static_cast<EVP_PKEY*>(key_.get())) != 1 ||
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(der.data()), &size,  // NOLINT
                     bytes(text), text.size()) != 1) {
    return fail_openssl("signature", ErrorCode::kInternal);
  }
  const unsigned char* at = bytes(der);
  const EcdsaPtr sig(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(size)));  // NOLINT
  std::string out(2 * kHalf, '\0');
  auto* half = reinterpret_cast<unsigned char*>(out.data());  // NOLINT
  if (!sig || BN_bn2binpad(ECDSA_SIG_get0_r(sig.get()), half, kHalf) != kHalf ||
      BN_bn2binpad(ECDSA_SIG_get0_s(sig.get()), half + kHalf, kHalf) != kHalf) {
    return fail_openssl("signature", ErrorCode::kInternal);
  }
  return out;
}

}  // namespace edgemesh::tls
