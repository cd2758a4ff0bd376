// TlsStream's implementation: OpenSSL with a BIO of our own over io::Stream. For core/tls only.
//
// Reads go straight from the stream below into OpenSSL's record buffer (read-ahead). Writes encrypt
// up to kBatch bytes into a buffer that all connections of a thread share and give it to the stream
// below in one call; only what that did not take is copied to the connection's own `out_`.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/tls/context_impl.h"
#include "core/tls/tls_stream.h"

namespace edgemesh::tls {

class TlsStreamImpl final : public TlsStream, private io::Stream::Handler {
 public:
  TlsStreamImpl(io::Loop& loop, std::unique_ptr<io::Stream> below, std::shared_ptr<Context> context,
                bool verify);
  ~TlsStreamImpl() override;
  Result<> init(const std::string& server_name, bool check_name);

  void set_handler(io::Stream::Handler* handler) override { handler_ = handler; }
  io::IoResult read(std::span<uint8_t> into) override;
  io::IoResult write(std::span<const uint8_t> data) override;
  bool close_both() override;
  void shutdown_write() override;
  void reset() override;
  uint8_t carrier() const override { return below_->carrier(); }

  const PeerIdentity* peer() const override { return peer_.get(); }
  std::shared_ptr<const PeerIdentity> shared_peer() const override { return peer_; }
  std::string_view alpn() const override;
  std::string version() const override;
  std::string_view server_name() const override;

  // Called by the BIO. Return values as of BIO_meth_set_read_ex and friends.
  int bio_read(char* into, size_t size, size_t* got);
  int bio_write(const char* data, size_t size, size_t* taken);

 private:
  enum class State : uint8_t { kHandshake, kOpen, kFailed };

  void on_readable() override;
  void on_writable() override;
  void on_error(const Error& error) override;

  void drive_handshake();
  void handshake_done();
  Error handshake_error() const;
  io::IoResult write_open(std::span<const uint8_t> data);
  bool flush_out();      // false: something is left, or the stream failed
  void send_shutdown();  // close_notify, once the early data left
  void flush_early();
  io::IoResult failed_read(int result);
  void fail_later(Error error);
  void set_name_check(const std::string& name, bool* ok);

  io::Loop& loop_;
  std::unique_ptr<io::Stream> below_;
  std::shared_ptr<Context> context_;
  SslPtr ssl_;
  io::Stream::Handler* handler_ = nullptr;
  std::unique_ptr<io::Timer> handshake_timer_;
  std::shared_ptr<PeerIdentity> peer_;
  std::string early_;         // written before the handshake was done
  std::vector<uint8_t> out_;  // ciphertext that the stream below did not take
  size_t out_at_ = 0;
  State state_ = State::kHandshake;
  bool verify_ = true;
  bool collecting_ = false;  // bio_write appends to the thread's batch
  bool below_blocked_ = false;
  bool below_eof_ = false;
  bool below_failed_ = false;
  bool want_readable_ = true;
  bool want_writable_ = false;
  bool read_eof_ = false;
  bool write_shut_ = false;  // asked for
  bool close_notify_sent_ = false;
  bool below_shut_ = false;
  bool reset_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::tls
