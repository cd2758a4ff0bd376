#include "cloud/api/error.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

std::string qualified(const ResourceInfo& resource) {
  return resource.type.group.empty() ? resource.type.plural
                                     : resource.type.plural + "." + resource.type.group;
}

ApiError about(int code, std::string reason, const ResourceInfo& resource, std::string_view name,
               std::string message) {
  ApiError out;
  out.code = code;
  out.reason = std::move(reason);
  out.message = std::move(message);
  out.name = name;
  out.group = resource.type.group;
  out.kind = resource.type.plural;
  return out;
}

std::string as_json(std::string_view text) {
  return json(std::string(text)).dump();
}

ErrorCode code_of_status(int status) {
  switch (status) {
    case 400:
    case 405:
    case 415:
    case 422: return ErrorCode::kInvalidArgument;
    case 401: return ErrorCode::kUnauthenticated;
    case 403: return ErrorCode::kPermissionDenied;
    case 404: return ErrorCode::kNotFound;
    case 409: return ErrorCode::kConflict;
    case 410: return ErrorCode::kGone;
    case 413:
    case 507: return ErrorCode::kResourceExhausted;
    case 504: return ErrorCode::kTimeout;
    case 429:
    case 502:
    case 503: return ErrorCode::kUnavailable;
    default: return status >= 500 ? ErrorCode::kUnavailable : ErrorCode::kProtocol;
  }
}

}  // namespace

FieldError FieldError::required(std::string field, std::string_view detail) {
  std::string message = "Required value";
  if (!detail.empty()) message += fmt::format(": {}", detail);
  return {"FieldValueRequired", std::move(field), std::move(message)};
}
FieldError FieldError::invalid(std::string field, std::string_view value, std::string_view detail) {
  return {"FieldValueInvalid", std::move(field),
          fmt::format("Invalid value: {}: {}", value, detail)};
}
FieldError FieldError::duplicate(std::string field, std::string_view value) {
  return {"FieldValueDuplicate", std::move(field), fmt::format("Duplicate value: {}", value)};
}
FieldError FieldError::forbidden(std::string field, std::string_view detail) {
  return {"FieldValueForbidden", std::move(field), fmt::format("Forbidden: {}", detail)};
}
FieldError FieldError::not_supported(std::string field, std::string_view value,
                                     const std::vector<std::string>& supported) {
  std::string list;
  for (const std::string& item : supported) list += (list.empty() ? "" : ", ") + as_json(item);
  return {"FieldValueNotSupported", std::move(field),
          fmt::format("Unsupported value: {}: supported values: {}", as_json(value), list)};
}

std::string ApiError::to_text() const {
  json details = json::object();
  if (!name.empty()) details["name"] = name;
  if (!group.empty()) details["group"] = group;
  if (!kind.empty()) details["kind"] = kind;
  for (const FieldError& cause : causes) {
    details["causes"].push_back(
        {{"reason", cause.reason}, {"message", cause.message}, {"field", cause.field}});
  }
  if (retry_after_s > 0) details["retryAfterSeconds"] = retry_after_s;
  json out = {{"kind", "Status"},    {"apiVersion", "v1"}, {"metadata", json::object()},
              {"status", "Failure"}, {"message", message}, {"reason", reason},
              {"code", code}};
  if (!details.empty()) out["details"] = std::move(details);
  return kube::to_text(out);
}

Error ApiError::to_error() const {
  ErrorCode code_out = code_of_status(code);
  if (reason == "AlreadyExists") code_out = ErrorCode::kAlreadyExists;
  if (code == 500) code_out = ErrorCode::kInternal;
  return Error{code_out, message, 0};
}

ApiError ApiError::from_error(const Error& error, const ResourceInfo& resource,
                              std::string_view name) {
  switch (error.code) {
    case ErrorCode::kAlreadyExists: return already_exists(resource, name);
    case ErrorCode::kConflict: return conflict(resource, name, error.message);
    case ErrorCode::kGone: return gone(error.message);
    case ErrorCode::kNotFound: return not_found(resource, name);
    case ErrorCode::kInvalidArgument: return bad_request(error.message);
    case ErrorCode::kResourceExhausted:
      return about(413, "RequestEntityTooLarge", resource, name, error.message);
    case ErrorCode::kTimeout: {
      ApiError out = about(504, "Timeout", resource, name, error.message);
      out.causes.push_back({"ResourceVersionTooLarge", "", error.message});
      out.retry_after_s = 1;
      return out;
    }
    case ErrorCode::kUnavailable: return simple(503, "ServiceUnavailable", error.message);
    default: return simple(500, "InternalError", error.message);
  }
}

ApiError ApiError::not_found(const ResourceInfo& resource, std::string_view name) {
  return about(404, "NotFound", resource, name,
               fmt::format("{} \"{}\" not found", qualified(resource), name));
}
ApiError ApiError::already_exists(const ResourceInfo& resource, std::string_view name) {
  return about(409, "AlreadyExists", resource, name,
               fmt::format("{} \"{}\" already exists", qualified(resource), name));
}
ApiError ApiError::conflict(const ResourceInfo& resource, std::string_view name,
                            std::string_view why) {
  return about(409, "Conflict", resource, name,
               fmt::format("Operation cannot be fulfilled on {} \"{}\": {}", qualified(resource),
                           name, why));
}
ApiError ApiError::invalid(const ResourceInfo& resource, std::string_view name,
                           FieldErrors causes) {
  std::string text;
  for (const FieldError& cause : causes) {
    if (!text.empty()) text += ", ";
    text += cause.field + ": " + cause.message;
  }
  if (causes.size() > 1) text = "[" + text + "]";
  std::string kind = resource.type.kind;
  if (!resource.type.group.empty()) kind += "." + resource.type.group;
  ApiError out = about(422, "Invalid", resource, name,
                       fmt::format("{} \"{}\" is invalid: {}", kind, name, text));
  out.kind = resource.type.kind;
  out.causes = std::move(causes);
  return out;
}
ApiError ApiError::bad_request(std::string message) {
  return simple(400, "BadRequest", std::move(message));
}
ApiError ApiError::forbidden(const ResourceInfo& resource, std::string_view name,
                             std::string_view why) {
  return about(403, "Forbidden", resource, name,
               name.empty()
                   ? fmt::format("{} is forbidden: {}", qualified(resource), why)
                   : fmt::format("{} \"{}\" is forbidden: {}", qualified(resource), name, why));
}
ApiError ApiError::gone(std::string message) {
  return simple(410, "Expired", std::move(message));
}
ApiError ApiError::simple(int code, std::string reason, std::string message) {
  ApiError out;
  out.code = code;
  out.reason = std::move(reason);
  out.message = std::move(message);
  return out;
}

Error error_from_status(int http_status, std::string_view body) {
  ApiError out =
      ApiError::simple(http_status, "", fmt::format("the server answered {}", http_status));
  if (auto status = kube::parse_json(body)) {
    std::string message = kube::text_at(*status, "message");
    if (!message.empty()) out.message = std::move(message);
    out.reason = kube::text_at(*status, "reason");
  }
  return out.to_error();
}

}  // namespace edgemesh::cloud
