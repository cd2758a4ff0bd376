// Subresources that are objects of their own: scale, binding, eviction, token.
#include <nlohmann/json.hpp>

#include "cloud/api/core.h"
#include "cloud/api/meta.h"
#include "cloud/api/scale.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/selector.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using kube::text_at;
using nlohmann::json;

namespace {

const kube::ResourceType kBudgets{"policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget",
                                  true};

std::string created_status() {
  return R"({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201})";
}

// A LabelSelector as the text that selectors are parsed from.
std::string selector_of(const json& object) {
  ResourceInfo one;
  one.scale = std::make_shared<ScalePaths>(ScalePaths{"", "", ".spec.selector"});
  return text_at(scale_of(one, object), "status", "selector");
}

bool is_ready(const json& pod) {
  const json* conditions = kube::find(pod, "status", "conditions");
  if (conditions == nullptr || !conditions->is_array()) return false;
  for (const json& condition : *conditions) {
    if (text_at(condition, "type") == "Ready") return text_at(condition, "status") == "True";
  }
  return false;
}

// "25%" of `total`, rounded up, or the number.
int64_t portion(const json& value, int64_t total) {
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_string()) return 0;
  int64_t percent = std::atoll(value.get_ref<const std::string&>().c_str());
  return (total * percent + 99) / 100;
}

}  // namespace

void ApiCore::update_scale(const ResourceInfo& resource, const ObjectPtr& previous,
                           const json& scale, const kube::WriteOptions& options, Done done) {
  if (resource.scale == nullptr) {
    return done(refuse(ApiError::simple(404, "NotFound", "this resource has no scale")));
  }
  auto before = kube::parse_json(previous->text);
  if (!before) return done(refuse(ApiError::simple(500, "InternalError", before.error().message)));
  if (auto good = check_preconditions(resource, *previous, scale); !good) {
    return done(refuse(good.error()));
  }
  json body = *before;
  if (auto good = set_scale(resource, scale, &body); !good) return done(refuse(good.error()));
  if (auto good = prepare_change(resource, *before, *previous, "", &body); !good) {
    return done(refuse(good.error()));
  }
  store_change(resource, previous, *before, std::move(body), options,
               [&resource, done = std::move(done)](ApiResult<Written> written) {
                 if (!written) return done(std::move(written));
                 auto object = kube::parse_json(written->text);
                 if (object) written->text = kube::to_text(scale_of(resource, *object));
                 done(std::move(written));
               });
}

void ApiCore::create_below(const ResourceInfo& resource, std::string_view ns, std::string_view name,
                           const json& body, const kube::WriteOptions& options, Done done) {
  ObjectPtr previous = store_.latest(resource, ns, name);
  if (previous == nullptr) return done(refuse(ApiError::not_found(resource, name)));
  if (!body.is_object()) return done(refuse(ApiError::bad_request("want a JSON object")));
  auto object = kube::parse_json(previous->text);
  if (!object) return done(refuse(ApiError::simple(500, "InternalError", object.error().message)));
  if (auto good = admit(resource, ns, name, options.subresource, &*object, &body); !good) {
    return done(refuse(good.error()));
  }
  if (resource.is("ServiceAccount") && options.subresource == "token" && token_requests_) {
    auto answer = token_requests_(*previous, body);
    if (!answer) return done(refuse(answer.error()));
    return done(Written{kube::to_text(*answer), true, false});
  }
  bool pod = resource.is("Pod");
  if (pod && options.subresource == "binding") {
    return bind_pod(resource, previous, body, options, std::move(done));
  }
  if (pod && options.subresource == "eviction") {
    return evict_pod(resource, previous, body, options, std::move(done));
  }
  done(refuse(
      ApiError::simple(404, "NotFound", "the server could not find the requested resource")));
}

