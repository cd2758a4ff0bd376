// Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs.
#include <nlohmann/json.hpp>

#include "cloud/api/scale.h"
#include "cloud/api/validate.h"
#include "cloud/api/validate_kinds.h"
#include "kube/cron_schedule.h"
#include "kube/json_util.h"
#include "kube/selector.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

void check_not_negative(const json& object, const std::string& at,
                        std::initializer_list<const char*> names, FieldErrors* out) {
  for (const char* name : names) {
    const json* value = find(object, name);
    if (value == nullptr || !value->is_number_integer() || value->get<int64_t>() >= 0) continue;
    out->push_back(FieldError::invalid(fmt::format("{}.{}", at, name), value->dump(),
                                       "must be greater than or equal to 0"));
  }
}

void check_labels(const json* labels, const std::string& at, FieldErrors* out) {
  if (labels == nullptr || !labels->is_object()) return;
  for (const auto& [key, value] : labels->items()) {
    if (auto why = check_qualified_name(key); !why.empty()) {
      out->push_back(FieldError::invalid(at, json(key).dump(), why));
    }
    if (!value.is_string()) continue;
    if (auto why = check_label_value(value.get_ref<const std::string&>()); !why.empty()) {
      out->push_back(FieldError::invalid(at, value.dump(), why));
    }
  }
}

bool selects(const json& object) {
  ResourceInfo one;
  one.scale = std::make_shared<ScalePaths>(ScalePaths{"", "", ".spec.selector"});
  auto selector = kube::LabelSelector::parse(text_at(scale_of(one, object), "status", "selector"));
  if (!selector) return false;
  kube::Pairs labels;
  if (const json* own = find(object, "spec", "template", "metadata", "labels")) {
    for (const auto& [key, value] : own->items()) {
      if (value.is_string()) labels.emplace_back(key, value.get<std::string>());
    }
  }
  return selector->matches(labels);
}

void check_selector(const json& object, FieldErrors* out) {
  const json* selector = find(object, "spec", "selector");
  if (selector == nullptr) {
    out->push_back(FieldError::required("spec.selector"));
    return;
  }
  const json* labels = find(*selector, "matchLabels");
  const json* terms = find(*selector, "matchExpressions");
  bool empty = (labels == nullptr || labels->empty()) && (terms == nullptr || terms->empty());
  if (empty) {
    out->push_back(FieldError::invalid(
        "spec.selector", "{}",
        "empty selector is invalid for " + std::string(text_at(object, "kind"))));
    return;
  }
  check_labels(labels, "spec.selector.matchLabels", out);
  if (!selects(object)) {
    const json* own = find(object, "spec", "template", "metadata", "labels");
    out->push_back(FieldError::invalid("spec.template.metadata.labels",
                                       own != nullptr ? own->dump() : "null",
                                       "`selector` does not match template `labels`"));
  }
}

void check_template(const json& object, const std::string& at, bool runs_for_ever,
                    FieldErrors* out) {
  const json* pod = find(object, "template");
  static const json kNone = json::object();
  const json* spec = pod != nullptr ? find(*pod, "spec") : nullptr;
  validate_pod_spec(spec != nullptr ? *spec : kNone, at + ".template.spec", out);
  if (spec == nullptr) return;
  if (pod != nullptr) check_labels(find(*pod, "metadata", "labels"), at + ".template.labels", out);
  std::string policy = text_at(*spec, "restartPolicy");
  std::string where = at + ".template.spec.restartPolicy";
  if (runs_for_ever && policy != "Always") {
    out->push_back(FieldError::not_supported(where, policy, {"Always"}));
  } else if (!runs_for_ever && policy != "OnFailure" && policy != "Never") {
    out->push_back(FieldError::required(where, "valid values: \"OnFailure\", \"Never\""));
  }
}

void check_strategy(const json& spec, const char* field, const std::vector<std::string>& types,
                    FieldErrors* out) {
  const json* strategy = find(spec, field);
  if (strategy == nullptr) return;
  std::string type = text_at(*strategy, "type"), at = fmt::format("spec.{}", field);
  if (std::find(types.begin(), types.end(), type) == types.end()) {
    out->push_back(FieldError::not_supported(at + ".type", type, types));
  }
  const json* rolling = find(*strategy, "rollingUpdate");
  if (rolling == nullptr) return;
  if (type != "RollingUpdate") {
    out->push_back(FieldError::forbidden(
        at + ".rollingUpdate",
        fmt::format("may not be specified when strategy `type` is '{}'", type)));
    return;
  }
  auto zero = [&](const char* name) {
    const json* value = find(*rolling, name);
    return value != nullptr && (*value == json(0) || *value == json("0%"));
  };
  if (zero("maxUnavailable") && zero("maxSurge")) {
    out->push_back(FieldError::invalid(at + ".rollingUpdate.maxUnavailable", "0",
                                       "may not be 0 when `maxSurge` is 0"));
  }
}

