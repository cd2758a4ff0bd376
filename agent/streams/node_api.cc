#include "agent/streams/node_api.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "agent/edged/spec/labels.h"
#include "agent/streams/log_stream.h"
#include "agent/streams/stats.h"
#include "core/base/log.h"
#include "core/http/forward.h"
#include "core/io/tcp.h"

namespace edgemesh::streams {
namespace {

using nlohmann::json;
using Writer = std::shared_ptr<http::ResponseWriter>;
using Containers = std::vector<cri::pb::Container>;  // of one pod and name, the newest first

// A Status object of Kubernetes' API.
http::Response status_answer(int code, const char* reason, const std::string& message) {
  const json out{{"kind", "Status"},    {"apiVersion", "v1"}, {"metadata", json::object()},
                 {"status", "Failure"}, {"message", message}, {"reason", reason},
                 {"code", code}};
  return {code,
          {{"Content-Type", "application/json"}},
          out.dump(-1, ' ', false, json::error_handler_t::replace)};
}

http::Response bad_request(const std::string& message) {
  return status_answer(400, "BadRequest", message);
}

http::Response error_answer(const Error& error) {
  if (error.code == ErrorCode::kNotFound) return status_answer(404, "NotFound", error.message);
  if (error.code == ErrorCode::kTimeout) return status_answer(504, "Timeout", error.message);
  return status_answer(500, "InternalError", error.message);
}

bool flag(const http::Request& request, const char* name) {
  const auto value = request.query(name);
  return value && (*value == "1" || *value == "true");
}

// nullopt: it is not there. An error: no number.
Result<std::optional<int64_t>> number(const http::Request& request, const char* name) {
  const auto value = request.query(name);
  if (!value || value->empty()) return std::optional<int64_t>();
  int64_t out = 0;
  const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), out);
  if (error != std::errc() || end != value->data() + value->size() || out < 0)
    return fail(ErrorCode::kInvalidArgument, "{}: '{}' is no number from 0 on", name,
                value->substr(0, 40));
  return std::optional(out);
}

Result<LogStream::Options> log_options(const http::Request& request, int64_t now) {
  LogStream::Options out;
  out.follow = flag(request, "follow");
  out.log.timestamps = flag(request, "timestamps");
  EM_TRY(const auto tail, number(request, "tailLines"));
  EM_TRY(const auto limit, number(request, "limitBytes"));
  EM_TRY(const auto seconds, number(request, "sinceSeconds"));
  if (tail) out.log.tail = *tail;
  if (limit) out.log.limit_bytes = *limit;
  // A year is more than any log holds, and cannot overflow.
  if (seconds) out.log.since = now - std::min<int64_t>(*seconds, 366L * 86400) * 1'000'000'000;
  if (const auto since = request.query("sinceTime"); since && !since->empty()) {
    out.log.since = parse_time(*since);
    if (out.log.since < 0)
      return fail(ErrorCode::kInvalidArgument, "sinceTime: '{}' is no time", since->substr(0, 40));
  }
  const std::string stream = request.query("stream").value_or("All");
  out.log.with_stdout = stream != "Stderr";
  out.log.with_stderr = stream != "Stdout";
  return out;
}

std::vector<std::string> split_path(const http::Request& request) {
  std::vector<std::string> out;
  std::string_view rest = request.raw_path();
  while (!rest.empty()) {
    rest.remove_prefix(1);  // the slash
    const size_t slash = std::min(rest.find('/'), rest.size());
    out.push_back(http::percent_decode(rest.substr(0, slash)).value_or(""));
    rest.remove_prefix(slash);
  }
  return out;
}

std::string uid_of(const cri::pb::Container& container) {
  const auto it = container.labels().find(edged::kPodUidLabel);
  return it == container.labels().end() ? std::string() : it->second;
}

class NodeApiImpl final : public NodeApi {
 public:
  NodeApiImpl(io::Loop& loop, cri::RuntimeClient& runtime, NodeApiOptions options)
      : loop_(loop),
        runtime_(runtime),
        options_(std::move(options)),
        stats_(loop, runtime, options_.node, Stats::Options()) {}
  ~NodeApiImpl() override { *alive_ = false; }

  void handle(const http::Request& request, const Writer& writer) override;
  size_t streams() const override { return forwards_.size() + logs_.size(); }

 private:
  struct Target {
    std::string ns, pod, container;
  };
  using Found = UniqueFunction<void(Containers)>;

  // Answers errors of the runtime itself.
  void find(const Target& target, const Writer& writer, Found found);
  void logs(const http::Request& request, const Target& target, const Writer& writer);
  void show_log(const cri::pb::Container& container, const LogStream::Options& options,
                const Writer& writer);
  void exec(const http::Request& request, const Target& target, const Writer& writer);
  void attach(const http::Request& request, const Target& target, const Writer& writer);
  void port_forward(const http::Request& request, const Target& target, const Writer& writer);
  void stats(const Writer& writer);
  // The runtime's answer to Exec and the like: passes the request on to its streaming server.
  cri::Done<std::string> on_url(const http::Request& request, const Writer& writer);
  void relay(const std::string& url, const http::Request& request, const Writer& writer);

