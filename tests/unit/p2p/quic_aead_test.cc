#include "p2p/quic_aead.h"

#include <gnutls/crypto.h>
#include <gtest/gtest.h>

#include <vector>

namespace edgemesh::p2p {
namespace {

// What GnuTLS makes of the same key, nonce, additional data and text.
std::vector<uint8_t> sealed_by_gnutls(std::vector<uint8_t> key, const uint8_t* nonce,
                                      std::span<const uint8_t> additional, std::span<const uint8_t> text) {
  gnutls_datum_t datum{key.data(), static_cast<unsigned>(key.size())};
  gnutls_aead_cipher_hd_t cipher = nullptr;
  auto kind = key.size() == 16 ? GNUTLS_CIPHER_AES_128_GCM : GNUTLS_CIPHER_AES_256_GCM;
  EXPECT_EQ(gnutls_aead_cipher_init(&cipher, kind, &datum), 0);
  std::vector<uint8_t> out(text.size() + FastAead::kTagBytes);
  size_t size = out.size();
  EXPECT_EQ(gnutls_aead_cipher_encrypt(cipher, nonce, FastAead::kNonceBytes, additional.data(),
                                       additional.size(), FastAead::kTagBytes, text.data(), text.size(),
                                       out.data(), &size),
            0);
  gnutls_aead_cipher_deinit(cipher);
  return out;
}

// Without the library everything goes by GnuTLS: then there is nothing to compare, and the tunnel's
// tests cover it.
TEST(FastAeadTest, AgreesWithGnutlsForAllSizes) {
  uint8_t nonce[FastAead::kNonceBytes] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  std::vector<uint8_t> additional = {0x40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 1};
  for (size_t key_size : {16u, 32u}) {
    std::vector<uint8_t> key(key_size);
    for (size_t i = 0; i < key_size; ++i) key[i] = static_cast<uint8_t>(7 * i + 1);
    auto fast = FastAead::create(key);
    if (fast == nullptr) continue;
    for (size_t size = 0; size <= 1500; size = size < 40 ? size + 1 : size + 37) {
      std::vector<uint8_t> text(size);
      for (size_t i = 0; i < size; ++i) text[i] = static_cast<uint8_t>(i * 13);
      auto expected = sealed_by_gnutls(key, nonce, additional, text);

      std::vector<uint8_t> sealed = text;  // in place, as QUIC does it
      sealed.resize(size + FastAead::kTagBytes);
      fast->seal(sealed.data(), {sealed.data(), size}, nonce, additional);
      ASSERT_EQ(sealed, expected) << size;

      std::vector<uint8_t> opened(size);
      ASSERT_TRUE(fast->open(opened.data(), sealed, nonce, additional));
      ASSERT_EQ(opened, text);
      sealed[size / 2] ^= 1;
      ASSERT_FALSE(fast->open(opened.data(), sealed, nonce, additional));
    }
  }
}

TEST(FastAeadTest, RefusesOtherKeysAndShortPackets) {
  std::vector<uint8_t> key(24);
  EXPECT_EQ(FastAead::create(key), nullptr);
  key.resize(16);
  auto fast = FastAead::create(key);
  uint8_t nonce[FastAead::kNonceBytes] = {}, to[16], packet[15] = {};
  if (fast != nullptr) {
    EXPECT_FALSE(fast->open(to, packet, nonce, {}));
  }
}

}  // namespace
}  // namespace edgemesh::p2p