void check_job(const json& spec, const std::string& at, FieldErrors* out) {
  check_not_negative(spec, at,
                     {"parallelism", "completions", "backoffLimit", "activeDeadlineSeconds",
                      "ttlSecondsAfterFinished"},
                     out);
  check_template(spec, at, false, out);
  std::string mode = text_at(spec, "completionMode");
  if (!mode.empty() && mode != "NonIndexed" && mode != "Indexed") {
    out->push_back(
        FieldError::not_supported(at + ".completionMode", mode, {"Indexed", "NonIndexed"}));
  }
}

void check_cron_job(const json& spec, FieldErrors* out) {
  std::string schedule = text_at(spec, "schedule");
  if (schedule.empty()) {
    out->push_back(FieldError::required("spec.schedule"));
  } else if (schedule.find("TZ") != std::string::npos) {
    out->push_back(
        FieldError::invalid("spec.schedule", json(schedule).dump(),
                            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
  } else if (auto read = kube::CronSchedule::parse(schedule); !read) {
    out->push_back(
        FieldError::invalid("spec.schedule", json(schedule).dump(), read.error().message));
  }
  const std::string zone = text_at(spec, "timeZone");
  if (auto read = kube::TimeZone::load(zone); !zone.empty() && !read) {
    out->push_back(FieldError::invalid("spec.timeZone", json(zone).dump(), read.error().message));
  }
  std::string policy = text_at(spec, "concurrencyPolicy");
  if (policy != "Allow" && policy != "Forbid" && policy != "Replace") {
    out->push_back(FieldError::not_supported("spec.concurrencyPolicy", policy,
                                             {"Allow", "Forbid", "Replace"}));
  }
  check_not_negative(
      spec, "spec",
      {"startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"}, out);
  if (const json* job = find(spec, "jobTemplate", "spec")) {
    check_job(*job, "spec.jobTemplate.spec", out);
  } else {
    out->push_back(FieldError::required("spec.jobTemplate.spec.template.spec.containers"));
  }
}

void check_same(const json& before, const json& after, const char* name, FieldErrors* out) {
  const json* old = find(before, "spec", name);
  const json* now = find(after, "spec", name);
  bool same = (old == nullptr) == (now == nullptr) && (old == nullptr || *old == *now);
  if (same) return;
  out->push_back(FieldError::invalid(fmt::format("spec.{}", name),
                                     now != nullptr ? now->dump().substr(0, 400) : "null",
                                     "field is immutable"));
}

}  // namespace

void validate_workload(const json& object, FieldErrors* out) {
  std::string kind = text_at(object, "kind");
  const json* spec = find(object, "spec");
  if (spec == nullptr || kind == "ControllerRevision") return;
  if (kind == "CronJob") return check_cron_job(*spec, out);
  if (kind == "Job") return check_job(*spec, "spec", out);
  check_not_negative(
      *spec, "spec",
      {"replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"}, out);
  check_selector(object, out);
  check_template(*spec, "spec", true, out);
  if (kind == "Deployment") check_strategy(*spec, "strategy", {"Recreate", "RollingUpdate"}, out);
  if (kind == "DaemonSet" || kind == "StatefulSet") {
    check_strategy(*spec, "updateStrategy", {"OnDelete", "RollingUpdate"}, out);
  }
}

void validate_workload_change(const json& before, const json& after, FieldErrors* out) {
  std::string kind = text_at(after, "kind");
  if (kind == "CronJob") return;
  if (kind == "ControllerRevision") {
    if (before.value("data", json()) != after.value("data", json())) {
      out->push_back(FieldError::invalid("data", "{}", "field is immutable"));
    }
    return;
  }
  check_same(before, after, "selector", out);
  if (kind == "Job") {
    check_same(before, after, "template", out);
    check_same(before, after, "completionMode", out);
  }
  if (kind == "StatefulSet") {
    for (const char* name : {"serviceName", "podManagementPolicy", "volumeClaimTemplates"}) {
      check_same(before, after, name, out);
    }
  }
}

}  // namespace edgemesh::cloud
