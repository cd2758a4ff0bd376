#include "core/http/forward.h"

#include <array>
#include <optional>

#include "core/http/h1_chars.h"
#include "core/http/h1_parser.h"
#include "core/http/prefix_stream.h"
#include "core/io/stream_pair.h"

namespace edgemesh::http {
namespace {

using io::IoResult;

constexpr size_t kReadBytes = 64 << 10;
constexpr int kReadsATurn = 16;

Response plain_failure(const Error& error) {
  return {502, {{"Content-Type", "text/plain"}}, error.message + "\n"};
}

std::string encode(const ForwardRequest& request) {
  std::string out = request.method + " " + request.target + " HTTP/1.1\r\nHost: " + request.host;
  out += "\r\n";
  for (const auto& [name, value] : request.headers) {
    if (name.empty() || !all_of_class(name, kToken) || !all_of_class(value, kValue)) continue;
    out += name + ": " + value + "\r\n";
  }
  if (!request.headers.has("connection")) out += "Connection: close\r\n";
  if (!request.body.empty() || request.method != "GET")
    out += fmt::format("Content-Length: {}\r\n", request.body.size());
  return out + "\r\n" + request.body;
}

class ForwardImpl final : public Forward, private io::Stream::Handler {
 public:
  ForwardImpl(io::Loop& loop, const ForwardRequest& request, std::unique_ptr<io::Stream> stream,
              std::shared_ptr<ResponseWriter> writer, ForwardOptions options, Done done)
      : loop_(loop),
        options_(std::move(options)),
        stream_(std::move(stream)),
        writer_(std::move(writer)),
        done_(std::move(done)),
        out_(encode(request)),
        parser_(H1HeadParser::kResponse, fields_, limits(options_)),
        timer_(loop, [this] { on_time(); }) {
    parser_.answers(request.method);
    stream_->set_handler(this);
    timer_.start(options_.answer_timeout);
    writer_->on_close([this, alive = alive_] {
      if (*alive) end(fail(ErrorCode::kCancelled, "the client went away"));
    });
    loop_.defer([this, alive = alive_] {
      if (*alive) send();
    });
  }
  ~ForwardImpl() override { *alive_ = false; }

 private:
  static H1Limits limits(const ForwardOptions& options) {
    H1Limits out;
    out.max_head = static_cast<uint32_t>(options.max_head);
    out.max_fields = static_cast<uint32_t>(std::tuple_size_v<decltype(fields_)>);
    return out;
  }

  void on_connected() override { send(); }
  void on_writable() override { send(); }
  void on_readable() override { read(); }
  void on_error(const Error& error) override { fail_with(error); }

  void on_time();
  void send();
  void read();
  void process();
  bool process_head();
  bool process_body();
  void upgrade(Headers headers);
  void input_ended();
  void fail_with(const Error& error);
  void end(Result<> result);

