// Shapes of replies and checks on objects, for Upstream.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/edge/pod_view.h"
#include "cloud/upstream.h"
#include "kube/json_util.h"

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

Json whole_pod_status(const Json& pod, Json status) {
  const Json* before = kube::find(pod, "status");
  for (const char* list : {"podIPs", "hostIPs"}) {
    const auto it = status.find(list);
    if (it == status.end() || !it->is_array()) continue;
    it->insert(it->begin(), Json{{"$patch", "replace"}});
  }
  for (const char* key : {"reason", "message", "podIP", "podIPs"}) {
    if (!status.contains(key) && before != nullptr && before->contains(key)) status[key] = nullptr;
  }
  return status;
}

bool pod_refers_to(const Json& pod, const kube::ResourceType& type, std::string_view name) {
  const std::vector<PodReference> all = pod_references(pod);
  return std::any_of(all.begin(), all.end(), [&](const PodReference& reference) {
    return *reference.type == type && reference.name == name;
  });
}

}  // namespace edgemesh::cloud
