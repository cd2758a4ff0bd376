// Hashes, encodings and random bytes of x509.h.
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>

#include "core/tls/openssl_util.h"
#include "core/tls/x509.h"

namespace edgemesh::tls {

namespace {
const unsigned char* bytes(std::string_view s) {
  return reinterpret_cast<const unsigned char*>(s.data());  // NOLINT
}
unsigned char* bytes(std::string& s) {
  return reinterpret_cast<unsigned char*>(s.data());  // NOLINT
}
}  // namespace

std::string sha256(std::string_view data) {
  std::string out(SHA256_DIGEST_LENGTH, '\0');
  SHA256(bytes(data), data.size(), bytes(out));
  return out;
}

std::string sha256_hex(std::string_view data) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hash = sha256(data);
  std::string out;
  out.reserve(hash.size() * 2);
  for (char c : hash) {
    auto b = static_cast<unsigned char>(c);
    out += kDigits[b >> 4];
    out += kDigits[b & 15];
  }
  return out;
}

std::string hmac_sha256(std::string_view key, std::string_view data) {
  std::string out(SHA256_DIGEST_LENGTH, '\0');
  unsigned int size = 0;
  EM_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes(data), data.size(),
                bytes(out), &size) != nullptr);
  return out;
}

std::string base64_encode(std::string_view data) {
  std::string out((data.size() + 2) / 3 * 4 + 1, '\0');
  int n = EVP_EncodeBlock(bytes(out), bytes(data), static_cast<int>(data.size()));
  out.resize(static_cast<size_t>(n));
  return out;
}

Result<std::string> base64_decode(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for (char c : text)
    if (c != '\n' && c != '\r') clean += c;
  size_t padding = 0;
  while (padding < 2 && padding < clean.size() && clean[clean.size() - 1 - padding] == '=')
    ++padding;
  if (clean.size() % 4 != 0 ||
      clean.find('=') != (padding == 0 ? std::string::npos : clean.size() - padding))
    return fail(ErrorCode::kInvalidArgument, "not valid base64");
  std::string out(clean.size() / 4 * 3, '\0');
  int n = EVP_DecodeBlock(bytes(out), bytes(clean), static_cast<int>(clean.size()));
  if (n < 0) return fail_openssl("not valid base64");
  out.resize(static_cast<size_t>(n) - padding);
  return out;
}

std::string base64url_encode(std::string_view data) {
  std::string out = base64_encode(data);
  while (!out.empty() && out.back() == '=') out.pop_back();
  std::replace(out.begin(), out.end(), '+', '-');
  std::replace(out.begin(), out.end(), '/', '_');
  return out;
}

Result<std::string> base64url_decode(std::string_view text) {
  std::string plain(text);
  if (plain.find_first_of("+/=\r\n") != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "not valid base64url");
  std::replace(plain.begin(), plain.end(), '-', '+');
  std::replace(plain.begin(), plain.end(), '_', '/');
  plain.append((4 - plain.size() % 4) % 4, '=');
  return base64_decode(plain);
}

std::string random_bytes(size_t n) {
  std::string out(n, '\0');
  EM_CHECK(RAND_bytes(bytes(out), static_cast<int>(n)) == 1);
  return out;
}

bool constant_time_equal(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace edgemesh::tls
