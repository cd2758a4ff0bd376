#include "cloud/dynamic_controller.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/api/error.h"
#include "core/base/log.h"
#include "core/http/message.h"
#include "core/tls/x509.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

namespace {

using Json = nlohmann::json;
using channel::Application;

void add_query(std::string* target, std::string_view name, const std::string& value) {
  *target += target->find('?') == std::string::npos ? '?' : '&';
  *target += name;
  *target += '=';
  *target += http::percent_encode(value);
}

// Options of the client's library as the query that they are over HTTP.
void add_options(const Json& options, std::string* target) {
  for (const char* name : {"labelSelector", "fieldSelector", "continue", "resourceVersion",
                           "resourceVersionMatch", "fieldManager", "fieldValidation"}) {
    const std::string value = kube::text_at(options, name);
    if (!value.empty()) add_query(target, name, value);
  }
  if (const Json* limit = kube::find(options, "limit"); limit && limit->is_number_integer())
    add_query(target, "limit", limit->dump());
  if (const Json* force = kube::find(options, "force"); force && force->is_boolean())
    add_query(target, "force", force->dump());
  if (const Json* dry = kube::find(options, "dryRun"); dry && dry->is_array() && !dry->empty())
    add_query(target, "dryRun", "All");
}

// Streams, and what leads to other nodes: nothing of that fits into one answer.
bool streams(std::string_view subresource) {
  const std::string_view first = subresource.substr(0, subresource.find('/'));
  return first == "log" || first == "exec" || first == "attach" || first == "portforward" ||
         first == "proxy";
}

std::string path_of(const Application& request, const std::string& name,
                    const std::string& subresource) {
  std::string out = request.group.empty() ? "/api" : "/apis/" + http::percent_encode(request.group);
  const auto add = [&out](std::string_view part) { out += "/" + http::percent_encode(part); };
  add(request.version);
  if (!request.ns.empty()) {
    add("namespaces");
    add(request.ns);
  }
  add(request.resource);
  if (!name.empty()) add(name);
  if (!name.empty() && !subresource.empty()) add(subresource);
  return out;
}

Result<Json> options_of(const Application& request) {
  if (request.option.empty() || request.option == "null") return Json::object();
  Json options = Json::parse(request.option, nullptr, false);
  if (!options.is_object())
    return fail(ErrorCode::kInvalidArgument, "the options of the request are not an object");
  return options;
}

Result<> make_patch(const Application& request, const Json& info, NodeCall* out) {
  const std::string name = request.name.empty() ? kube::text_at(info, "Name") : request.name;
  std::string subresource = request.subresource;
  const Json* below = kube::find(info, "Subresources");
  if (below != nullptr && below->is_array() && below->size() == 1 && below->front().is_string())
    subresource = below->front().get<std::string>();
  out->method = "PATCH";
  out->content_type = kube::text_at(info, "PatchType");
  auto data = tls::base64_decode(kube::text_at(info, "Data"));
  constexpr std::string_view kTypes[] = {
      "application/json-patch+json", "application/merge-patch+json",
      "application/strategic-merge-patch+json", "application/apply-patch+yaml"};
  const bool known =
      std::find(std::begin(kTypes), std::end(kTypes), out->content_type) != std::end(kTypes);
  if (name.empty() || !known || !data)
    return fail(ErrorCode::kInvalidArgument, "a patch wants a name, its type and its data");
  out->body = std::move(*data);
  if (streams(subresource))
    return fail(ErrorCode::kInvalidArgument, "{} is not served for nodes", subresource);
  out->target = path_of(request, name, subresource);
  if (const Json* options = kube::find(info, "Options")) add_options(*options, &out->target);
  return {};
}

std::string status_text(int code, const char* reason, const std::string& message) {
  return ApiError::simple(code, reason, message).to_text();
}

}  // namespace

