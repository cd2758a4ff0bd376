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

}  // namespace edgemesh::tls
