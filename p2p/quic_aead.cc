#include "p2p/quic_aead.h"

#include <gnutls/crypto.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#include <atomic>
#include <string_view>

#if defined(__x86_64__) && __has_include(<intel-ipsec-mb.h>)
#define EDGEMESH_IPSEC_MB 1
#include <dlfcn.h>
#include <intel-ipsec-mb.h>
#endif

#include "core/base/log.h"

namespace edgemesh::p2p {

namespace {
std::atomic<bool> allowed_here{true};
}  // namespace

void FastAead::allow(bool allowed) { allowed_here = allowed; }

#ifdef EDGEMESH_IPSEC_MB
namespace {

struct Library {
  IMB_MGR* manager = nullptr;

  Library() {
    void* handle = dlopen("libIPSec_MB.so.1", RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) return;
    auto make = reinterpret_cast<IMB_MGR* (*)(uint64_t)>(dlsym(handle, "alloc_mb_mgr"));         // NOLINT
    auto start = reinterpret_cast<void (*)(IMB_MGR*, IMB_ARCH*)>(dlsym(handle, "init_mb_mgr_auto"));  // NOLINT
    if (make == nullptr || start == nullptr) return;
    IMB_MGR* made = make(0);
    if (made == nullptr) return;
    IMB_ARCH arch = IMB_ARCH_NONE;
    start(made, &arch);
    // Without AES instructions its results would depend on table look-ups, which leak through caches.
    if (arch == IMB_ARCH_NONE || arch == IMB_ARCH_NOAESNI || made->imb_errno != 0) return;
    manager = made;
    EM_LOG(kDebug, "p2p", "AES-GCM of libipsec-mb, instruction set {}", static_cast<int>(arch));
  }
};

// Loaded once and kept: tunnels come and go.
const IMB_MGR* library() {
  static Library loaded;
  return loaded.manager;
}

class VectorAead final : public FastAead {
 public:
  VectorAead(const IMB_MGR& manager, std::span<const uint8_t> key)
      : seal_(key.size() == 16 ? manager.gcm128_enc : manager.gcm256_enc),
        open_(key.size() == 16 ? manager.gcm128_dec : manager.gcm256_dec) {
    (key.size() == 16 ? manager.gcm128_pre : manager.gcm256_pre)(key.data(), &key_);
  }
  ~VectorAead() override { gnutls_memset(&key_, 0, sizeof key_); }

  void seal(uint8_t* to, std::span<const uint8_t> text, const uint8_t* nonce,
            std::span<const uint8_t> additional) const override {
    gcm_context_data work;
    seal_(&key_, &work, to, text.data(), text.size(), nonce, additional.data(), additional.size(),
          to + text.size(), kTagBytes);
  }

  bool open(uint8_t* to, std::span<const uint8_t> sealed, const uint8_t* nonce,
            std::span<const uint8_t> additional) const override {
    if (sealed.size() < kTagBytes) return false;
    size_t n = sealed.size() - kTagBytes;
    gcm_context_data work;
    uint8_t tag[kTagBytes];
    open_(&key_, &work, to, sealed.data(), n, nonce, additional.data(), additional.size(), tag, kTagBytes);
    return gnutls_memcmp(tag, sealed.data() + n, kTagBytes) == 0;
  }