Result<NodeCall> node_call(const Application& request) {
  NodeCall out;
  out.node = request.node;
  EM_TRY(const Json options, options_of(request));
  const std::string& verb = request.verb;
  if (verb == "patch") {
    EM_TRY_VOID(make_patch(request, options, &out));
    return out;
  }
  std::string name = request.name;
  std::string subresource = verb == "updatestatus" ? "status" : request.subresource;
  if (verb == "get") {
    out.method = "GET";
  } else if (verb == "list") {
    out.method = "GET";
    name.clear();
  } else if (verb == "create") {
    out.method = "POST";
    if (subresource.empty()) name.clear();
  } else if (verb == "update" || verb == "updatestatus") {
    out.method = "PUT";
    if (name.empty())
      name = kube::text_at(Json::parse(request.body, nullptr, false), "metadata", "name");
  } else if (verb == "delete") {
    out.method = "DELETE";
  } else {
    return fail(ErrorCode::kInvalidArgument, "'{}' is not served for nodes", verb.substr(0, 40));
  }
  if (streams(subresource))
    return fail(ErrorCode::kInvalidArgument, "{} is not served for nodes",
                subresource.substr(0, 40));
  // Without a name these would reach every object there is.
  if (name.empty() && verb != "list" && verb != "create")
    return fail(ErrorCode::kInvalidArgument, "{} wants the name of an object", verb);
  out.target = path_of(request, name, subresource);
  if (verb == "delete") {
    out.body = kube::to_text(options);
    out.content_type = "application/json";
    return out;
  }
  add_options(options, &out.target);
  if (out.method == "GET") return out;
  out.body = request.body;
  out.content_type = "application/json";
  return out;
}

DynamicController::DynamicController(NodeLink& link, CallAsNode call)
    : DynamicController(link, std::move(call), Options()) {}

DynamicController::DynamicController(NodeLink& link, CallAsNode call, Options options)
    : link_(link), call_(std::move(call)), options_(options) {}

DynamicController::~DynamicController() {
  *alive_ = false;
}

void DynamicController::on_message(const std::string& node, const channel::Message& message) {
  auto request = channel::decode_application(channel::content_text(message));
  if (!request) {
    // KubeEdge's edge tells with such messages which watches it has; nothing follows from that
    // here.
    EM_LOG(kDebug, "dynamic", "node {}: {}: {}", node, message.resource.substr(0, 200),
           request.error().message);
    return;
  }
  request->node = node;  // never what the message claims
  const auto reject = [&](int code, const char* reason, const std::string& why) {
    NodeCallAnswer answer{code, status_text(code, reason, why)};
    ++in_flight_[node];
    finish(node, message, std::move(*request), std::move(answer));
  };
  if (in_flight_[node] >= options_.max_in_flight) {
    return reject(429, "TooManyRequests",
                  fmt::format("node {} has {} requests in work", node, options_.max_in_flight));
  }
  auto call = node_call(*request);
  if (!call) return reject(400, "BadRequest", call.error().message);
  ++in_flight_[node];
  call_(std::move(*call), [this, alive = alive_, node, message,
                           request = std::move(*request)](Result<NodeCallAnswer> answer) mutable {
    if (*alive) finish(node, message, std::move(request), std::move(answer));
  });
}

void DynamicController::finish(const std::string& node, const channel::Message& to,
                               Application request, Result<NodeCallAnswer> answer) {
  if (const auto it = in_flight_.find(node); it != in_flight_.end() && --it->second == 0)
    in_flight_.erase(it);
  request.option.clear();
  request.body.clear();
  request.status = Application::Status::kRejected;
  if (!answer) {
    request.error = status_text(503, "ServiceUnavailable", answer.error().message);
  } else if (answer->status >= 400) {
    request.error = std::move(answer->body);
  } else if (answer->body.size() > options_.max_answer) {
    request.error = status_text(
        413, "RequestEntityTooLarge",
        fmt::format("the answer has {} bytes, at most {} go to a node; ask for less with a limit",
                    answer->body.size(), options_.max_answer));
  } else {
    request.status = Application::Status::kApproved;
    request.response = std::move(answer->body);
  }
  if (request.status == Application::Status::kRejected)
    request.reason = kube::text_at(Json::parse(request.error, nullptr, false), "message");
  send(node, to, request);
}

void DynamicController::send(const std::string& node, const channel::Message& to,
                             const Application& answer) {
  channel::Message out;
  out.id = channel::new_id();
  out.parent_id = to.id;
  out.timestamp_ms = channel::now_ms();
  out.source = channel::kApplicationGroup;
  out.group = channel::kApplicationSource;
  out.operation = channel::kApplicationAnswer;
  out.resource = channel::kApplicationAnswerResource;
  out.content = channel::encode_application(answer);
  link_.send(node, out);
}

}  // namespace edgemesh::cloud
