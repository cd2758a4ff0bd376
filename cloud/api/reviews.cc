#include "cloud/api/reviews.h"

#include <nlohmann/json.hpp>

#include "cloud/api/meta.h"
#include "cloud/api/rbac_rules.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

std::vector<std::string> texts(const json* list) {
  std::vector<std::string> out;
  for (const json& item : list != nullptr && list->is_array() ? *list : json::array()) {
    if (item.is_string()) out.push_back(item.get<std::string>());
  }
  return out;
}

// The user that a SubjectAccessReview is about.
ApiUser subject_of(const json& body) {
  ApiUser out;
  out.name = text_at(body, "spec", "user");
  out.uid = text_at(body, "spec", "uid");
  out.groups = texts(find(body, "spec", "groups"));
  const json* extra = find(body, "spec", "extra");
  if (extra != nullptr && extra->is_object()) {
    for (const auto& [key, values] : extra->items()) out.extra[key] = texts(&values);
  }
  return out;
}

ApiResult<ApiAttributes> asked_of(const ResourceInfo& resource, const json& body) {
  const json* of = find(body, "spec", "resourceAttributes");
  const json* other = find(body, "spec", "nonResourceAttributes");
  if ((of == nullptr) == (other == nullptr)) {
    return refuse(ApiError::invalid(
        resource, "",
        {FieldError::invalid(
            "spec.resourceAttributes", "null",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified")}));
  }
  ApiAttributes what;
  if (other != nullptr) {
    what.path = text_at(*other, "path");
    what.verb = text_at(*other, "verb");
    return what;
  }
  what.verb = text_at(*of, "verb");
  what.group = text_at(*of, "group");
  what.version = text_at(*of, "version");
  what.resource = text_at(*of, "resource");
  what.subresource = text_at(*of, "subresource");
  what.ns = text_at(*of, "namespace");
  what.name = text_at(*of, "name");
  return what;
}

ApiResult<json> access(const Gate& gate, const ResourceInfo& resource, const json& body,
                       const ApiUser& user) {
  auto what = asked_of(resource, body);
  if (!what) return refuse(what.error());
  std::string reason;
  json status = {{"allowed", gate.authorizer().allows(user, *what, &reason)}};
  if (!reason.empty()) status["reason"] = reason;
  return status;
}

ApiResult<json> access_of_other(const Gate& gate, const ResourceInfo& resource, std::string_view ns,
                                const json& body) {
  ApiUser user = subject_of(body);
  FieldErrors wrong;
  if (user.name.empty() && user.groups.empty()) {
    wrong.push_back(FieldError::invalid("spec.user", R"("")",
                                        "at least one of user or group must be specified"));
  }
  if (resource.type.namespaced && text_at(body, "spec", "resourceAttributes", "namespace") != ns) {
    wrong.push_back(
        FieldError::invalid("spec.resourceAttributes.namespace",
                            json(text_at(body, "spec", "resourceAttributes", "namespace")).dump(),
                            "must match metadata.namespace"));
  }
  if (!wrong.empty()) return refuse(ApiError::invalid(resource, "", std::move(wrong)));
  return access(gate, resource, body, user);
}

ApiResult<json> rules(const Gate& gate, const json& body, const ApiUser& user) {
  const std::string ns = text_at(body, "spec", "namespace");
  if (ns.empty()) return refuse(ApiError::bad_request("no namespace on request"));
  RbacRules all;
  std::string problem;
  gate.authorizer().add_rules(user, ns, &all, &problem);
  json status = {{"resourceRules", json::array()},
                 {"nonResourceRules", json::array()},
                 {"incomplete", !problem.empty()}};
  if (!problem.empty()) status["evaluationError"] = problem;
  for (const RbacRule& rule : all) {
    status[rule.urls.empty() ? "resourceRules" : "nonResourceRules"].push_back(rule_json(rule));
  }
  return status;
}

ApiResult<json> token(const Gate& gate, const ResourceInfo& resource, const json& body) {
  const std::string value = text_at(body, "spec", "token");
  if (value.empty()) {
    return refuse(ApiError::invalid(resource, "", {FieldError::required("spec.token")}));
  }
  const auto audiences = texts(find(body, "spec", "audiences"));
  std::vector<std::string> fitting;
  auto user = gate.authenticator().authenticate_token(value, audiences, &fitting);
  if (!user) return json({{"user", json::object()}, {"error", "invalid bearer token"}});
  json status = {{"authenticated", true}, {"user", user_json(*user)}};
  if (!fitting.empty()) status["audiences"] = std::move(fitting);
  return status;
}

}  // namespace

json user_json(const ApiUser& user) {
  json out = json::object();
  if (!user.name.empty()) out["username"] = user.name;
  if (!user.uid.empty()) out["uid"] = user.uid;
  if (!user.groups.empty()) out["groups"] = user.groups;
  if (!user.extra.empty()) out["extra"] = user.extra;
  return out;
}

ApiResult<json> answer_review(const Gate& gate, const ResourceInfo& resource, std::string_view ns,
                              const ApiUser& caller, json body,
                              std::chrono::system_clock::time_point now) {
  if (body.is_null()) body = json::object();
  if (auto good = check_type_and_namespace(resource, ns, &body); !good) return refuse(good.error());
  const std::string& kind = resource.type.kind;
  ApiResult<json> status = json::object();
  if (kind == "SelfSubjectReview") {
    body["metadata"]["creationTimestamp"] = kube::rfc3339(now);
    status = json({{"userInfo", user_json(caller)}});
  } else if (kind == "SelfSubjectAccessReview") {
    status = access(gate, resource, body, caller);
  } else if (kind == "SelfSubjectRulesReview") {
    status = rules(gate, body, caller);
  } else if (kind == "TokenReview") {
    status = token(gate, resource, body);
  } else {
    status = access_of_other(gate, resource, ns, body);
  }
  if (!status) return refuse(status.error());
  body["status"] = std::move(*status);
  return body;
}

}  // namespace edgemesh::cloud
