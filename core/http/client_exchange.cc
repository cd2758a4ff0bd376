#include <netdb.h>

#include <algorithm>

#include "core/http/client_impl.h"
#include "core/http/h1_chars.h"
#include "core/http/prefix_stream.h"
#include "core/io/tcp.h"
#include "core/tls/tls_stream.h"

namespace edgemesh::http {

using io::IoResult;

namespace {

H1Limits response_limits(const ClientOptions& options) {
  H1Limits limits;
  limits.max_head = options.max_head;
  limits.max_start_line = 4096;
  limits.max_fields = 256;
  return limits;
}

// Methods whose repetition does what one does (RFC 9110 9.2.2).
bool idempotent(std::string_view method) {
  for (std::string_view m : {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
    if (method == m) return true;
  return false;
}

// Blocking: runs on the loop's pool.
Result<std::vector<SockAddr>> look_up(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* list = nullptr;
  int rc = getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (rc != 0) return fail(ErrorCode::kUnavailable, "look up '{}': {}", host, gai_strerror(rc));
  std::vector<SockAddr> out;
  for (const addrinfo* at = list; at != nullptr && out.size() < 16; at = at->ai_next) {
    auto addr = SockAddr::from_sockaddr(at->ai_addr, at->ai_addrlen);
    if (!addr) continue;
    addr->port = port;
    out.push_back(*addr);
  }
  freeaddrinfo(list);
  if (out.empty()) return fail(ErrorCode::kUnavailable, "look up '{}': no address", host);
  return out;
}

}  // namespace

Exchange::Exchange(Client::Impl& owner, ClientRequest request)
    : owner_(owner),
      request_(std::move(request)),
      parser_(H1HeadParser::kResponse, owner.fields, response_limits(owner.options)),
      deadline_(owner.loop,
                [this] {
                  finish(fail(ErrorCode::kTimeout, "{}: no {} in time", where(),
                              phase_ == Phase::kConnecting ? "connection" : "answer"));
                }),
      connect_timer_(owner.loop, [this] {
        connection_failed(Error{ErrorCode::kTimeout, "no connection in time", 0});
      }) {}

Exchange::~Exchange() = default;

std::string Exchange::where() const {
  return fmt::format("{} {}://{}", request_.method, url_.scheme, url_.authority());
}

Result<> Exchange::prepare() {
  EM_TRY(url_, Url::parse(request_.url));
  if (request_.method.empty() || !all_of_class(request_.method, kToken))
    return fail(ErrorCode::kInvalidArgument, "'{}' is no HTTP method", request_.method);
  key_ = fmt::format("{}://{}:{} {}", url_.scheme, url_.host, url_.port, request_.server_name);
  out_ = request_.method + " " + url_.target + " HTTP/1.1\r\nHost: " + url_.authority() + "\r\n";
  for (const auto& [name, value] : request_.headers) {
    if (name.empty() || !all_of_class(name, kToken) || !all_of_class(value, kValue))
      return fail(ErrorCode::kInvalidArgument, "header '{}' has characters that are not allowed",
                  name);
    if (equals_ignore_case(name, "host") || equals_ignore_case(name, "content-length") ||
        equals_ignore_case(name, "transfer-encoding"))
      continue;
    if (equals_ignore_case(name, "connection") && mode != Mode::kUpgrade) continue;
    out_ += name;
    out_ += ": ";
    out_ += value;
    out_ += "\r\n";
  }
  if (!request_.body.empty() || request_.method == "POST" || request_.method == "PUT" ||
      request_.method == "PATCH")
    out_ += fmt::format("Content-Length: {}\r\n", request_.body.size());
  out_ += "\r\n";
  out_ += request_.body;
  return {};
}

void Exchange::start() {
  if (phase_ == Phase::kDone) return;
  if (auto ready = prepare(); !ready) return finish(fail(std::move(ready).error()));
  Duration limit = request_.timeout.value_or(owner_.options.request_timeout);
  if (limit > Duration::zero()) deadline_.start(limit);
  if (mode != Mode::kWhole || request_.insecure) return resolve();
  auto& pool = owner_.pools[key_];
  if (pool.active >= owner_.options.max_per_authority) {
    if (pool.waiting.size() >= owner_.options.max_waiting)
      return finish(fail(ErrorCode::kResourceExhausted, "{}: {} requests wait already", where(),
                         pool.waiting.size()));
    pool.waiting.push_back(weak_from_this());
    return;
  }
  ++pool.active;
  go_on();
}

void Exchange::go_on() {
  counted_ = true;
  if (phase_ == Phase::kDone) {
    counted_ = false;
    return owner_.release(key_);
  }
  if (auto stream = owner_.take_idle(key_)) return use(std::move(stream), true);
  resolve();
}

void Exchange::resolve() {
  phase_ = Phase::kConnecting;
  if (auto ip = IpAddr::parse(url_.host)) {
    addresses_ = {SockAddr{*ip, url_.port}};
    return connect_next();
  }
  auto found = std::make_shared<Result<std::vector<SockAddr>>>();
  owner_.loop.offload([found, host = url_.host, port = url_.port] { *found = look_up(host, port); },
                      [found, weak = weak_from_this()] {
                        auto self = weak.lock();
                        if (!self || self->phase_ == Phase::kDone) return;
                        if (!*found)
                          return self->finish(fail(found->error().with_context(self->where())));
                        self->addresses_ = std::move(**found);
                        self->connect_next();
                      });
}

Result<std::unique_ptr<io::Stream>> Exchange::open(const SockAddr& to) {
  io::ConnectOptions options;
  options.mark = owner_.options.mark;
  options.timeout = owner_.options.connect_timeout;
  EM_TRY(std::unique_ptr<io::Stream> stream, io::TcpStream::connect(owner_.loop, to, options));
  if (!url_.secure()) return stream;
  EM_TRY(auto context, owner_.tls_context());
  const std::string& name = request_.server_name.empty() ? url_.host : request_.server_name;
  EM_TRY(stream,
         tls::TlsStream::client(owner_.loop, std::move(stream), context, name, !request_.insecure));
  return stream;
}

void Exchange::connect_next() {
  while (next_address_ < addresses_.size()) {
    auto stream = open(addresses_[next_address_++]);
    if (stream) {
      connect_timer_.start(owner_.options.connect_timeout * (url_.secure() ? 2 : 1));
      return use(std::move(*stream), false);
    }
    last_error_ = stream.error();
  }
  finish(fail(last_error_.with_context(where())));
}

void Exchange::use(std::unique_ptr<io::Stream> stream, bool pooled) {
  stream_ = std::move(stream);
  stream_->set_handler(this);
  pooled_connection_ = connected_ = pooled;
  phase_ = pooled ? Phase::kHead : Phase::kConnecting;
  out_at_ = in_at_ = 0;
  in_.clear();
  any_input_ = eof_ = false;
  parser_.reset();
  parser_.answers(request_.method);
  send();
}

void Exchange::send() {
  while (stream_ && out_at_ < out_.size()) {
    IoResult r = stream_->write(io::as_bytes(std::string_view(out_).substr(out_at_)));
    if (r.status != IoResult::kOk) return;
    out_at_ += r.n;
  }
}

void Exchange::on_connected() {
  connected_ = true;
  connect_timer_.stop();
  phase_ = Phase::kHead;
  send();
}

void Exchange::on_readable() {
  auto self = shared_from_this();
  while (stream_ && !eof_ && !paused_ && phase_ != Phase::kDone) {
    IoResult r = stream_->read({owner_.loop.scratch(), io::Loop::kScratchBytes});
    if (r.status == IoResult::kWouldBlock || r.status == IoResult::kError) return;
    if (r.status == IoResult::kEof) {
      eof_ = true;
    } else {
      any_input_ = true;
      in_.append(io::as_text({owner_.loop.scratch(), r.n}));
    }
    process();
  }
}

void Exchange::resume() {
  if (!paused_) return;
  paused_ = false;
  // What is buffered comes from a deferred task, not from within the caller.
  owner_.loop.defer([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self || self->paused_) return;
    self->process();
    self->on_readable();
  });
}

void Exchange::consume(size_t n) {
  in_at_ += n;
  if (in_at_ == in_.size()) {
    in_.clear();
    in_at_ = 0;
  }
}

void Exchange::process() {
  if (processing_) return;
  auto self = shared_from_this();
  processing_ = true;
  bool more = true;
  while (more && !paused_ && (phase_ == Phase::kHead || phase_ == Phase::kBody))
    more = phase_ == Phase::kHead ? process_head() : process_body();
  processing_ = false;
  if (eof_ && !paused_ && phase_ != Phase::kDone) end_of_input();
}

bool Exchange::process_head() {
  H1Head head;
  size_t consumed = 0;
  H1Status status =
      input().empty() ? H1Status::kIncomplete : parser_.parse(input(), &head, &consumed);
  if (status == H1Status::kIncomplete) return false;
  if (status == H1Status::kError) {
    finish(fail(ErrorCode::kProtocol, "{}: bad answer: {}", where(), parser_.error().text));
    return false;
  }
  if (head.status >= 100 && head.status < 200 && head.status != 101) {  // interim
    consume(consumed);
    parser_.reset();
    return true;
  }
  take_head(head);
  consume(consumed);
  if (head.status == 101) {
    if (mode == Mode::kUpgrade)
      deliver_upgrade();
    else
      finish(fail(ErrorCode::kProtocol, "{}: status 101 without a request for it", where()));
    return false;
  }
  if (mode == Mode::kStream) {
    deadline_.stop();  // it bounds the time to the head only
    if (on_stream.on_head) on_stream.on_head(response_);
  }
  return true;
}

void Exchange::take_head(const H1Head& head) {
  phase_ = Phase::kBody;
  response_.status = head.status;
  for (const FieldView& field : head.fields) response_.headers.add(field.name, field.value);
  keep_alive_ = head.keep_alive;
  body_ =
      H1BodyDecoder(head.body, head.content_length, owner_.fields, response_limits(owner_.options));
}

bool Exchange::process_body() {
  size_t n = 0;
  std::string_view data;
  auto event = body_.next(input(), &n, &data);
  switch (event) {
    case H1BodyDecoder::kData:
      if (mode == Mode::kStream) {
        if (on_stream.on_data) on_stream.on_data(data);
        if (phase_ == Phase::kDone) return false;
      } else {
        size_t limit = mode == Mode::kUpgrade ? 4096 : owner_.options.max_body;
        if (response_.body.size() + data.size() > limit) {
          finish(fail(ErrorCode::kResourceExhausted, "{}: the answer has more than {} bytes",
                      where(), limit));
          return false;
        }
        response_.body.append(data);
      }
      consume(n);
      return true;
    case H1BodyDecoder::kEnd:
      consume(n);
      complete();
      return false;
    case H1BodyDecoder::kError:
      finish(fail(ErrorCode::kProtocol, "{}: bad answer: {}", where(), body_.error().text));
      return false;
    case H1BodyDecoder::kNeedMore: consume(n); return false;
  }
  return false;
}

void Exchange::end_of_input() {
  if (phase_ == Phase::kBody && body_.at_end_of_input()) return complete();
  connection_failed(Error{ErrorCode::kConnectionReset,
                          "the server closed the connection before its answer was whole", 0});
}

void Exchange::on_error(const Error& error) {
  connection_failed(error);
}

void Exchange::connection_failed(const Error& error) {
  connect_timer_.stop();
  if (phase_ == Phase::kDone) return;
  last_error_ = error;
  auto dead = std::shared_ptr<io::Stream>(std::move(stream_));
  if (dead) {
    dead->set_handler(nullptr);
    dead->reset();
    owner_.loop.defer([dead] {});
  }
  // Nothing of it reached an application: the next address may.
  if (!connected_ && phase_ == Phase::kConnecting) return connect_next();
  if (pooled_connection_ && !any_input_ && !retried_ && idempotent(request_.method)) {
    retried_ = true;
    next_address_ = 0;
    return resolve();
  }
  finish(fail(error.with_context(where())));
}

void Exchange::deliver_upgrade() {
  Upgraded out;
  out.head = std::move(response_);
  if (auto* tls = dynamic_cast<tls::TlsStream*>(stream_.get())) out.peer = tls->shared_peer();
  auto stream = std::move(stream_);
  stream->set_handler(nullptr);
  out.stream = std::make_unique<PrefixStream>(owner_.loop, std::move(stream), std::string(input()),
                                              std::string());
  auto callback = std::move(on_upgraded);
  auto self = shared_from_this();
  cancel();
  if (callback) callback(std::move(out));
}

void Exchange::complete() {
  bool sent = out_at_ == out_.size();
  bool reusable =
      keep_alive_ && sent && !eof_ && input().empty() && mode == Mode::kWhole && !request_.insecure;
  // Read up to "would block": only then the stream tells its next user about more. Anything else
  // behind the answer is nothing that was asked for.
  uint8_t byte = 0;
  if (reusable && stream_->read({&byte, 1}).status == IoResult::kWouldBlock) {
    stream_->set_handler(nullptr);
    owner_.give_back(key_, std::move(stream_));
  }
  finish({});
}

// The first line of an answer's body, for a person: ": reason", or nothing.
static std::string why_not(std::string_view body) {
  constexpr size_t kMaxReason = 300;
  std::string out;
  for (char c : body.substr(0, kMaxReason)) {
    if (c < ' ' || c > '~') break;
    out += c;
  }
  return out.empty() ? out : ": " + out;
}

void Exchange::finish(Result<> result) {
  if (phase_ == Phase::kDone) return;
  auto self = shared_from_this();
  auto whole = std::move(on_whole);
  auto on_end = std::move(on_stream.on_end);
  auto upgraded = std::move(on_upgraded);
  Response response = std::move(response_);
  if (result && stream_) stream_->shutdown_write();
  cancel();
  if (mode == Mode::kStream) {
    if (on_end) on_end(std::move(result));
  } else if (mode == Mode::kWhole) {
    if (!whole) return;
    if (result)
      whole(std::move(response));
    else
      whole(fail(std::move(result).error()));
  } else if (upgraded) {
    if (result)
      upgraded(fail(ErrorCode::kProtocol, "{}: the server answered {} {}, not 101{}", where(),
                    response.status, reason_phrase(response.status), why_not(response.body)));
    else
      upgraded(fail(std::move(result).error()));
  }
}

void Exchange::cancel() {
  if (phase_ == Phase::kDone) return;
  phase_ = Phase::kDone;
  deadline_.stop();
  connect_timer_.stop();
  if (stream_) {
    stream_->set_handler(nullptr);
    owner_.loop.defer([dead = std::shared_ptr<io::Stream>(std::move(stream_))] {});
  }
  if (counted_) {
    counted_ = false;
    owner_.release(key_);
  }
  // Callbacks may be running: they are destroyed with the exchange, in a deferred task.
  owner_.forget(this);
}

}  // namespace edgemesh::http
