#include "agent/metaserver/cloud_calls.h"

#include <nlohmann/json.hpp>

#include "agent/hub_client.h"
#include "core/channel/message.h"

namespace edgemesh::agent {

namespace {

using Json = nlohmann::json;
using channel::Application;

CloudCalls::Answer refusal(int code, std::string_view reason, std::string_view message) {
  return {code, status_json(code, reason, message)};
}

}  // namespace

std::string status_json(int code, std::string_view reason, std::string_view message) {
  Json out{{"kind", "Status"},    {"apiVersion", "v1"}, {"metadata", Json::object()},
           {"status", "Failure"}, {"message", message}, {"reason", reason},
           {"code", code}};
  if (code == 503 || code == 429) out["details"] = {{"retryAfterSeconds", 1}};
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

CloudCalls::CloudCalls(bus::Bus& bus, Options options, std::function<bool()> connected)
    : bus_(bus), options_(std::move(options)), connected_(std::move(connected)) {}

CloudCalls::~CloudCalls() {
  *alive_ = false;
}

void CloudCalls::call(Application request, Done done) {
  if (!connected_()) {
    return done(refusal(503, "ServiceUnavailable",
                        "this node has no connection to the cloud: only what it holds itself can "
                        "be read"));
  }
  if (in_flight_ >= options_.max_in_flight)
    return done(refusal(429, "TooManyRequests", "too many requests of this node are in work"));
  request.node = options_.node;
  bus::Message message = bus::make_message(channel::kApplicationSource, channel::kApplicationGroup,
                                           "null", "null", channel::encode_application(request));
  if (message.content.size() > channel::kMaxMessageBytes / 2)
    return done(refusal(413, "RequestEntityTooLarge", "the request is too large for the channel"));
  ++in_flight_;
  bus_.request(
      kHubModule, std::move(message),
      [this, alive = alive_, verb = request.verb,
       done = std::move(done)](Result<bus::Message> answer) mutable {
        if (!*alive) return;
        --in_flight_;
        if (answer) return done(answer_of(verb, *answer));
        if (answer.error().code == ErrorCode::kTimeout)
          return done(refusal(504, "Timeout", "the cloud has not answered"));
        done(refusal(503, "ServiceUnavailable", answer.error().message));
      },
      options_.timeout);
}

CloudCalls::Answer CloudCalls::answer_of(const std::string& verb,
                                         const bus::Message& message) const {
  if (message.operation == "error") {
    return refusal(503, "ServiceUnavailable",
                   "the request did not reach the cloud: " + channel::content_text(message));
  }
  auto answer = channel::decode_application(channel::content_text(message));
  if (!answer) return refusal(502, "InternalError", answer.error().message);
  if (answer->status == Application::Status::kApproved) {
    if (!answer->response.empty() && answer->response != "null")
      return {verb == "create" ? 201 : 200, std::move(answer->response)};
    return {200, R"({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"})"};
  }
  const Json status = Json::parse(answer->error, nullptr, false);
  const auto code = status.is_object() ? status.find("code") : status.end();
  if (status.is_object() && code != status.end() && code->is_number_integer() &&
      code->get<int>() >= 400 && code->get<int>() < 600)
    return {code->get<int>(), std::move(answer->error)};
  // KubeEdge's cloud answers some errors with words alone.
  return refusal(500, "InternalError", answer->reason);
}

}  // namespace edgemesh::agent
