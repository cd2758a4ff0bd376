#include "core/channel/application.h"

#include <array>
#include <nlohmann/json.hpp>

#include "core/tls/x509.h"

namespace edgemesh::channel {

namespace {

using Json = nlohmann::json;

std::string text_of(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

Result<std::string> bytes_of(const Json& object, const char* key) {
  const std::string text = text_of(object, key);
  if (text.empty()) return std::string();
  auto bytes = tls::base64_decode(text);
  if (!bytes) return fail(ErrorCode::kInvalidArgument, "application: {} is not base64", key);
  return std::move(*bytes);
}

Json bytes_json(const std::string& bytes) {
  return bytes.empty() ? Json() : Json(tls::base64_encode(bytes));
}

const char* or_null(const std::string& text) {
  return text.empty() ? "null" : text.c_str();
}

std::string status_text(Application::Status status) {
  switch (status) {
    case Application::Status::kNone: return "InApplying";
    case Application::Status::kApproved: return "Approved";
    case Application::Status::kRejected: return "Rejected";
    case Application::Status::kFailed: return "Failed";
  }
  return {};
}

Result<> parse_key(std::string_view key, Application* out) {
  std::array<std::string*, 5> parts{&out->group, &out->version, &out->resource, &out->ns,
                                    &out->name};
  const auto bad = [&] {
    return fail(ErrorCode::kInvalidArgument,
                "application: the key '{}' is not /group/version/resource/namespace/name",
                key.substr(0, 200));
  };
  std::string_view rest = key;
  for (std::string* part : parts) {
    if (rest.empty() || rest.front() != '/') return bad();
    rest.remove_prefix(1);
    const size_t end = std::min(rest.find('/'), rest.size());
    *part = rest.substr(0, end);
    rest.remove_prefix(end);
    if (*part == "null") part->clear();
  }
  if (!rest.empty() || out->version.empty() || out->resource.empty()) return bad();
  if (out->group == "core") out->group.clear();
  return {};
}

}  // namespace

std::string encode_application(const Application& a) {
  Json out{{"ID", ""},
           {"Key", fmt::format("/{}/{}/{}/{}/{}", a.group.empty() ? "core" : a.group, a.version,
                               a.resource, or_null(a.ns), or_null(a.name))},
           {"Verb", a.verb},
           {"Nodename", a.node},
           {"Option", bytes_json(a.option)},
           {"ReqBody", bytes_json(a.body)},
           {"Subresource", a.subresource},
           {"RespBody", bytes_json(a.response)},
           {"Status", status_text(a.status)},
           {"Reason", a.reason},
           {"Timestamp", "0001-01-01T00:00:00Z"}};
  Json status = a.error.empty() ? Json() : Json::parse(a.error, nullptr, false);
  if (!status.is_object()) status = {{"metadata", Json::object()}};
  out["Error"] = {{"ErrStatus", std::move(status)}};
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<Application> decode_application(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return fail(ErrorCode::kInvalidArgument, "application: not an object");
  Application out;
  EM_TRY_VOID(parse_key(text_of(json, "Key"), &out));
  out.verb = text_of(json, "Verb");
  out.node = text_of(json, "Nodename");
  out.subresource = text_of(json, "Subresource");
  out.reason = text_of(json, "Reason");
  EM_TRY(out.option, bytes_of(json, "Option"));
  EM_TRY(out.body, bytes_of(json, "ReqBody"));
  EM_TRY(out.response, bytes_of(json, "RespBody"));
  const std::string status = text_of(json, "Status");
  for (const auto known : {Application::Status::kApproved, Application::Status::kRejected,
                           Application::Status::kFailed}) {
    if (status == status_text(known)) out.status = known;
  }
  const auto error = json.find("Error");
  if (error == json.end() || !error->is_object()) return out;
  const auto inner = error->find("ErrStatus");
  // Without an error it is a Status of zero values.
  if (inner != error->end() && inner->is_object() && inner->contains("code"))
    out.error = inner->dump(-1, ' ', false, Json::error_handler_t::replace);
  return out;
}

}  // namespace edgemesh::channel
