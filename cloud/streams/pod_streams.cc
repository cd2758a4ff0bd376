#include "cloud/streams/pod_streams.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/objects.h"

namespace edgemesh::cloud {
namespace {

using nlohmann::json;
using Writer = std::shared_ptr<http::ResponseWriter>;

http::Response status_answer(const ApiError& error) {
  return {error.code, {{"Content-Type", "application/json"}}, error.to_text()};
}

// Of the node's absence and the like.
http::Response failure_answer(const std::string& node, const Error& error) {
  int code = 500;
  const char* reason = "InternalError";
  if (error.code == ErrorCode::kUnavailable) code = 503, reason = "ServiceUnavailable";
  if (error.code == ErrorCode::kTimeout) code = 504, reason = "Timeout";
  if (error.code == ErrorCode::kResourceExhausted) code = 429, reason = "TooManyRequests";
  const bool named = error.message.find(node) != std::string::npos;
  return status_answer(ApiError::simple(
      code, reason, named ? error.message : fmt::format("node {}: {}", node, error.message)));
}

// "main web"; of init and ephemeral containers, too.
std::vector<std::string> container_names(const json& spec) {
  std::vector<std::string> out;
  for (const char* list : {"containers", "initContainers", "ephemeralContainers"}) {
    const auto found = spec.find(list);
    if (found == spec.end() || !found->is_array()) continue;
    for (const json& one : *found)
      if (one.is_object()) out.push_back(one.value("name", std::string()));
  }
  return out;
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : " ") + name;
  return out;
}

// The one that the request names, or the only one.
ApiResult<std::string> pick_container(const json& spec, const std::string& pod,
                                      const std::string& wanted) {
  const std::vector<std::string> names = container_names(spec);
  if (!wanted.empty()) {
    if (std::find(names.begin(), names.end(), wanted) != names.end()) return wanted;
    return refuse(
        ApiError::bad_request(fmt::format("container {} is not valid for pod {}", wanted, pod)));
  }
  const auto apps = spec.find("containers");
  if (names.size() == 1 && apps != spec.end() && apps->size() == 1) return names.front();
  return refuse(ApiError::bad_request(fmt::format(
      "a container name must be specified for pod {}, choose one of: [{}]", pod, joined(names))));
}

bool container_has_tty(const json& spec, const std::string& name) {
  for (const char* list : {"containers", "initContainers", "ephemeralContainers"}) {
    const auto found = spec.find(list);
    if (found == spec.end() || !found->is_array()) continue;
    for (const json& one : *found)
      if (one.is_object() && one.value("name", std::string()) == name) {
        const auto tty = one.find("tty");
        return tty != one.end() && tty->is_boolean() && tty->get<bool>();
      }
  }
  return false;
}

void add(std::string& query, std::string_view name, std::string_view value) {
  query += query.empty() ? '?' : '&';
  query += fmt::format("{}={}", name, http::percent_encode(value));
}

std::string log_query(const http::Request& request) {
  std::string out;
  for (const char* name : {"follow", "previous", "sinceSeconds", "sinceTime", "timestamps",
                           "tailLines", "limitBytes", "stream"}) {
    if (auto value = request.query(name); value && !value->empty()) add(out, name, *value);
  }
  return out;
}

// kubelet has other names for them than the API.
std::string exec_query(const http::Request& request, bool tty) {
  std::string out;
  for (const auto& [name, value] : request.query_all())
    if (name == "command") add(out, name, value);
  if (query_flag(request, "stdin")) add(out, "input", "1");
  if (query_flag(request, "stdout")) add(out, "output", "1");
  if (query_flag(request, "stderr") && !tty) add(out, "error", "1");
  if (tty) add(out, "tty", "1");
  return out;
}

ApiResult<std::string> node_target(const http::Request& request, const ResourcePath& path,
                                   const json& spec) {
  const std::string where =
      fmt::format("/{}/{}", http::percent_encode(path.ns), http::percent_encode(path.name));
  if (path.subresource == "portforward") {
    std::string query;
    for (const auto& [name, value] : request.query_all())
      if (name == "ports" || name == "port") add(query, "port", value);
    return "/portForward" + where + query;
  }
  const auto container = pick_container(spec, path.name, request.query("container").value_or(""));
  if (!container) return refuse(container.error());
  const std::string tail = where + "/" + http::percent_encode(*container);
  if (path.subresource == "log") return "/containerLogs" + tail + log_query(request);
  if (path.subresource == "exec") {
    if (!request.query("command"))
      return refuse(
          ApiError::bad_request("you must specify at least one command for the container"));
    return "/exec" + tail + exec_query(request, query_flag(request, "tty"));
  }
  // Whether the process has a terminal was decided when it started.
  return "/attach" + tail + exec_query(request, container_has_tty(spec, *container));
}

bool one_of_ours(const ResourcePath& path) {
  static constexpr std::array<std::string_view, 4> kOurs{"log", "exec", "attach", "portforward"};
  return path.group.empty() && path.resource == "pods" &&
         std::find(kOurs.begin(), kOurs.end(), path.subresource) != kOurs.end();
}

}  // namespace