  io::Loop& loop_;
  cri::RuntimeClient& runtime_;
  NodeApiOptions options_;
  Stats stats_;
  uint64_t next_ = 1;
  std::unordered_map<uint64_t, std::unique_ptr<http::Forward>> forwards_;
  std::unordered_map<uint64_t, std::unique_ptr<LogStream>> logs_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

void NodeApiImpl::handle(const http::Request& request, const Writer& writer) {
  const std::vector<std::string> path = split_path(request);
  const std::string what = path.empty() ? "" : path[0];
  const bool get = request.method == "GET";
  if (what == "stats" && path.size() == 2 && path[1] == "summary" && get) return stats(writer);
  if (streams() >= options_.max_streams)
    return writer->respond(status_answer(429, "TooManyRequests", "too many streams are open"));
  if (what == "containerLogs" && path.size() == 4 && get)
    return logs(request, {path[1], path[2], path[3]}, writer);
  if (get || request.method == "POST") {
    if (what == "exec" && path.size() == 4)
      return exec(request, {path[1], path[2], path[3]}, writer);
    if (what == "attach" && path.size() == 4)
      return attach(request, {path[1], path[2], path[3]}, writer);
    if (what == "portForward" && path.size() == 3)
      return port_forward(request, {path[1], path[2], ""}, writer);
  }
  writer->respond(status_answer(404, "NotFound", "the node has no such path"));
}

void NodeApiImpl::find(const Target& target, const Writer& writer, Found found) {
  cri::pb::ContainerFilter filter;
  auto& labels = *filter.mutable_label_selector();
  labels[edged::kPodNamespaceLabel] = target.ns;
  labels[edged::kPodNameLabel] = target.pod;
  labels[edged::kContainerNameLabel] = target.container;
  runtime_.list_containers(filter, [alive = alive_, writer, found = std::move(found)](
                                       Result<cri::pb::ListContainersResponse> list) {
    if (!*alive) return;
    if (!list) return writer->respond(error_answer(list.error()));
    Containers all(list->containers().begin(), list->containers().end());
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
      return std::pair(a.created_at(), a.metadata().attempt()) >
             std::pair(b.created_at(), b.metadata().attempt());
    });
    // A pod of the same name that was there before is another pod.
    const std::string uid = all.empty() ? "" : uid_of(all.front());
    std::erase_if(all, [&](const auto& c) { return uid_of(c) != uid; });
    found(std::move(all));
  });
}

void NodeApiImpl::logs(const http::Request& request, const Target& target, const Writer& writer) {
  const int64_t now = std::chrono::duration_cast<std::chrono::nanoseconds>(
                          loop_.clock().wall_now().time_since_epoch())
                          .count();
  const auto options = log_options(request, now);
  if (!options) return writer->respond(bad_request(options.error().message));
  const bool previous = flag(request, "previous");
  find(target, writer, [this, target, writer, options = *options, previous](const Containers& all) {
    if (all.size() > (previous ? 1 : 0)) return show_log(all[previous ? 1 : 0], options, writer);
    const std::string name =
        fmt::format("container \"{}\" in pod \"{}\"", target.container, target.pod);
    writer->respond(
        bad_request(previous ? fmt::format("previous terminated {} not found", name)
                             : fmt::format("{} is waiting to start: no container yet", name)));
  });
}

void NodeApiImpl::show_log(const cri::pb::Container& container, const LogStream::Options& options,
                           const Writer& writer) {
  const std::string id = container.id();
  runtime_.container_status(
      id, false,
      [this, alive = alive_, id, options, writer](Result<cri::pb::ContainerStatusResponse> status) {
        if (!*alive || writer->closed()) return;
        if (!status) return writer->respond(error_answer(status.error()));
        const std::string path = status->status().log_path();
        const auto runs = [this, alive, id](UniqueFunction<void(bool)> answer) {
          runtime_.container_status(
              id, false,
              [answer = std::move(answer)](Result<cri::pb::ContainerStatusResponse> now) {
                const bool gone = !now && now.error().code == ErrorCode::kNotFound;
                answer(now ? now->status().state() == cri::pb::CONTAINER_RUNNING ||
                                 now->status().state() == cri::pb::CONTAINER_CREATED
                           : !gone);
              });
        };
        const uint64_t stream = next_++;
        logs_[stream] = LogStream::start(loop_, path, options, writer, runs, error_answer,
                                         [this, stream] { logs_.erase(stream); });
      });
}

cri::Done<std::string> NodeApiImpl::on_url(const http::Request& request, const Writer& writer) {
  return [this, alive = alive_, request, writer](Result<std::string> url) {
    if (!*alive || writer->closed()) return;
    if (!url) return writer->respond(error_answer(url.error()));
    relay(*url, request, writer);
  };
}

