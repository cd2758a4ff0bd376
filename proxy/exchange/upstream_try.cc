#include "proxy/exchange/upstream_try.h"

#include "proxy/exchange/exchange.h"
#include "proxy/exchange/l7_worker.h"

namespace edgemesh::proxy {

bool UpstreamTry::start(Host& host, bool is_retry) {
  host_ = HostRef(&host);
  priority_ = exchange_.entry_->route->priority;
  sent_ = 0;
  failure_ = PoolFailure::kNone;
  no_ticket_ = head_sent_ = end_sent_ = head_came_ = blocked_ = reported_ = false;
  deadline_ = TimePoint{};
  error_.clear();
  info_ = ConnectionInfo{};
  last_active_ = exchange_.worker_.loop().now();
  retry_slot_ = is_retry;  // the caller took it
  ticket_ = RequestTicket::take(host, priority_);
  open_ = true;
  if (!ticket_) {
    no_ticket_ = true;
    close();
    return false;
  }
  PoolRequest request;
  request.handler = this;
  request.priority = priority_;
  if (host.cluster().config().proxy_protocol != model::ProxyProtocolOut::kNone) {
    addrs_ = ProxiedAddrs{exchange_.facts_.peer, exchange_.facts_.local};
    request.addrs = &addrs_;
  }
  PoolAnswer answer = exchange_.worker_.pool().request(host, request, *this);
  if (answer.failure != PoolFailure::kNone) {
    failure_ = answer.failure;
    error_ = answer.error.message;
    close();
    return false;
  }
  if (answer.stream != nullptr) note_ready(std::move(answer.stream), answer.info);
  return true;
}

void UpstreamTry::note_ready(StreamPtr stream, const ConnectionInfo& info) {
  stream_ = std::move(stream);
  info_ = info;
  exchange_.on_try_ready(*this);
}

void UpstreamTry::send_kept() {
  const bool ends = exchange_.request_ended_ && exchange_.request_trailers_ == nullptr;
  const auto& body = exchange_.body_;
  if (!head_sent_) {
    head_sent_ = true;
    end_sent_ = ends && body.empty();
    stream_->send_head(*exchange_.request_, end_sent_);
  }
  if (!end_sent_ && (sent_ < body.size() || ends)) {
    const std::span<const uint8_t> rest(body.data() + sent_, body.size() - sent_);
    sent_ = body.size();
    send(rest, ends);
  }
  if (!end_sent_ && exchange_.request_trailers_ != nullptr)
    send_trailers(*exchange_.request_trailers_);
}

void UpstreamTry::send(std::span<const uint8_t> data, bool end) {
  if (end_sent_) return;
  end_sent_ = end;
  if (!stream_->send_data(data, end) && !end) blocked_ = true;
}

void UpstreamTry::send_trailers(const Head& trailers) {
  if (end_sent_) return;
  end_sent_ = true;
  stream_->send_trailers(trailers);
}

void UpstreamTry::report(Outcome outcome) {
  if (reported_) return;
  reported_ = true;
  report_outcome(*host_, outcome);
}

void UpstreamTry::close() {
  if (!open_) return;
  open_ = false;
  cancel();
  stream_.reset();
  ticket_ = RequestTicket();
  if (retry_slot_ && host_) host_->cluster().give_retry(priority_);
  retry_slot_ = false;
  blocked_ = false;
}

void UpstreamTry::on_pool_stream(StreamPtr stream, const ConnectionInfo& info) {
  note_ready(std::move(stream), info);
}

void UpstreamTry::on_pool_failure(PoolFailure failure, const Error& error) {
  failure_ = failure;
  error_ = error.message;
  reported_ = true;  // the pool did
  exchange_.on_try_unconnected(*this);
}

void UpstreamTry::on_head(HeadPtr head, bool end) {
  last_active_ = exchange_.worker_.loop().now();
  exchange_.on_try_head(*this, std::move(head), end);
}

void UpstreamTry::on_data(std::span<const uint8_t> data, bool end) {
  exchange_.on_try_data(*this, data, end);
}

void UpstreamTry::on_trailers(HeadPtr trailers) {
  exchange_.on_try_trailers(*this, std::move(trailers));
}

void UpstreamTry::on_reset(ResetReason reason, std::string_view detail) {
  exchange_.on_try_reset(*this, reason, detail);
}

void UpstreamTry::on_writable() {
  if (!blocked_) return;
  blocked_ = false;
  exchange_.note_activity();
  exchange_.update_reading();
}

}  // namespace edgemesh::proxy