 private:
  alignas(64) gcm_key_data key_;
  const aes_gcm_enc_dec_t seal_, open_;
};

}  // namespace

std::unique_ptr<FastAead> FastAead::create(std::span<const uint8_t> key) {
  if ((key.size() != 16 && key.size() != 32) || !allowed_here) return nullptr;
  const IMB_MGR* manager = library();
  if (manager == nullptr) return nullptr;
  return std::make_unique<VectorAead>(*manager, key);
}
#else
std::unique_ptr<FastAead> FastAead::create(std::span<const uint8_t>) { return nullptr; }
#endif

namespace {

constexpr size_t kMaxKeyBytes = 32;

// A handle in an AEAD context is the helper's (GnuTLS) or ours; ours has the lowest bit set, which no
// address of an object has.
void* tagged(std::unique_ptr<FastAead> aead) {
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(aead.release()) | 1);  // NOLINT
}
FastAead* own(const ngtcp2_crypto_aead_ctx* context) {
  auto value = reinterpret_cast<uintptr_t>(context->native_handle);        // NOLINT
  return (value & 1) == 0 ? nullptr : reinterpret_cast<FastAead*>(value - 1);  // NOLINT
}

bool is_aes_gcm(const ngtcp2_crypto_ctx& crypto) {
  auto cipher = static_cast<gnutls_cipher_algorithm_t>(reinterpret_cast<intptr_t>(crypto.aead.native_handle));  // NOLINT
  return cipher == GNUTLS_CIPHER_AES_128_GCM || cipher == GNUTLS_CIPHER_AES_256_GCM;
}

// RFC 9001 5.1.
bool expand(uint8_t* to, size_t size, const ngtcp2_crypto_ctx& crypto, const uint8_t* secret,
            size_t secret_size, std::string_view label) {
  return ngtcp2_crypto_hkdf_expand_label(to, size, &crypto.md, secret, secret_size,
                                         reinterpret_cast<const uint8_t*>(label.data()), label.size()) == 0;  // NOLINT
}

enum class Installed { kYes, kNo, kFailed };

// One direction's 1-RTT key.
Installed install(ngtcp2_conn* conn, bool receiving, const uint8_t* secret, size_t secret_size) {
  const ngtcp2_crypto_ctx* crypto = ngtcp2_conn_get_crypto_ctx(conn);
  if (crypto == nullptr || !is_aes_gcm(*crypto)) return Installed::kNo;
  uint8_t key[kMaxKeyBytes], hp_key[kMaxKeyBytes], iv[FastAead::kNonceBytes];
  size_t size = ngtcp2_crypto_aead_keylen(&crypto->aead);
  if (size > sizeof key || !expand(key, size, *crypto, secret, secret_size, "quic key") ||
      !expand(hp_key, size, *crypto, secret, secret_size, "quic hp") ||
      !expand(iv, sizeof iv, *crypto, secret, secret_size, "quic iv"))
    return Installed::kFailed;
  auto aead = FastAead::create({key, size});
  if (aead == nullptr) return Installed::kNo;

  // As the helper would make it, which uses and frees it.
  gnutls_datum_t hp_datum{hp_key, static_cast<unsigned>(size)};
  gnutls_cipher_hd_t hp = nullptr;
  auto hp_cipher = static_cast<gnutls_cipher_algorithm_t>(reinterpret_cast<intptr_t>(crypto->hp.native_handle));  // NOLINT
  if (gnutls_cipher_init(&hp, hp_cipher, &hp_datum, nullptr) != 0) return Installed::kFailed;
  ngtcp2_crypto_cipher_ctx hp_context{hp};
  ngtcp2_crypto_aead_ctx context{tagged(std::move(aead))};
  int rv = (receiving ? ngtcp2_conn_install_rx_key : ngtcp2_conn_install_tx_key)(
      conn, secret, secret_size, &context, iv, sizeof iv, &hp_context);
  gnutls_memset(key, 0, sizeof key);
  gnutls_memset(hp_key, 0, sizeof hp_key);
  if (rv == 0) return Installed::kYes;
  gnutls_cipher_deinit(hp);
  delete own(&context);
  return Installed::kFailed;
}

int on_secret(gnutls_session_t session, gnutls_record_encryption_level_t level, const void* rx,
              const void* tx, size_t size) {
  auto* ref = static_cast<ngtcp2_crypto_conn_ref*>(gnutls_session_get_ptr(session));
  ngtcp2_conn* conn = ref->get_conn(ref);
  auto quic_level = ngtcp2_crypto_gnutls_from_gnutls_record_encryption_level(level);
  for (bool receiving : {true, false}) {
    const auto* secret = static_cast<const uint8_t*>(receiving ? rx : tx);
    if (secret == nullptr) continue;
    auto done = level == GNUTLS_ENCRYPTION_LEVEL_APPLICATION ? install(conn, receiving, secret, size)
                                                             : Installed::kNo;
    if (done == Installed::kFailed) return -1;
    if (done == Installed::kYes) continue;
    int rv = (receiving ? ngtcp2_crypto_derive_and_install_rx_key : ngtcp2_crypto_derive_and_install_tx_key)(
        conn, nullptr, nullptr, nullptr, quic_level, secret, size);
    if (rv != 0) return -1;
  }
  return 0;
}

int encrypt(uint8_t* to, const ngtcp2_crypto_aead* aead, const ngtcp2_crypto_aead_ctx* context,
            const uint8_t* text, size_t text_size, const uint8_t* nonce, size_t nonce_size,
            const uint8_t* additional, size_t additional_size) {
  FastAead* fast = own(context);
  if (fast == nullptr)
    return ngtcp2_crypto_encrypt_cb(to, aead, context, text, text_size, nonce, nonce_size, additional,
                                    additional_size);
  fast->seal(to, {text, text_size}, nonce, {additional, additional_size});
  return 0;
}

int decrypt(uint8_t* to, const ngtcp2_crypto_aead* aead, const ngtcp2_crypto_aead_ctx* context,
            const uint8_t* sealed, size_t sealed_size, const uint8_t* nonce, size_t nonce_size,
            const uint8_t* additional, size_t additional_size) {
  FastAead* fast = own(context);
  if (fast == nullptr)
    return ngtcp2_crypto_decrypt_cb(to, aead, context, sealed, sealed_size, nonce, nonce_size, additional,
                                    additional_size);
  return fast->open(to, {sealed, sealed_size}, nonce, {additional, additional_size}) ? 0 : NGTCP2_ERR_DECRYPT;
}

// Key update (RFC 9001 6): the helper derives keys and makes contexts; ours take their place.
int update_key(ngtcp2_conn* conn, uint8_t* rx_secret, uint8_t* tx_secret, ngtcp2_crypto_aead_ctx* rx,
               uint8_t* rx_iv, ngtcp2_crypto_aead_ctx* tx, uint8_t* tx_iv, const uint8_t* rx_now,
               const uint8_t* tx_now, size_t secret_size, void*) {
  uint8_t rx_key[64], tx_key[64];
  if (ngtcp2_crypto_update_key(conn, rx_secret, tx_secret, rx, rx_key, rx_iv, tx, tx_key, tx_iv, rx_now,
                               tx_now, secret_size) != 0)
    return NGTCP2_ERR_CALLBACK_FAILURE;
  const ngtcp2_crypto_ctx* crypto = ngtcp2_conn_get_crypto_ctx(conn);
  size_t size = ngtcp2_crypto_aead_keylen(&crypto->aead);
  for (auto [context, key] : {std::pair{rx, rx_key}, std::pair{tx, tx_key}}) {
    auto fast = is_aes_gcm(*crypto) ? FastAead::create({key, size}) : nullptr;
    if (fast != nullptr) {
      ngtcp2_crypto_aead_ctx_free(context);
      context->native_handle = tagged(std::move(fast));
    }
    gnutls_memset(key, 0, sizeof rx_key);
  }
  return 0;
}

void delete_aead(ngtcp2_conn* conn, ngtcp2_crypto_aead_ctx* context, void* user) {
  if (FastAead* fast = own(context); fast != nullptr) {
    delete fast;
    context->native_handle = nullptr;
    return;
  }
  ngtcp2_crypto_delete_crypto_aead_ctx_cb(conn, context, user);
}

}  // namespace

void use_fast_aead(ngtcp2_callbacks& callbacks) {
  callbacks.encrypt = encrypt;
  callbacks.decrypt = decrypt;
  callbacks.update_key = update_key;
  callbacks.delete_crypto_aead_ctx = delete_aead;
}

void use_fast_aead(gnutls_session_t session) {
  gnutls_handshake_set_secret_function(session, on_secret);
}

}  // namespace edgemesh::p2p