void NodeApiImpl::exec(const http::Request& request, const Target& target, const Writer& writer) {
  cri::pb::ExecRequest ask;
  for (const auto& [name, value] : request.query_all())
    if (name == "command") ask.add_cmd(value);
  ask.set_stdin(flag(request, "input"));
  ask.set_stdout(flag(request, "output"));
  ask.set_tty(flag(request, "tty"));
  // A terminal has one output.
  ask.set_stderr(flag(request, "error") && !ask.tty());
  if (ask.cmd().empty()) return writer->respond(bad_request("there is no command"));
  if (!ask.stdin() && !ask.stdout() && !ask.stderr())
    return writer->respond(bad_request("one of stdin, stdout and stderr must be asked for"));
  find(target, writer, [this, request, target, writer, ask](const Containers& all) mutable {
    if (all.empty() || all.front().state() != cri::pb::CONTAINER_RUNNING)
      return writer->respond(bad_request(fmt::format(
          "container \"{}\" of pod \"{}\" is not running", target.container, target.pod)));
    ask.set_container_id(all.front().id());
    runtime_.exec(ask, on_url(request, writer));
  });
}

void NodeApiImpl::attach(const http::Request& request, const Target& target, const Writer& writer) {
  cri::pb::AttachRequest ask;
  ask.set_stdin(flag(request, "input"));
  ask.set_stdout(flag(request, "output"));
  ask.set_tty(flag(request, "tty"));
  ask.set_stderr(flag(request, "error") && !ask.tty());
  if (!ask.stdin() && !ask.stdout() && !ask.stderr())
    return writer->respond(bad_request("one of stdin, stdout and stderr must be asked for"));
  find(target, writer, [this, request, target, writer, ask](const Containers& all) mutable {
    if (all.empty() || all.front().state() != cri::pb::CONTAINER_RUNNING)
      return writer->respond(bad_request(fmt::format(
          "container \"{}\" of pod \"{}\" is not running", target.container, target.pod)));
    ask.set_container_id(all.front().id());
    runtime_.attach(ask, on_url(request, writer));
  });
}

void NodeApiImpl::port_forward(const http::Request& request, const Target& target,
                               const Writer& writer) {
  cri::pb::PodSandboxFilter filter;
  (*filter.mutable_label_selector())[edged::kPodNamespaceLabel] = target.ns;
  (*filter.mutable_label_selector())[edged::kPodNameLabel] = target.pod;
  filter.mutable_state()->set_state(cri::pb::SANDBOX_READY);
  runtime_.list_pod_sandboxes(filter, [this, alive = alive_, request, target,
                                       writer](Result<cri::pb::ListPodSandboxResponse> list) {
    if (!*alive || writer->closed()) return;
    if (!list) return writer->respond(error_answer(list.error()));
    const cri::pb::PodSandbox* newest = nullptr;
    for (const auto& sandbox : list->items())
      if (newest == nullptr || sandbox.created_at() > newest->created_at()) newest = &sandbox;
    if (newest == nullptr)
      return writer->respond(bad_request(fmt::format("pod \"{}\" is not running", target.pod)));
    cri::pb::PortForwardRequest ask;
    ask.set_pod_sandbox_id(newest->id());
    for (const auto& [name, value] : request.query_all()) {
      int port = 0;
      const auto end = value.data() + value.size();
      if (name == "port" && std::from_chars(value.data(), end, port).ptr == end && port > 0 &&
          port < 65536)
        ask.add_port(port);
    }
    runtime_.port_forward(ask, on_url(request, writer));
  });
}

void NodeApiImpl::relay(const std::string& url, const http::Request& request,
                        const Writer& writer) {
  const auto at = http::Url::parse(url);
  const auto ip = at ? IpAddr::parse(at->host) : Result<IpAddr>(IpAddr());
  if (!at || at->secure() || !ip)
    return writer->respond(status_answer(
        500, "InternalError",
        fmt::format("the container runtime streams at {}, which is not http://<address>:<port>",
                    url.substr(0, 100))));
  auto stream = io::TcpStream::connect(loop_, SockAddr{*ip, at->port});
  if (!stream) return writer->respond(error_answer(stream.error()));
  http::ForwardRequest out;
  out.method = request.method;
  out.target = at->target;
  out.host = at->authority();
  out.headers = http::Forward::end_to_end(request.headers, true);
  http::ForwardOptions options;
  options.idle_timeout = options_.idle_timeout;
  options.failure = error_answer;
  const uint64_t id = next_++;
  forwards_[id] = http::Forward::start(loop_, std::move(out), std::move(*stream), writer,
                                       std::move(options), [this, id](const Result<>& result) {
                                         EM_LOG(kDebug, "streams", "a stream ended: {}",
                                                result ? "ok" : result.error().message);
                                         forwards_.erase(id);
                                       });
}

void NodeApiImpl::stats(const Writer& writer) {
  stats_.summary([writer](Result<std::string> summary) {
    if (!summary) return writer->respond(error_answer(summary.error()));
    writer->respond({200, {{"Content-Type", "application/json"}}, std::move(*summary)});
  });
}

}  // namespace

std::unique_ptr<NodeApi> NodeApi::create(io::Loop& loop, cri::RuntimeClient& runtime,
                                         NodeApiOptions options) {
  return std::make_unique<NodeApiImpl>(loop, runtime, std::move(options));
}

}  // namespace edgemesh::streams
