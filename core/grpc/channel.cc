#include "core/grpc/channel.h"

#include <utility>
#include <vector>

#include "core/base/net_addr.h"
#include "core/grpc/connection.h"

namespace edgemesh::grpc {

namespace {

std::string framed(std::string_view message) {
  std::string out(5, '\0');
  for (size_t i = 0; i < 4; ++i) out[4 - i] = static_cast<char>(message.size() >> (8 * i));
  out.append(message);
  return out;
}

// Lives as long as a callback of its runs, beyond its Channel.
class Core final : public std::enable_shared_from_this<Core>, private Connection::Owner {
 public:
  Core(io::Loop& loop, ChannelOptions options) : loop_(loop), options_(std::move(options)) {}
  ~Core() override { close(); }

  void start(const CallPtr& call, Duration timeout);
  void cancel(const CallPtr& call);
  void close();

 private:
  Result<> submit(const CallPtr& call);
  void fail_call(const CallPtr& call, Error error);
  void late(const CallPtr& call);
  void queue(const CallPtr& call);
  void dispatch();
  void tell(const CallPtr& call);
  bool mute(const CallPtr& call) const { return closed_ || call->abandoned; }
  void on_messages(const CallPtr& call) override { queue(call); }
  void on_ended(const CallPtr& call) override { queue(call); }
  void on_refused(const CallPtr& call) override;

  io::Loop& loop_;
  ChannelOptions options_;
  std::shared_ptr<Connection> current_;
  std::vector<std::shared_ptr<Connection>> draining_;  // after GOAWAY, with open calls
  std::vector<CallPtr> ready_;
  size_t open_ = 0;  // calls that were started and not told their end
  bool scheduled_ = false;
  bool closed_ = false;
};

void Core::start(const CallPtr& call, Duration timeout) {
  ++open_;
  if (call->out.size() > options_.max_message + 5) {
    return fail_call(call,
                     {ErrorCode::kResourceExhausted,
                      fmt::format("the request is larger than {} bytes", options_.max_message), 0});
  }
  if (open_ > options_.max_calls)
    return fail_call(call, {ErrorCode::kResourceExhausted,
                            fmt::format("{} calls are open already", options_.max_calls), 0});
  if (timeout > Duration::zero()) {
    call->deadline = loop_.clock().now() + timeout;
    call->timer = std::make_unique<io::Timer>(loop_, [this, weak = std::weak_ptr(call)] {
      if (auto held = weak.lock()) late(held);
    });
    call->timer->start_at(call->deadline);
  }
  if (auto sent = submit(call); !sent) fail_call(call, sent.error());
}

Result<> Core::submit(const CallPtr& call) {
  std::erase_if(draining_, [](const auto& old) { return old->closed(); });
  if (current_ && !current_->takes_calls()) {
    if (!current_->closed()) draining_.push_back(current_);
    current_ = nullptr;
  }
  if (!current_) {
    auto opened = Connection::open(loop_, options_, this);
    // Not the code of the errno: a socket that is not there would read like NOT_FOUND of the
    // server.
    if (!opened)
      return fail(Error{ErrorCode::kUnavailable, opened.error().message, opened.error().sys});
    current_ = std::move(*opened);
  }
  return current_->submit(call);
}

void Core::fail_call(const CallPtr& call, Error error) {
  if (call->ended) return;
  call->ended = true;
  call->result = fail(std::move(error));
  queue(call);
}

void Core::late(const CallPtr& call) {
  if (call->ended) return;
  if (auto connection = call->connection.lock(); connection && !connection->closed())
    connection->give_up(call, ErrorCode::kTimeout, "no answer in time");
  else
    fail_call(call, {ErrorCode::kTimeout, "no answer in time", 0});
}

void Core::cancel(const CallPtr& call) {
  call->abandoned = true;
  if (auto connection = call->connection.lock(); connection && !connection->closed())
    connection->give_up(call, ErrorCode::kCancelled, "cancelled");
  else
    fail_call(call, {ErrorCode::kCancelled, "cancelled", 0});
}

void Core::on_refused(const CallPtr& call) {
  if (std::exchange(call->retried, true))
    return fail_call(call, {ErrorCode::kUnavailable, "the server takes no calls", 0});
  call->resubmit = true;
  queue(call);
}

void Core::queue(const CallPtr& call) {
  if (!std::exchange(call->queued, true)) ready_.push_back(call);
  if (std::exchange(scheduled_, true)) return;
  loop_.defer([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->dispatch();
  });
}

void Core::dispatch() {
  scheduled_ = false;
  auto ready = std::exchange(ready_, {});
  for (const CallPtr& call : ready) {
    call->queued = false;
    if (closed_) return;
    if (std::exchange(call->resubmit, false) && !call->ended) {
      call->out_at = 0;
      if (auto sent = submit(call); !sent) fail_call(call, sent.error());
    } else {
      tell(call);
    }
  }
}

void Core::tell(const CallPtr& call) {
  if (call->stream) {
    for (std::string& message : std::exchange(call->messages, {})) {
      if (!mute(call)) call->on_message(std::move(message));
    }
  }
  if (!call->ended || closed_) return;
  if (!call->done && !call->on_end) return;  // told already
  --open_;
  call->timer.reset();
  auto done = std::exchange(call->done, nullptr);
  auto on_end = std::exchange(call->on_end, nullptr);
  auto on_message = std::exchange(call->on_message, nullptr);  // it may own what owns the call
  if (call->abandoned) return;
  Result<> result = std::move(call->result);
  if (!result) result = fail(result.error().with_context(options_.target));
  if (on_end) return on_end(std::move(result));
  if (result)
    done(std::move(call->messages.front()));
  else
    done(fail(result.error()));
}

void Core::close() {
  closed_ = true;
  if (current_) current_->detach();
  for (auto& old : draining_) old->detach();
  current_ = nullptr;
  draining_.clear();
}

class CallImpl final : public Call {
 public:
  CallImpl(const std::shared_ptr<Core>& core, CallPtr state)
      : core_(core), state_(std::move(state)) {}
  ~CallImpl() override {
    if (auto core = core_.lock()) core->cancel(state_);
  }

