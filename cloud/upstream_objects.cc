// Shapes of replies and checks on objects, for Upstream.
#include <nlohmann/json.hpp>

#include "cloud/upstream.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

struct StatusWords {
  int code;
  const char* reason;
  const char* text;  // behind the object's name; null: the server's own message
};

StatusWords words_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound: return {404, "NotFound", "not found"};
    case ErrorCode::kAlreadyExists: return {409, "AlreadyExists", "already exists"};
    case ErrorCode::kConflict: return {409, "Conflict", nullptr};
    case ErrorCode::kInvalidArgument: return {422, "Invalid", nullptr};
    case ErrorCode::kPermissionDenied: return {403, "Forbidden", nullptr};
    case ErrorCode::kUnauthenticated: return {401, "Unauthorized", nullptr};
    case ErrorCode::kGone: return {410, "Expired", nullptr};
    case ErrorCode::kTimeout: return {504, "Timeout", nullptr};
    case ErrorCode::kUnavailable:
    case ErrorCode::kConnectionRefused:
    case ErrorCode::kConnectionReset: return {503, "ServiceUnavailable", nullptr};
    case ErrorCode::kResourceExhausted: return {429, "TooManyRequests", nullptr};
    case ErrorCode::kProtocol:
    case ErrorCode::kCancelled:
    case ErrorCode::kIo:
    case ErrorCode::kInternal: return {500, "InternalError", nullptr};
  }
  return {500, "InternalError", nullptr};
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// Where a pod's spec names other objects: {"configMap": {"name": ...}} and so on, at any depth.
bool refers(const Json& value, const std::vector<std::pair<std::string, std::string>>& places,
            std::string_view name, int depth) {
  if (depth > 32) return false;
  if (value.is_array()) {
    for (const Json& item : value) {
      if (refers(item, places, name, depth + 1)) return true;
    }
    return false;
  }
  if (!value.is_object()) return false;
  for (const auto& [key, item] : value.items()) {
    for (const auto& [parent, field] : places) {
      if (key != parent) continue;
      for (const Json& one : item.is_array() ? item : Json::array({item})) {
        if (one.is_object() && one.contains(field) && one[field] == name) return true;
      }
    }
    if (refers(item, places, name, depth + 1)) return true;
  }
  return false;
}

}  // namespace

Json error_status(const Error& error, const kube::ResourceType& type, std::string_view name) {
  const StatusWords words = words_of(error.code);
  const std::string kind = lower(type.kind);
  const std::string qualified = type.group.empty() ? kind : kind + "." + type.group;
  Json details{{"name", name}, {"kind", kind}};
  if (!type.group.empty()) details["group"] = type.group;
  return {{"ErrStatus",
           {{"metadata", Json::object()},
            {"status", "Failure"},
            {"message", words.text == nullptr
                            ? error.message
                            : fmt::format("{} \"{}\" {}", qualified, name, words.text)},
            {"reason", words.reason},
            {"details", details},
            {"code", words.code}}}};
}

bool pod_refers_to(const Json& pod, const kube::ResourceType& type, std::string_view name) {
  static const std::vector<std::pair<std::string, std::string>> kConfigMapPlaces{
      {"configMap", "name"}, {"configMapRef", "name"}, {"configMapKeyRef", "name"}};
  static const std::vector<std::pair<std::string, std::string>> kSecretPlaces{
      {"secret", "secretName"},
      {"secret", "name"},
      {"secretRef", "name"},
      {"secretKeyRef", "name"},
      {"imagePullSecrets", "name"}};
  if (!pod.is_object() || !pod.contains("spec")) return false;
  return refers(pod["spec"], type == kube::kConfigMaps ? kConfigMapPlaces : kSecretPlaces, name, 0);
}

}  // namespace edgemesh::cloud
