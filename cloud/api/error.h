// Errors of the Kubernetes API: what becomes a `Status` object on the wire, and an Error for
// callers in the same process.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cloud/api/resource.h"
#include "core/base/result.h"

namespace edgemesh::cloud {

// One thing that is wrong with one field of an object.
struct FieldError {
  std::string reason;  // "FieldValueInvalid", ...
  std::string field;   // "spec.ports[0].port"
  std::string message;

  static FieldError required(std::string field, std::string_view detail = {});
  static FieldError invalid(std::string field, std::string_view value, std::string_view detail);
  static FieldError duplicate(std::string field, std::string_view value);
  static FieldError forbidden(std::string field, std::string_view detail);
  static FieldError not_supported(std::string field, std::string_view value,
                                  const std::vector<std::string>& supported);
};
using FieldErrors = std::vector<FieldError>;

struct ApiError {
  int code = 500;
  std::string reason = "InternalError";
  std::string message;
  std::string name, group, kind;  // details
  FieldErrors causes;
  int retry_after_s = 0;

  std::string to_text() const;  // the Status object
  Error to_error() const;
  static ApiError from_error(const Error& error, const ResourceInfo& resource,
                             std::string_view name);

  static ApiError not_found(const ResourceInfo& resource, std::string_view name);
  static ApiError already_exists(const ResourceInfo& resource, std::string_view name);
  static ApiError conflict(const ResourceInfo& resource, std::string_view name,
                           std::string_view why);
  static ApiError invalid(const ResourceInfo& resource, std::string_view name, FieldErrors causes);
  static ApiError bad_request(std::string message);
  static ApiError forbidden(const ResourceInfo& resource, std::string_view name,
                            std::string_view why);
  static ApiError gone(std::string message);
  static ApiError simple(int code, std::string reason, std::string message);
};

template <class T>
using ApiResult = tl::expected<T, ApiError>;
inline tl::unexpected<ApiError> refuse(ApiError error) {
  return tl::unexpected<ApiError>(std::move(error));
}

// The Error that a Status object of another server stands for.
Error error_from_status(int http_status, std::string_view body);

}  // namespace edgemesh::cloud
