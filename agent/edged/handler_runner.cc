#include "agent/edged/handler_runner.h"

#include <charconv>

#include "core/grpc/channel.h"
#include "core/io/tcp.h"
#include "proto/health.pb.h"

namespace edgemesh::edged {
namespace {

constexpr Duration kHookTimeout = std::chrono::minutes(10);
constexpr size_t kMaxOutput = 1024;  // of a command, in the message of its failure
constexpr size_t kMaxBody = 10 << 10;

// A number, or the name of one of the container's ports. 0: neither.
uint16_t port_of(const std::string& port, const Container* container) {
  uint16_t number = 0;
  const char* end = port.data() + port.size();
  if (const auto [at, error] = std::from_chars(port.data(), end, number);
      error == std::errc() && at == end)
    return number;
  if (container == nullptr) return 0;
  for (const auto& p : container->ports) {
    if (p.name == port) return static_cast<uint16_t>(p.container_port);
  }
  return 0;
}

// One connection that is closed as soon as it stands.
struct TcpTry final : io::Stream::Handler {
  std::unique_ptr<io::TcpStream> stream;
  HandlerRunner::Done done;
  io::Loop* loop = nullptr;
  std::shared_ptr<TcpTry> self;  // until the answer

  void finish(Result<> result) {
    auto last = std::move(self);
    if (!last) return;
    stream.reset();
    done(std::move(result));
  }
  void on_connected() override { finish({}); }
  void on_readable() override {}
  void on_writable() override {}
  void on_error(const Error& error) override { finish(fail(error)); }
};

}  // namespace

HandlerRunner::HandlerRunner(io::Loop& loop, cri::RuntimeClient& runtime)
    : loop_(loop), runtime_(runtime), http_(loop, [] {
        http::ClientOptions options;
        options.max_body = kMaxBody;
        options.max_idle_per_authority = 0;  // each probe opens its own connection
        return options;
      }()) {}

HandlerRunner::~HandlerRunner() {
  *alive_ = false;
}

void HandlerRunner::later(Result<> result, Done done) {
  loop_.post([alive = alive_, result = std::move(result), done = std::move(done)]() mutable {
    if (*alive) done(std::move(result));
  });
}

void HandlerRunner::run(const Handler& handler, const HandlerTarget& target, Duration timeout,
                        Done done) {
  if (timeout <= Duration::zero()) timeout = kHookTimeout;
  if (handler.kind == Handler::Kind::kExec)
    return run_exec(handler, target, timeout, std::move(done));
  if (handler.kind == Handler::Kind::kSleep) {
    auto timer = std::make_shared<std::unique_ptr<io::Timer>>();
    *timer = std::make_unique<io::Timer>(loop_,
                                         [timer, alive = alive_, done = std::move(done)]() mutable {
                                           auto last = std::move(*timer);
                                           if (*alive) done({});
                                         });
    return (*timer)->start(std::min(handler.sleep, timeout));
  }
  if (handler.kind == Handler::Kind::kHttp)
    return run_http(handler, target, timeout, std::move(done));
  const std::string host = handler.host.empty() ? target.ip : handler.host;
  const auto ip = IpAddr::parse(host);
  const uint16_t port = port_of(handler.port, target.container);
  if (!ip || port == 0) {
    return later(
        fail(ErrorCode::kInvalidArgument, "{}:{} is no address to probe", host, handler.port),
        std::move(done));
  }
  if (handler.kind == Handler::Kind::kTcp) return run_tcp({*ip, port}, timeout, std::move(done));
  run_grpc(handler, {*ip, port}, timeout, std::move(done));
}

void HandlerRunner::run_exec(const Handler& handler, const HandlerTarget& target, Duration timeout,
                             Done done) {
  runtime_.exec_sync(
      target.container_id, handler.command, timeout,
      [alive = alive_, done = std::move(done)](Result<cri::pb::ExecSyncResponse> answer) {
        if (!*alive) return;
        if (!answer) return done(fail(answer.error()));
        if (answer->exit_code() == 0) return done({});
        std::string text = answer->stdout() + answer->stderr();
        if (text.size() > kMaxOutput) text.resize(kMaxOutput);
        done(
            fail(ErrorCode::kUnavailable, "command exited with {}: {}", answer->exit_code(), text));
      });
}

void HandlerRunner::run_http(const Handler& handler, const HandlerTarget& target, Duration timeout,
                             Done done) {
  const uint16_t port = port_of(handler.port, target.container);
  std::string host = handler.host.empty() ? target.ip : handler.host;
  if (port == 0 || host.empty()) {
    return later(
        fail(ErrorCode::kInvalidArgument, "{}:{} is no address to probe", host, handler.port),
        std::move(done));
  }
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  http::ClientRequest request;
  const bool tls = handler.scheme == "HTTPS" || handler.scheme == "https";
  const std::string path =
      handler.path.empty() || handler.path.front() != '/' ? "/" + handler.path : handler.path;
  request.url = fmt::format("{}://{}:{}{}", tls ? "https" : "http", host, port, path);
  request.insecure = tls;  // a probe asks whether it lives, not who it is
  request.timeout = timeout;
  request.headers.set("User-Agent", "kube-probe/1.33");
  request.headers.set("Accept", "*/*");
  for (const auto& [name, value] : handler.headers) request.headers.add(name, value);
  // Only the head counts: a body of any size, or one that never ends, is no failure.
  struct Try {
    std::unique_ptr<http::Call> call;
    Done done;
  };
  auto attempt = std::make_shared<Try>();
  attempt->done = std::move(done);
  auto finish = [alive = alive_, attempt, &loop = loop_](Result<> result) {
    if (!attempt->call) return;
    loop.defer([call = std::move(attempt->call)] {});
    if (*alive) attempt->done(std::move(result));
  };
  http::StreamHandler on;
  on.on_head = [finish](const http::Response& head) {
    if (head.status >= 200 && head.status < 400) return finish({});
    finish(fail(ErrorCode::kUnavailable, "HTTP probe failed with statuscode: {}", head.status));
  };
  on.on_data = [](std::string_view) {};
  on.on_end = [finish](Result<> result) {
    if (!result) finish(fail(result.error()));
  };
  attempt->call = http_.stream(std::move(request), std::move(on));
}

void HandlerRunner::run_tcp(const SockAddr& to, Duration timeout, Done done) {
  auto attempt = std::make_shared<TcpTry>();
  io::ConnectOptions options;
  options.timeout = timeout;
  auto stream = io::TcpStream::connect(loop_, to, options);
  if (!stream) return later(fail(stream.error()), std::move(done));
  attempt->done = [alive = alive_, done = std::move(done)](Result<> result) {
    if (*alive) done(std::move(result));
  };
  attempt->stream = std::move(*stream);
  attempt->self = attempt;
  attempt->stream->set_handler(attempt.get());
}

void HandlerRunner::run_grpc(const Handler& handler, const SockAddr& to, Duration timeout,
                             Done done) {
  grpc::ChannelOptions options;
  options.target = to.to_string();
  options.connect_timeout = timeout;
  auto made = grpc::Channel::create(loop_, options);
  if (!made) return later(fail(made.error()), std::move(done));
  ::grpc::health::v1::HealthCheckRequest request;
  request.set_service(handler.service);
  std::shared_ptr<grpc::Channel> channel = std::move(*made);
  grpc::Channel& use = *channel;
  use.unary(
      "/grpc.health.v1.Health/Check", request.SerializeAsString(), timeout,
      [&loop = loop_, channel = std::move(channel), alive = alive_,
       done = std::move(done)](Result<std::string> answer) mutable {
        loop.defer([channel = std::move(channel)] {});
        if (!*alive) return;
        if (!answer) return done(fail(answer.error()));
        ::grpc::health::v1::HealthCheckResponse health;
        if (!health.ParseFromString(*answer))
          return done(fail(ErrorCode::kProtocol, "the answer is no health status"));
        if (health.status() == ::grpc::health::v1::HealthCheckResponse::SERVING) return done({});
        done(fail(ErrorCode::kUnavailable, "service unhealthy (responded with \"{}\")",
                  ::grpc::health::v1::HealthCheckResponse::ServingStatus_Name(health.status())));
      });
}

}  // namespace edgemesh::edged
