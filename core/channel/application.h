// Application: a request to the Kubernetes API that a node has the cloud make for it, and its
// answer, as KubeEdge's metaserver and dynamiccontroller send it (v1.8 to v1.23).
//
//   node > cloud  source metaserver, group dynamiccontroller, operation and resource "null"
//   cloud > node  parent id of the request, operation applicationResponse, resource
//                 ignore/Application/ignore; Status Approved with RespBody, or Rejected with Error
//
// Both carry the same object: {"ID","Key":"/group/version/resource/namespace/name","Verb",
// "Nodename","Option","ReqBody","Subresource","RespBody","Status","Reason","Error":{"ErrStatus"}};
// the core group is "core", what is empty is "null", and Option and the bodies are base64 of JSON.
// Pure functions, thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::channel {

inline constexpr const char* kApplicationSource = "metaserver";
inline constexpr const char* kApplicationGroup = "dynamiccontroller";
inline constexpr const char* kApplicationAnswer = "applicationResponse";
inline constexpr const char* kApplicationAnswerResource = "ignore/Application/ignore";

struct Application {
  std::string group, version, resource, ns, name;  // group empty: core; ns empty: cluster-wide
  std::string verb;  // get, list, create, update, updatestatus, patch, delete
  std::string node;
  std::string subresource;
  std::string option;  // JSON: the verb's options; of a patch {"Name","PatchType","Data","Options"}
  std::string body;    // JSON

  // The answer.
  enum class Status { kNone, kApproved, kRejected, kFailed };
  Status status = Status::kNone;
  std::string response;  // JSON; may be empty
  std::string reason;
  std::string error;  // JSON of the metav1.Status; empty: none
};

std::string encode_application(const Application& application);
// kInvalidArgument: not of this form.
Result<Application> decode_application(std::string_view json);

}  // namespace edgemesh::channel
