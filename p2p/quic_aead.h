// AES-GCM for QUIC packets (RFC 9001 5.3) on the CPU's vector instructions, where Debian's libipsec-mb
// is installed: 100 ns for a packet of 1,400 bytes where GnuTLS 3.7 takes 550 (VAES; a quarter of all
// the work of a tunnel without it). The library is loaded with the first tunnel; without it, or with
// another cipher, GnuTLS does the work.
//
// Only the packets of an established connection (1-RTT) come here; key schedule and handshake stay with
// ngtcp2's helper. Threads: keys are used on the loop that made them.
#pragma once

#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2.h>

#include <cstdint>
#include <memory>
#include <span>

namespace edgemesh::p2p {

class FastAead {
 public:
  static constexpr size_t kTagBytes = 16, kNonceBytes = 12;

  // Null: not available here, or no AES key (16 or 32 bytes).
  static std::unique_ptr<FastAead> create(std::span<const uint8_t> key);
  // False: keys made from now on are as if the library were missing. For tests.
  static void allow(bool allowed);
  virtual ~FastAead() = default;
  // `to` has room for text and tag; it may be where the text is.
  virtual void seal(uint8_t* to, std::span<const uint8_t> text, const uint8_t* nonce,
                    std::span<const uint8_t> additional) const = 0;
  // False: the tag is wrong; what was written to `to` must not be used.
  virtual bool open(uint8_t* to, std::span<const uint8_t> sealed, const uint8_t* nonce,
                    std::span<const uint8_t> additional) const = 0;
};

// Has a connection's 1-RTT packets protected by FastAead where that can be had. Both are needed; the
// session is one that ngtcp2_crypto_gnutls_configure_*_session() has prepared.
void use_fast_aead(ngtcp2_callbacks& callbacks);
void use_fast_aead(gnutls_session_t session);

}  // namespace edgemesh::p2p
