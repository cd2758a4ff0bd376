// HealthAttempt: one health check of one endpoint, from connect to verdict. Private to the checker.
#pragma once

#include <memory>
#include <string>

#include "core/base/function.h"
#include "proxy/upstream/pool.h"

namespace edgemesh::proxy {

class HealthAttempt final : private io::Stream::Handler,
                            private HttpClientConnection::Handler,
                            private HttpStream::Handler {
 public:
  // An empty reason: it passed. Called once; the attempt may be destroyed in it.
  using OnDone = UniqueFunction<void(const std::string& reason)>;

  HealthAttempt(io::Loop& loop, std::shared_ptr<const HostSet> set, const model::Endpoint& endpoint,
                const model::HealthCheck& check, OnDone done);
  ~HealthAttempt() override;
  // `done` will not be called: to be destroyed later.
  void abandon();
  // `done` never runs from within.
  void start(Connector& connector, const MakeClient& make_h1, const MakeClient& make_h2);

 private:
  // io::Stream::Handler and HttpClientConnection::Handler.
  void on_connected() override;
  void on_readable() override;
  void on_writable() override {}  // both handlers
  void on_error(const Error& error) override;
  void on_available() override {}
  void on_closed(const Error& error) override;
  // HttpStream::Handler.
  void on_head(HeadPtr head, bool end) override;
  void on_data(std::span<const uint8_t> data, bool end) override;
  void on_trailers(HeadPtr trailers) override;
  void on_reset(ResetReason reason, std::string_view detail) override;

  bool uses_h2() const;
  void begin_tcp();
  void begin_http();
  bool expects(int status) const;
  void judge_grpc(const Head& trailers);
  void finish(std::string reason);

  io::Loop& loop_;
  std::shared_ptr<const HostSet> set_;
  model::Endpoint endpoint_;
  const model::HealthCheck& check_;
  OnDone done_;
  const MakeClient* make_ = nullptr;
  bool ended_ = false;
  io::Timer timer_;
  std::string received_;
  tls::TlsStream* tls_ = nullptr;
  std::unique_ptr<io::Stream> stream_;
  std::unique_ptr<HttpClientConnection> codec_;
  StreamPtr request_;
};

// The request of gRPC's health service with its 5 bytes of framing, and whether an answer (framed
// alike) says SERVING.
std::string grpc_health_request(std::string_view service);
bool grpc_health_serving(std::string_view framed);

}  // namespace edgemesh::proxy
