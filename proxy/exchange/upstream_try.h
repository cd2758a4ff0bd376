// UpstreamTry: one attempt of a request at one endpoint: waits for a stream, sends the request on it,
// tells the exchange what comes back. Owned and reused by its Exchange. Threads: the worker's loop.
#pragma once

#include "proxy/http/stream.h"
#include "proxy/upstream/outlier.h"
#include "proxy/upstream/pool.h"

namespace edgemesh::proxy {

class Exchange;

class UpstreamTry final : public HttpStream::Handler, public PoolWaiter {
 public:
  explicit UpstreamTry(Exchange& exchange) : exchange_(exchange) {}
  ~UpstreamTry() override = default;

  bool open() const { return open_; }
  // Takes a ticket and asks the pool. False: refused at once; failure() says why, and it is not open.
  bool start(Host& host, bool is_retry);
  // Sends what was not sent yet of the head and the body that the exchange keeps.
  void send_kept();
  // Body that is not kept. Everything before it was sent.
  void send(std::span<const uint8_t> data, bool end);
  void send_trailers(const Head& trailers);
  void set_reading(bool on) { if (stream_ != nullptr) stream_->set_reading(on); }
  bool ready() const { return stream_ != nullptr; }  // head and body can be sent
  bool blocked() const { return blocked_; }
  bool head_came() const { return head_came_; }
  bool sent_anything() const { return head_sent_; }
  // Counts the end, and gives stream, ticket and connection back. `outcome` absent: nobody's fault.
  void close();
  void report(Outcome outcome);

  Host* host() const { return host_.get(); }
  const ConnectionInfo& info() const { return info_; }
  PoolFailure failure() const { return failure_; }
  bool no_ticket() const { return no_ticket_; }
  const std::string& error() const { return error_; }
  TimePoint deadline() const { return deadline_; }  // of this try; zero: none
  void set_deadline(TimePoint when) { deadline_ = when; }
  TimePoint last_active() const { return last_active_; }

 private:
  friend class Exchange;
  void on_pool_stream(StreamPtr stream, const ConnectionInfo& info) override;
  void on_pool_failure(PoolFailure failure, const Error& error) override;
  void on_head(HeadPtr head, bool end) override;
  void on_data(std::span<const uint8_t> data, bool end) override;
  void on_trailers(HeadPtr trailers) override;
  void on_reset(ResetReason reason, std::string_view detail) override;
  void on_writable() override;
  void note_ready(StreamPtr stream, const ConnectionInfo& info);

  Exchange& exchange_;
  StreamPtr stream_;
  RequestTicket ticket_;
  HostRef host_;
  ConnectionInfo info_;
  ProxiedAddrs addrs_;
  std::string error_;
  TimePoint deadline_{}, last_active_{};
  size_t sent_ = 0;  // of the kept body
  PoolFailure failure_ = PoolFailure::kNone;
  model::RequestPriority priority_ = model::RequestPriority::kDefault;
  bool open_ = false;
  bool no_ticket_ = false;
  bool retry_slot_ = false;
  bool head_sent_ = false;
  bool end_sent_ = false;
  bool head_came_ = false;
  bool blocked_ = false;
  bool reported_ = false;
};

}  // namespace edgemesh::proxy
