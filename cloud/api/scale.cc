#include "cloud/api/scale.h"

#include <nlohmann/json.hpp>

#include "cloud/api/json_path.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

int64_t number_at(const json& object, const std::string& path) {
  auto found = json_path(object, path);
  return found.size() == 1 && found[0]->is_number_integer() ? found[0]->get<int64_t>() : 0;
}

}  // namespace

std::string selector_text(const json& selector) {
  if (selector.is_string()) return selector.get<std::string>();
  std::string out;
  auto add = [&out](const std::string& term) { out += (out.empty() ? "" : ",") + term; };
  const json* labels = kube::find(selector, "matchLabels");
  // Of a ReplicationController the labels stand there by themselves.
  bool plain = labels == nullptr && kube::find(selector, "matchExpressions") == nullptr;
  if (plain) labels = &selector;
  if (labels != nullptr && labels->is_object()) {
    for (const auto& [key, value] : labels->items()) {
      if (value.is_string()) add(key + "=" + value.get<std::string>());
    }
  }
  const json* terms = kube::find(selector, "matchExpressions");
  for (const json& term : terms != nullptr && terms->is_array() ? *terms : json::array()) {
    std::string key = kube::text_at(term, "key"), op = kube::text_at(term, "operator"), values;
    if (const json* list = kube::find(term, "values"); list != nullptr && list->is_array()) {
      for (const json& value : *list) {
        if (value.is_string()) values += (values.empty() ? "" : ",") + value.get<std::string>();
      }
    }
    if (op == "In") add(key + " in (" + values + ")");
    if (op == "NotIn") add(key + " notin (" + values + ")");
    if (op == "Exists") add(key);
    if (op == "DoesNotExist") add("!" + key);
  }
  return out;
}

json scale_of(const ResourceInfo& resource, const json& object) {
  const ScalePaths& paths = *resource.scale;
  json meta = json::object();
  for (const char* name : {"name", "namespace", "uid", "resourceVersion", "creationTimestamp"}) {
    if (const json* value = kube::find(object, "metadata", name)) meta[name] = *value;
  }
  json status = {{"replicas", number_at(object, paths.status)}};
  if (!paths.selector.empty()) {
    auto found = json_path(object, paths.selector);
    std::string text = found.empty() ? std::string() : selector_text(*found[0]);
    if (!text.empty()) status["selector"] = text;
  }
  return {{"kind", "Scale"},
          {"apiVersion", "autoscaling/v1"},
          {"metadata", std::move(meta)},
          {"spec", {{"replicas", number_at(object, paths.spec)}}},
          {"status", std::move(status)}};
}

ApiResult<void> set_scale(const ResourceInfo& resource, const json& scale, json* object) {
  const json* replicas = kube::find(scale, "spec", "replicas");
  int64_t wanted =
      replicas != nullptr && replicas->is_number_integer() ? replicas->get<int64_t>() : 0;
  if (wanted < 0 || wanted > INT32_MAX) {
    return refuse(ApiError::invalid(resource, kube::text_at(*object, "metadata", "name"),
                                    {FieldError::invalid("spec.replicas", std::to_string(wanted),
                                                         "must be greater than or equal to 0")}));
  }
  json* at = object;
  std::string_view path = resource.scale->spec;
  while (path.starts_with(".")) {
    path.remove_prefix(1);
    size_t dot = path.find('.');
    std::string name(path.substr(0, dot));
    if (!at->is_object()) *at = json::object();
    at = &(*at)[name];
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot);
  }
  *at = wanted;
  return {};
}

}  // namespace edgemesh::cloud