void ApiCore::bind_pod(const ResourceInfo& resource, const ObjectPtr& previous, const json& body,
                       const kube::WriteOptions& options, Done done) {
  auto before = kube::parse_json(previous->text);
  if (!before) return done(refuse(ApiError::simple(500, "InternalError", before.error().message)));
  std::string node = text_at(body, "target", "name");
  std::string kind = text_at(body, "target", "kind");
  if (node.empty() || (!kind.empty() && kind != "Node")) {
    FieldError wrong = node.empty()
                           ? FieldError::required("target.name")
                           : FieldError::not_supported("target.kind", kind, {"Node", "<empty>"});
    ApiError error = ApiError::invalid(resource, previous->name, {wrong});
    return done(refuse(error));
  }
  std::string uid = text_at(body, "metadata", "uid");
  std::string now_on = text_at(*before, "spec", "nodeName");
  std::string why;
  if (!uid.empty() && uid != previous->uid) why = "the UID in the binding is that of another pod";
  if (!now_on.empty())
    why = fmt::format("pod {} is already assigned to node \"{}\"", previous->name, now_on);
  if (is_deleting(*before))
    why = fmt::format("pod {} is being deleted, cannot be assigned to a host", previous->name);
  const json* gates = kube::find(*before, "spec", "schedulingGates");
  if (gates != nullptr && !gates->empty())
    why = fmt::format("pod {} has non-empty .spec.schedulingGates", previous->name);
  if (!why.empty()) return done(refuse(ApiError::conflict(resource, previous->name, why)));
  json changed = *before;
  changed["spec"]["nodeName"] = node;
  for (const char* name : {"annotations", "labels"}) {
    const json* extra = kube::find(body, "metadata", name);
    if (extra == nullptr || !extra->is_object()) continue;
    for (const auto& [key, value] : extra->items()) changed["metadata"][name][key] = value;
  }
  json& conditions = changed["status"]["conditions"];
  if (!conditions.is_array()) conditions = json::array();
  json kept = json::array();
  for (const json& condition : conditions) {
    if (text_at(condition, "type") != "PodScheduled") kept.push_back(condition);
  }
  kept.push_back({{"type", "PodScheduled"},
                  {"status", "True"},
                  {"lastProbeTime", nullptr},
                  {"lastTransitionTime", kube::rfc3339(loop_.clock().wall_now())}});
  conditions = std::move(kept);
  store_change(resource, previous, *before, std::move(changed), options,
               [done = std::move(done)](ApiResult<Written> written) {
                 if (!written) return done(std::move(written));
                 done(Written{created_status(), true, true});
               });
}

std::unique_ptr<ApiError> ApiCore::budget_refuses(const ObjectPtr& pod) const {
  const ResourceInfo* budgets = registry_.find(kBudgets);
  const ResourceInfo* pods = registry_.find(kube::kPods);
  Filter in_namespace;
  in_namespace.ns = pod->ns;
  auto found = store_.list(*budgets, in_namespace);
  if (!found) return nullptr;
  for (const ObjectPtr& stored : found->items) {
    auto budget = kube::parse_json(stored->text);
    if (!budget || kube::find(*budget, "spec", "selector") == nullptr) continue;
    Filter covered = in_namespace;
    auto labels = kube::LabelSelector::parse(selector_of(*budget));
    if (!labels) continue;
    covered.labels = std::move(*labels);
    if (!covered.matches(*pod)) continue;
    auto all = store_.list(*pods, covered);
    if (!all) continue;
    int64_t total = 0, healthy = 0;
    for (const ObjectPtr& one : all->items) {
      auto object = kube::parse_json(one->text);
      if (!object || is_deleting(*object)) continue;
      ++total;
      healthy += is_ready(*object) ? 1 : 0;
    }
    int64_t needed = 0;
    if (const json* least = kube::find(*budget, "spec", "minAvailable"))
      needed = portion(*least, total);
    if (const json* most = kube::find(*budget, "spec", "maxUnavailable")) {
      needed = total - portion(*most, total);
    }
    auto object = kube::parse_json(pod->text);
    bool counts = object && is_ready(*object);
    if (healthy - (counts ? 1 : 0) >= needed || (!counts && healthy >= needed)) continue;
    auto out = std::make_unique<ApiError>(
        ApiError::simple(429, "TooManyRequests",
                         "Cannot evict pod as it would violate the pod's disruption budget."));
    out->causes.push_back(
        {"DisruptionBudget", "",
         fmt::format("The disruption budget {} needs {} healthy pods and has {} currently",
                     stored->name, needed, healthy)});
    return out;
  }
  return nullptr;
}

void ApiCore::evict_pod(const ResourceInfo& resource, const ObjectPtr& previous, const json& body,
                        const kube::WriteOptions& options, Done done) {
  std::string named = text_at(body, "metadata", "name");
  if (!named.empty() && named != previous->name) {
    return done(
        refuse(ApiError::bad_request("name in URL does not match name in Eviction object")));
  }
  auto object = kube::parse_json(previous->text);
  if (!object) return done(refuse(ApiError::simple(500, "InternalError", object.error().message)));
  std::string phase = text_at(*object, "status", "phase");
  bool over =
      phase == "Succeeded" || phase == "Failed" || phase == "Pending" || is_deleting(*object);
  if (!over) {
    if (auto refused = budget_refuses(previous)) return done(refuse(*refused));
  }
  Deletion deletion;
  const json* wanted = kube::find(body, "deleteOptions");
  deletion.dry_run = options.dry_run;
  if (wanted != nullptr) {
    const json* grace = kube::find(*wanted, "gracePeriodSeconds");
    if (grace != nullptr && grace->is_number_integer()) deletion.grace_s = grace->get<int>();
    deletion.uid = text_at(*wanted, "preconditions", "uid");
    deletion.resource_version = text_at(*wanted, "preconditions", "resourceVersion");
    if (const json* dry = kube::find(*wanted, "dryRun"); dry != nullptr && !dry->empty())
      deletion.dry_run = true;
  }
  remove(resource, previous->ns, previous->name, deletion,
         [done = std::move(done)](ApiResult<Written> written) {
           if (!written) return done(std::move(written));
           done(Written{created_status(), true, true});
         });
}

}  // namespace edgemesh::cloud