  io::Loop& loop_;
  ForwardOptions options_;
  std::unique_ptr<io::Stream> stream_;
  std::shared_ptr<ResponseWriter> writer_;
  Done done_;
  std::string out_, in_;
  size_t out_at_ = 0;
  std::array<FieldView, 128> fields_;
  H1HeadParser parser_;
  std::optional<H1BodyDecoder> body_;  // the head was passed on
  io::Timer timer_;
  TimePoint last_heard_;
  bool paused_ = false;
  bool eof_ = false;
  std::unique_ptr<io::StreamPair> pair_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

void ForwardImpl::on_time() {
  if (!body_) return fail_with({ErrorCode::kTimeout, "no answer in time", 0});
  const Duration quiet = loop_.now() - last_heard_;
  if (quiet >= options_.idle_timeout)
    return fail_with({ErrorCode::kTimeout, "idle for too long", 0});
  timer_.start(options_.idle_timeout - quiet);
}

void ForwardImpl::send() {
  while (stream_ && out_at_ < out_.size()) {
    const IoResult r = stream_->write(io::as_bytes(std::string_view(out_).substr(out_at_)));
    if (r.status != IoResult::kOk) return;
    out_at_ += r.n;
  }
}

void ForwardImpl::read() {
  const auto alive = alive_;
  for (int i = 0; i < kReadsATurn; ++i) {
    if (!stream_ || paused_ || eof_) return;
    const IoResult r = stream_->read({loop_.scratch(), kReadBytes});
    if (r.status == IoResult::kWouldBlock || r.status == IoResult::kError) return;
    last_heard_ = loop_.now();
    if (r.status == IoResult::kEof) eof_ = true;
    if (r.status == IoResult::kOk) in_.append(io::as_text({loop_.scratch(), r.n}));
    process();
    if (!*alive) return;
  }
  loop_.post([this, alive] {
    if (*alive) read();
  });
}

void ForwardImpl::process() {
  const auto alive = alive_;
  bool more = true;
  while (*alive && more && done_ && !pair_ && !paused_)
    more = body_ ? process_body() : process_head();
  if (*alive && done_ && !pair_ && !paused_ && eof_) input_ended();
}

bool ForwardImpl::process_head() {
  H1Head head;
  size_t consumed = 0;
  if (in_.empty()) return false;
  const H1Status status = parser_.parse(in_, &head, &consumed);
  if (status == H1Status::kIncomplete) return false;
  if (status == H1Status::kError) {
    fail_with({ErrorCode::kProtocol, fmt::format("bad answer: {}", parser_.error().text), 0});
    return false;
  }
  Headers headers;
  for (const FieldView& field : head.fields) headers.add(field.name, field.value);
  const bool interim = head.status < 200 && head.status != 101;
  if (!interim && head.status != 101) {
    body_.emplace(head.body, head.content_length, fields_, limits(options_));
    headers = end_to_end(headers, false);
    if (head.body == BodyKind::kLength)
      headers.set("Content-Length", std::to_string(head.content_length));
    writer_->start(head.status, std::move(headers));
    last_heard_ = loop_.now();
    timer_.start(options_.idle_timeout);
  }
  in_.erase(0, consumed);
  if (interim) parser_.reset();
  if (head.status != 101) return true;
  upgrade(end_to_end(headers, true));
  return false;
}

bool ForwardImpl::process_body() {
  size_t used = 0;
  std::string_view data;
  const auto event = body_->next(in_, &used, &data);
  if (event == H1BodyDecoder::kData && !writer_->write(data) && !writer_->closed()) {
    paused_ = true;
    writer_->on_drain([this, alive = alive_] {
      if (!*alive) return;
      paused_ = false;
      process();
      if (*alive) read();
    });
  }
  in_.erase(0, used);
  if (event == H1BodyDecoder::kData) return true;
  if (event == H1BodyDecoder::kEnd) {
    writer_->end();
    end({});
  } else if (event == H1BodyDecoder::kError) {
    fail_with({ErrorCode::kProtocol, fmt::format("bad answer: {}", body_->error().text), 0});
  }
  return false;
}

void ForwardImpl::upgrade(Headers headers) {
  auto client = writer_->upgrade(std::move(headers));
  if (!client) return end(fail(std::move(client).error()));
  timer_.stop();
  stream_->set_handler(nullptr);
  std::unique_ptr<io::Stream> far = std::move(stream_);
  far = std::make_unique<PrefixStream>(loop_, std::move(far), std::move(in_), out_.substr(out_at_));
  io::StreamPair::Options options{options_.idle_timeout, options_.linger};
  pair_ = std::make_unique<io::StreamPair>(loop_, std::move(*client), std::move(far), options,
                                           [this](const Result<>& result) { end(result); });
}

void ForwardImpl::input_ended() {
  if (!body_ || !body_->at_end_of_input())
    return fail_with(
        {ErrorCode::kConnectionReset, "the connection ended before the answer did", 0});
  writer_->end();
  end({});
}

// Before the head the client is told; in the midst of the body it sees that the end is missing.
void ForwardImpl::fail_with(const Error& error) {
  if (!done_) return;
  if (!body_ && !pair_)
    writer_->respond(options_.failure ? options_.failure(error) : plain_failure(error));
  end(fail(error));
}

void ForwardImpl::end(Result<> result) {
  if (!done_) return;
  timer_.stop();
  if (stream_) {
    if (!result) stream_->reset();
    stream_->set_handler(nullptr);
  }
  writer_->on_close(nullptr);
  writer_.reset();
  // Not from here: the streams' and the writer's code is on the stack.
  loop_.defer([alive = alive_, result = std::move(result), done = std::move(done_)] {
    if (*alive) done(result);
  });
  done_ = nullptr;
}

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> list) {
  for (std::string_view item : list)
    if (equals_ignore_case(name, item)) return true;
  return false;
}

}  // namespace

std::unique_ptr<Forward> Forward::start(io::Loop& loop, ForwardRequest request,
                                        std::unique_ptr<io::Stream> stream,
                                        std::shared_ptr<ResponseWriter> writer,
                                        ForwardOptions options, Done done) {
  return std::make_unique<ForwardImpl>(loop, request, std::move(stream), std::move(writer),
                                       std::move(options), std::move(done));
}

Headers Forward::end_to_end(const Headers& headers, bool upgrade) {
  Headers out;
  for (const auto& [name, value] : headers) {
    if (is_one_of(name, {"host", "content-length", "transfer-encoding", "te", "trailer", "date",
                         "keep-alive", "proxy-connection", "expect", "cookie", "authorization",
                         "proxy-authorization", "origin", "accept-encoding"}))
      continue;
    const bool of_upgrade = is_one_of(name, {"connection", "upgrade"});
    if (of_upgrade && !upgrade) continue;
    out.add(name, of_upgrade && equals_ignore_case(name, "connection") ? "Upgrade" : value);
  }
  return out;
}

}  // namespace edgemesh::http