 private:
  std::weak_ptr<Core> core_;
  CallPtr state_;
};

class ChannelImpl final : public Channel {
 public:
  ChannelImpl(io::Loop& loop, ChannelOptions options)
      : core_(std::make_shared<Core>(loop, std::move(options))) {}
  ~ChannelImpl() override { core_->close(); }

  void unary(std::string_view method, std::string_view request, Duration timeout,
             Done done) override {
    auto call = std::make_shared<CallState>();
    call->method = method;
    call->out = framed(request);
    call->done = std::move(done);
    core_->start(call, timeout);
  }
  std::unique_ptr<Call> server_stream(std::string_view method, std::string_view request,
                                      OnMessage on_message, OnEnd on_end) override {
    auto call = std::make_shared<CallState>();
    call->stream = true;
    call->method = method;
    call->out = framed(request);
    call->on_message = std::move(on_message);
    call->on_end = std::move(on_end);
    core_->start(call, Duration::zero());
    return std::make_unique<CallImpl>(core_, call);
  }

 private:
  std::shared_ptr<Core> core_;
};

}  // namespace

Error error_of_status(int status, std::string message) {
  static constexpr ErrorCode kCodes[] = {
      ErrorCode::kInternal,          ErrorCode::kCancelled,
      ErrorCode::kUnavailable,       ErrorCode::kInvalidArgument,
      ErrorCode::kTimeout,           ErrorCode::kNotFound,
      ErrorCode::kAlreadyExists,     ErrorCode::kPermissionDenied,
      ErrorCode::kResourceExhausted, ErrorCode::kConflict,
      ErrorCode::kConflict,          ErrorCode::kInvalidArgument,
      ErrorCode::kProtocol,          ErrorCode::kUnavailable,
      ErrorCode::kUnavailable,       ErrorCode::kIo,
      ErrorCode::kUnauthenticated};
  if (message.empty()) message = fmt::format("gRPC status {}", status);
  if (status < 1 || status > 16) return {ErrorCode::kUnavailable, std::move(message), 0};
  return {kCodes[status], std::move(message), 0};
}

Result<std::unique_ptr<Channel>> Channel::create(io::Loop& loop, ChannelOptions options) {
  if (!options.target.starts_with("unix:///") && !options.target.starts_with("/"))
    EM_TRY_VOID(SockAddr::parse(options.target));
  return std::unique_ptr<Channel>(std::make_unique<ChannelImpl>(loop, std::move(options)));
}

}  // namespace edgemesh::grpc
