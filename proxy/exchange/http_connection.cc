#include "proxy/exchange/http_connection.h"

#include "proxy/exchange/cluster_telemetry.h"
#include "proxy/http/h1_server.h"
#include "proxy/http/h2_server.h"
#include "proxy/route/format.h"
#include "proxy/telemetry/response_flags.h"

namespace edgemesh::proxy {

namespace {

H1ServerOptions h1_options(const model::HttpChain& chain) {
  H1ServerOptions options;
  options.limits.max_head = chain.max_head_bytes;
  options.limits.max_fields = chain.max_fields;
  options.max_requests = chain.max_requests;
  options.head_timeout = chain.head_timeout;
  options.idle_timeout = chain.idle_timeout;
  options.body_timeout = chain.stream_idle_timeout;
  options.write_timeout = chain.stream_idle_timeout;
  return options;
}

H2ServerOptions h2_options(const model::HttpChain& chain) {
  H2ServerOptions options;
  options.limits.max_streams = chain.max_streams;
  options.limits.max_header_bytes = chain.max_head_bytes;
  options.limits.max_fields = chain.max_fields;
  options.limits.write_timeout = chain.stream_idle_timeout;
  options.max_requests = chain.max_requests;
  options.idle_timeout = chain.idle_timeout;
  options.head_timeout = chain.head_timeout;
  return options;
}

}  // namespace

void HttpConnection::start(L7Worker& worker, ChainSlotPtr slot, std::unique_ptr<io::Stream> stream,
                           ClientInfo client, bool http2, std::string_view initial,
                           io::Task on_closed) {
  auto* connection =
      new HttpConnection(worker, std::move(slot), std::move(client), std::move(on_closed));
  const bool draining = connection->slot_->draining;
  connection->make_codec(std::move(stream), http2, initial);
  if (draining) connection->drain(Drain::kPatient);
}

HttpConnection::HttpConnection(L7Worker& worker, ChainSlotPtr slot, ClientInfo client,
                               io::Task on_closed)
    : worker_(worker),
      slot_(std::move(slot)),
      client_(std::move(client)),
      on_closed_(std::move(on_closed)) {
  append_ip(client_.peer.ip, &peer_text_);
  worker_.connections().push_back(*this);
  worker_.stats().active_connections.up();
  if (WorkerTelemetry* telemetry = worker_.telemetry())
    stats_source_ = telemetry->source_of(client_.identity.get(), !is_inbound(**slot_->version));
  const Duration age = (*slot_->version)->spec->max_duration;
  if (age > Duration::zero()) {
    max_age_ = std::make_unique<io::Timer>(worker_.loop(), [this] { drain(); });
    max_age_->start(age);
  }
}

HttpConnection::~HttpConnection() {
  while (Exchange* exchange = exchanges_.front()) exchange->abort();
  codec_.reset();
  worker_.stats().active_connections.down();
  unlink();
  worker_.note_connection_gone();
  if (on_closed_) on_closed_();
}

void HttpConnection::make_codec(std::unique_ptr<io::Stream> stream, bool http2,
                                std::string_view initial) {
  const model::HttpChain& chain = *(*slot_->version)->spec;
  if (http2) {
    H2ServerPeer peer;
    peer.addr = client_.peer;
    peer.identity = client_.identity;
    peer.initial = initial;
    codec_ = make_h2_server(worker_.loop(), worker_.batch(), std::move(stream), h2_options(chain),
                            this, std::move(peer));
    return;
  }
  H1ServerPeer peer;
  peer.addr = client_.peer;
  peer.identity = client_.identity;
  peer.tls = client_.tls;
  peer.initial = initial;
  H1ServerOptions options = h1_options(chain);
  options.h2c_upgrade = chain.codec == model::HttpChain::Codec::kAuto;
  codec_ = make_h1_server(worker_.loop(), worker_.batch(), std::move(stream), options, this, peer);
}

void HttpConnection::close() {
  delete this;
}

TokenBucket* HttpConnection::own_bucket(const RateLimiter& limiter) {
  if (bucket_of_ != &limiter) {
    bucket_ = limiter.make_bucket();
    bucket_of_ = &limiter;
  }
  return bucket_.get();
}

void HttpConnection::on_request(StreamPtr stream, HeadPtr head, bool end) {
  slot_->stats->requests.add();
  Exchange* exchange = worker_.take_exchange();
  exchanges_.push_back(*exchange);
  exchange->begin(*this, std::move(stream), std::move(head), end);
}

void HttpConnection::on_bad_request(int status, std::string_view why) {
  slot_->stats->bad_requests.add();
  Exchange* open = exchanges_.front();
  if (open != nullptr && open->codec_answers(status)) return;  // it tells the rest
  slot_->stats->by_class[status / 100 % 6].add();
  if (worker_.telemetry() != nullptr) tell_bad_request(status, why);
}

void HttpConnection::on_h2c(std::unique_ptr<io::Stream> stream, HeadPtr first,
                            std::string_view settings, std::string_view ahead) {
  H2ServerPeer peer;
  peer.addr = client_.peer;
  peer.identity = client_.identity;
  peer.initial = ahead;
  peer.upgrade = std::move(first);
  peer.upgrade_settings = settings;
  const model::HttpChain& chain = *(*slot_->version)->spec;
  codec_ = make_h2_server(worker_.loop(), worker_.batch(), std::move(stream), h2_options(chain),
                          this, std::move(peer));
}

// There is no exchange for what cannot be read.
void HttpConnection::tell_bad_request(int status, std::string_view why) {
  WorkerTelemetry& telemetry = *worker_.telemetry();
  const HttpRuntime& runtime = **slot_->version;
  if (runtime.told.log != nullptr) {
    Facts facts;
    facts.peer = client_.peer;
    facts.local = client_.local;
    facts.client = client_.peer.ip;
    facts.server_name = client_.server_name;
    facts.identity = client_.identity.get();
    facts.tls = client_.tls;
    LogFacts log;
    log.facts = &facts;
    log.start = worker_.loop().clock().wall_now();
    log.duration_us = 0;
    log.status = status;
    log.response_flags = flags_text(flag::kDownstreamProtocol);
    log.details = log.connection_details = why;
    runtime.told.log->log(telemetry.lane(), log);
  }
  if (telemetry.requests() == nullptr) return;
  RequestRecord record;
  record.source = stats_source_;
  record.reporter = reporter_of(runtime);
  record.security = security_of(runtime, client_.identity.get());
  record.flags = flag::kDownstreamProtocol;
  record.status = status;
  telemetry.requests()->record(record);
  if (runtime.told.listener != nullptr)
    runtime.told.listener->record(telemetry.index(), TrafficScope::Finished{.status = status});
}

void HttpConnection::on_closed() {
  delete this;
}

}  // namespace edgemesh::proxy
