// Configuration and secrets, and what may change in pods.
#include <openssl/evp.h>

#include <nlohmann/json.hpp>

#include "cloud/api/validate.h"
#include "cloud/api/validate_kinds.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

// What may change in a pod's spec, set to the same value in both.
json comparable_spec(const json& object) {
  const json* found = kube::find(object, "spec");
  json spec = found != nullptr ? *found : json::object();
  for (const char* name : {"containers", "initContainers"}) {
    auto list = spec.find(name);
    if (list == spec.end() || !list->is_array()) continue;
    for (json& container : *list) {
      if (container.is_object()) container["image"] = "";
    }
  }
  for (const char* name : {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds",
                           "schedulingGates", "ephemeralContainers"}) {
    spec.erase(name);
  }
  return spec;
}

std::string base64(const std::string& text) {
  std::string out(4 * ((text.size() + 2) / 3) + 1, '\0');
  int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),         // NOLINT
                          reinterpret_cast<const unsigned char*>(text.data()),  // NOLINT
                          static_cast<int>(text.size()));
  out.resize(static_cast<size_t>(n));
  return out;
}

bool is_base64(const std::string& text) {
  if (text.size() % 4 != 0) return false;
  size_t body = text.size();
  while (body > 0 && text.size() - body < 2 && text[body - 1] == '=') --body;
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  return text.substr(0, body).find_first_not_of(kAlphabet) == std::string::npos;
}

}  // namespace

void fold_string_data(json* object) {
  if (!object->contains("stringData")) return;
  json& data = (*object)["data"];
  const json* plain = &(*object)["stringData"];
  if (plain->is_object() && (data.is_object() || data.is_null())) {
    for (const auto& [key, value] : plain->items()) {
      if (value.is_string()) data[key] = base64(value.get<std::string>());
    }
  }
  if (data.is_null()) object->erase("data");
  object->erase("stringData");
}

void validate_data(const json& object, FieldErrors* out) {
  bool secret = kube::text_at(object, "kind") == "Secret";
  const json* data = kube::find(object, "data");
  if (data == nullptr) return;
  if (!data->is_object()) {
    out->push_back(FieldError::invalid("data", data->dump().substr(0, 40), "want a map"));
    return;
  }
  for (const auto& [key, value] : data->items()) {
    std::string at = "data[" + key + "]";
    bool good_key = !key.empty() && key.size() <= 253 &&
                    key.find_first_not_of(
                        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                        "0123456789-_.") == std::string::npos;
    if (!good_key) {
      out->push_back(FieldError::invalid(
          at, json(key).dump(),
          "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"));
    }
    if (!value.is_string()) {
      out->push_back(FieldError::invalid(at, value.dump().substr(0, 40), "must be a string"));
    } else if (secret && !is_base64(value.get<std::string>())) {
      out->push_back(FieldError::invalid(at, "\"...\"", "must be base64"));
    }
  }
}

void validate_pod_change(const json& before, const json& after, FieldErrors* out) {
  json old_spec = comparable_spec(before);
  json new_spec = comparable_spec(after);
  // A pod is bound to a node once.
  if (kube::text_at(old_spec, "nodeName").empty()) {
    old_spec.erase("nodeName");
    new_spec.erase("nodeName");
  }
  if (old_spec == new_spec) return;
  out->push_back(FieldError::forbidden(
      "spec",
      "pod updates may not change fields other than `spec.containers[*].image`,"
      "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
      "additions to existing tolerations),`spec.terminationGracePeriodSeconds`"));
}

void validate_data_change(const json& before, const json& after, FieldErrors* out) {
  const json* fixed = kube::find(before, "immutable");
  if (fixed == nullptr || *fixed != json(true)) return;
  const json* still = kube::find(after, "immutable");
  if (still == nullptr || *still != json(true)) {
    out->push_back(
        FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
  }
  for (const char* name : {"data", "binaryData"}) {
    const json* old_data = kube::find(before, name);
    const json* new_data = kube::find(after, name);
    bool same = (old_data == nullptr) == (new_data == nullptr) &&
                (old_data == nullptr || *old_data == *new_data);
    if (!same) {
      out->push_back(FieldError::forbidden(name, "field is immutable when `immutable` is set"));
    }
  }
}

}  // namespace edgemesh::cloud