ApiResult<NodeRequest> node_request(const http::Request& request, const ResourcePath& path,
                                    const std::string& pod) {
  const auto parsed = kube::parse_json(pod);
  const bool whole = parsed && parsed->is_object() && parsed->contains("spec");
  if (!whole)
    return refuse(ApiError::simple(500, "InternalError", "the pod's object cannot be read"));
  const json& spec = (*parsed)["spec"];
  NodeRequest out;
  out.node = spec.value("nodeName", std::string());
  if (out.node.empty())
    return refuse(
        ApiError::bad_request(fmt::format("pod {} does not have a host assigned", path.name)));
  const bool log = path.subresource == "log";
  const bool upgrade = request.headers.has_token("connection", "upgrade");
  if (log ? request.method != "GET" : request.method != "GET" && request.method != "POST")
    return refuse(ApiError::simple(405, "MethodNotAllowed", "use GET, or POST with an upgrade"));
  if (!log && !upgrade) return refuse(ApiError::bad_request("Upgrade request required"));
  auto target = node_target(request, path, spec);
  if (!target) return refuse(target.error());
  out.request.method = request.method;
  out.request.target = std::move(*target);
  out.request.host = out.node;
  out.request.headers = http::Forward::end_to_end(request.headers, !log);
  return out;
}

PodStreams::PodStreams(io::Loop& loop, NodeStreams& nodes, FindPod find, Options options)
    : loop_(loop), nodes_(nodes), find_(std::move(find)), options_(std::move(options)) {}

PodStreams::~PodStreams() {
  *alive_ = false;
}

bool PodStreams::handle(const http::Request& request, const Writer& writer,
                        const ResourcePath& path) {
  if (!one_of_ours(path)) return false;
  const std::string pod = find_(path.ns, path.name);
  if (pod.empty()) {
    ApiError gone =
        ApiError::simple(404, "NotFound", fmt::format("pods \"{}\" not found", path.name));
    gone.name = path.name;
    gone.kind = "pods";
    writer->respond(status_answer(gone));
    return true;
  }
  auto what = node_request(request, path, pod);
  if (what && running_.size() >= options_.max_streams)
    what = refuse(ApiError::simple(429, "TooManyRequests", "too many streams are open"));
  if (!what) {
    writer->respond(status_answer(what.error()));
    return true;
  }
  const std::string node = what->node;
  nodes_.open(node, [this, alive = alive_, what = std::move(*what),
                     writer](Result<std::unique_ptr<io::Stream>> stream) mutable {
    if (!*alive || writer->closed()) return;
    if (!stream) return writer->respond(failure_answer(what.node, stream.error()));
    begin(std::move(what), writer, std::move(*stream));
  });
  return true;
}

void PodStreams::begin(NodeRequest what, const Writer& writer, std::unique_ptr<io::Stream> stream) {
  http::ForwardOptions options = options_.forward;
  options.failure = [node = what.node](const Error& error) { return failure_answer(node, error); };
  const uint64_t id = next_++;
  const std::string text =
      fmt::format("{} on node {}", what.request.target.substr(0, 120), what.node);
  running_[id] = http::Forward::start(loop_, std::move(what.request), std::move(stream), writer,
                                      std::move(options), [this, id, text](const Result<>& result) {
                                        EM_LOG(kDebug, "streams", "{} ended: {}", text,
                                               result ? "ok" : result.error().message);
                                        running_.erase(id);
                                      });
}

void PodStreams::drain() {
  auto gone = std::make_shared<decltype(running_)>(std::move(running_));
  running_.clear();
  loop_.defer([gone] {});
}

}  // namespace edgemesh::cloud
