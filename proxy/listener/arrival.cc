#include "proxy/listener/arrival.h"

#include <algorithm>
#include <utility>

#include "core/base/log.h"
#include "proxy/listener/chain_match.h"
#include "proxy/listener/prefixed_stream.h"
#include "proxy/listener/tcp_connection.h"

namespace edgemesh::proxy {

void Arrival::start(WorkerListener& listener, std::unique_ptr<io::Stream> stream,
                    const SockAddr& peer, const SockAddr& local) {
  auto* arrival = new Arrival(listener, std::move(stream), peer, local);
  arrival->go_on();
}

Arrival::Arrival(WorkerListener& listener, std::unique_ptr<io::Stream> stream,
                 const SockAddr& peer, const SockAddr& local)
    : listener_(listener),
      runtime_(listener.runtime_ptr()),
      stream_(std::move(stream)),
      direct_(peer),
      timer_(listener.worker().l7.loop(), [this] { on_timeout(); }) {
  client_.peer = peer;
  client_.local = local;
  stream_->set_handler(this);
  listener.arrivals().push_back(*this);
  using ProxyProtocol = model::Listener::ProxyProtocol;
  if (runtime_->spec->proxy_protocol != ProxyProtocol::kOff) step_ = Step::kProxyHeader;
  wait_for(runtime_->spec->sniff_timeout);
}

void Arrival::close() {
  listener_.note_gone();
  delete this;
}

void Arrival::refuse() {
  listener_.stats().refused.add();
  close();
}

void Arrival::on_connected() {
  if (step_ == Step::kHandshake) after_tls();
}

void Arrival::on_readable() {
  if (step_ == Step::kHandshake) return;  // TLS reads for itself
  if (fill()) go_on();
}

void Arrival::on_error(const Error& error) {
  if (step_ == Step::kHandshake) {
    listener_.stats().tls_errors.add();
    EM_LOG(kDebug, "proxy", "TLS with {}: {}", client_.peer.to_string(), error.message);
  }
  close();
}

void Arrival::on_timeout() {
  if (step_ == Step::kHandshake || step_ == Step::kProxyHeader ||
      (step_ == Step::kInspect && !runtime_->spec->go_on_after_sniff_timeout))
    return refuse();
  timed_out_ = true;
  go_on();
}

void Arrival::wait_for(Duration limit) {
  if (limit > Duration::zero())
    timer_.start(limit);
  else
    timer_.stop();
}

// Reads until it would block: only then the stream says that there is more, to whoever has it next.
// False: the arrival is over.
bool Arrival::fill() {
  auto& loop = listener_.worker().l7.loop();
  while (buffer_.size() < kMaxPeek) {
    const size_t room = std::min(kMaxPeek - buffer_.size(), size_t{16} * 1024);
    const io::IoResult got = stream_->read({loop.scratch(), room});
    if (got.status == io::IoResult::kWouldBlock) return true;
    if (got.status == io::IoResult::kError) {
      close();
      return false;
    }
    if (got.status == io::IoResult::kEof) {
      eof_ = true;
      if (buffer_.empty()) {
        close();
        return false;
      }
      return true;
    }
    buffer_.append(io::as_text({loop.scratch(), got.n}));
  }
  return true;
}

void Arrival::go_on() {
  if (step_ == Step::kProxyHeader && !read_proxy_header()) return;
  if (step_ == Step::kInspect) {
    if (!inspect()) return;
    return choose_chain();
  }
  if (step_ == Step::kCodec) choose_codec();
}

bool Arrival::read_proxy_header() {
  ProxyHeader header;
  const Peek peek = peek_proxy_header(io::as_bytes(buffer_), &header);
  using ProxyProtocol = model::Listener::ProxyProtocol;
  if (peek == Peek::kMore && !eof_) return false;
  if (peek == Peek::kYes) {
    if (!header.local) {
      client_.peer = header.source;
      client_.local = header.destination;
    }
    buffer_.erase(0, header.size);
  } else if (peek != Peek::kNo || runtime_->spec->proxy_protocol == ProxyProtocol::kRequired) {
    EM_LOG(kDebug, "proxy", "{} from {}: bad PROXY header: {}", runtime_->spec->name,
           direct_.to_string(), header.error);
    refuse();
    return false;
  }
  step_ = Step::kInspect;
  return true;
}

bool Arrival::inspects_here() const {
  for (const auto& [first, last] : runtime_->spec->no_inspection_ports)
    if (client_.local.port >= first && client_.local.port <= last) return false;
  return runtime_->inspect_tls || runtime_->inspect_http;
}

bool Arrival::inspect() {
  if (timed_out_ || !inspects_here()) return true;
  if (runtime_->inspect_tls) {
    std::vector<uint8_t> body;
    ClientHello hello;
    const Peek peek = peek_client_hello(io::as_bytes(buffer_), &body, &hello);
    if (peek == Peek::kMore && !eof_ && buffer_.size() < kMaxPeek) return false;
    if (peek == Peek::kYes) {
      saw_tls_ = true;
      client_.server_name = hello.server_name;
      for (const auto protocol : hello.alpn) protocols_.emplace_back(protocol);
      return true;
    }
  }
  if (runtime_->inspect_http) {
    int version = 0;
    const Peek peek = peek_http(io::as_bytes(buffer_), &version);
    if (peek == Peek::kMore && !eof_ && buffer_.size() < kMaxPeek) return false;
    if (peek == Peek::kYes)
      protocols_.emplace_back(version == 20 ? "h2c" : version == 11 ? "http/1.1" : "http/1.0");
  }
  return true;
}

void Arrival::choose_chain() {
  std::vector<std::string_view> protocols(protocols_.begin(), protocols_.end());
  const ChainFacts facts{client_.peer,        direct_,  client_.local,
                         client_.server_name, saw_tls_, protocols};
  const int index = match_chain(runtime_->spec->chains, facts);
  if (index >= 0)
    chain_ = &runtime_->chains[static_cast<size_t>(index)];
  else if (runtime_->fallback.chain != nullptr)
    chain_ = &runtime_->fallback;
  if (chain_ == nullptr) return refuse();
  if (chain_->tls != nullptr) return begin_tls();
  if (chain_->http == nullptr) return start_tcp();
  step_ = Step::kCodec;
  // The wait for a request is the codec's business: its times count from here.
  wait_for(std::get<model::HttpChain>(chain_->chain->network).idle_timeout);
  choose_codec();
}

void Arrival::begin_tls() {
  auto below = std::move(stream_);
  if (!buffer_.empty()) below = std::make_unique<PrefixedStream>(std::move(below), std::move(buffer_));
  buffer_.clear();
  auto tls = tls::TlsStream::server(listener_.worker().l7.loop(), std::move(below),
                                    chain_->tls->choose(client_.server_name));
  if (!tls) return refuse();
  tls_ = tls->get();
  stream_ = std::move(*tls);
  stream_->set_handler(this);
  step_ = Step::kHandshake;
  timer_.stop();  // the handshake has a time of its own
}

void Arrival::after_tls() {
  if (!chain_->tls->takes(tls_->peer())) {
    listener_.stats().tls_errors.add();
    return refuse();
  }
  client_.tls = true;
  client_.identity = tls_->shared_peer();
  client_.server_name = tls_->server_name();
  if (chain_->http == nullptr) return start_tcp();
  const auto& spec = std::get<model::HttpChain>(chain_->chain->network);
  using Codec = model::HttpChain::Codec;
  if (spec.codec == Codec::kHttp2 || (spec.codec == Codec::kAuto && tls_->alpn() == "h2"))
    return start_http(true);
  if (spec.codec == Codec::kHttp1 || !tls_->alpn().empty()) return start_http(false);
  step_ = Step::kCodec;
  wait_for(spec.idle_timeout);
  choose_codec();
}

// Cleartext, and TLS without ALPN: the preface of HTTP/2 tells it from HTTP/1.
void Arrival::choose_codec() {
  const auto& spec = std::get<model::HttpChain>(chain_->chain->network);
  using Codec = model::HttpChain::Codec;
  if (spec.codec != Codec::kAuto) return start_http(spec.codec == Codec::kHttp2);
  if (timed_out_ && (buffer_.empty() || waits_for_head_)) return close();
  if (buffer_.empty() && !eof_ && !fill()) return;
  int version = 0;
  const Peek peek = peek_http(io::as_bytes(buffer_), &version);
  if (peek == Peek::kMore && !eof_ && !timed_out_) {
    // A preface that comes in pieces is rare; what cannot become one is HTTP/1's to answer.
    constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const size_t n = std::min(buffer_.size(), kPreface.size());
    if (buffer_.empty()) return;
    if (std::string_view(buffer_).substr(0, n) == kPreface.substr(0, n)) {
      if (!std::exchange(waits_for_head_, true)) wait_for(spec.head_timeout);
      return;
    }
  }
  start_http(peek == Peek::kYes && version == 20);
}

void Arrival::start_http(bool http2) {
  WorkerListener& listener = listener_;
  auto slot = listener.slot(*chain_);
  auto stream = std::move(stream_);
  auto client = std::move(client_);
  const std::string initial = std::move(buffer_);
  auto runtime = std::move(runtime_);
  delete this;
  HttpConnection::start(listener.worker().l7, std::move(slot), std::move(stream),
                        std::move(client), http2, initial, [&listener] { listener.note_gone(); });
}

void Arrival::start_tcp() {
  TcpConnection::Start start;
  start.runtime = runtime_;
  start.chain = chain_;
  start.stream = std::move(stream_);
  start.client = std::move(client_);
  start.early = std::move(buffer_);
  WorkerListener& listener = listener_;
  delete this;
  TcpConnection::start(listener, std::move(start));
}

}  // namespace edgemesh::proxy
