// TlsStream: TLS over any io::Stream, as an io::Stream. on_connected() is the end of the handshake.
// Bytes may be written before it (up to the send limit); they leave when the handshake is done.
//
// - Memory: at most about 128 KiB of ciphertext waits for the stream below and 64 KiB of what was
//   received waits for the reader; after that the stream below is not read, so back-pressure
//   reaches the peer. An idle connection holds no buffers of ours.
// - shutdown_write() sends close_notify and keeps reading (half-close, RFC 8446 6.1). End of input
// is
//   close_notify; the end of the stream below without one is an error (truncation), not kEof.
// - The peer is verified during the handshake: a bad certificate ends in on_error with the reason
// in
//   words, before on_connected().
// Threads: belongs to the loop that made it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/io/loop.h"
#include "core/io/stream.h"
#include "core/tls/context.h"

namespace edgemesh::tls {

class TlsStream : public io::Stream {
 public:
  static Result<std::unique_ptr<TlsStream>> server(io::Loop& loop,
                                                   std::unique_ptr<io::Stream> below,
                                                   std::shared_ptr<Context> context);
  // `server_name` is sent as SNI (DNS names only) and must be in the certificate's SANs; it is a
  // DNS name or an IP address. Empty: no name is checked (the caller checks peer() itself, as for
  // SPIFFE ids). `verify` false turns verification off for this connection only; peer() is then
  // null. `check_name` false: the name is sent, and who the peer is the caller checks itself.
  static Result<std::unique_ptr<TlsStream>> client(io::Loop& loop,
                                                   std::unique_ptr<io::Stream> below,
                                                   std::shared_ptr<Context> context,
                                                   std::string server_name, bool verify = true,
                                                   bool check_name = true);

  // Valid after on_connected(). Null: the peer gave no certificate, or none was verified.
  virtual const PeerIdentity* peer() const = 0;
  virtual std::shared_ptr<const PeerIdentity> shared_peer() const = 0;
  // The protocol agreed by ALPN; empty when none was.
  virtual std::string_view alpn() const = 0;
  virtual std::string version() const = 0;  // "TLSv1.3"
  // What SNI asked for (server side); empty when none.
  virtual std::string_view server_name() const = 0;
};

}  // namespace edgemesh::tls
