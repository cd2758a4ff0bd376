#include "cloud/api/validate.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "cloud/api/custom.h"
#include "cloud/api/defaults.h"
#include "cloud/api/validate_kinds.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

constexpr std::string_view kBadLabel =
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must "
    "start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for "
    "validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
constexpr std::string_view kBadSubdomain =
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', "
    "and must start and end with an alphanumeric character (e.g. 'example.com', regex used for "
    "validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
constexpr std::string_view kBad1035 =
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
constexpr std::string_view kBadValue =
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or "
    "'12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
constexpr std::string_view kBadQualified =
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with "
    "an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

bool lower(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}
bool alnum(char c) {
  return lower(c) || (c >= 'A' && c <= 'Z');
}

bool is_label(std::string_view text) {
  return !text.empty() && lower(text.front()) && lower(text.back()) &&
         std::all_of(text.begin(), text.end(), [](char c) { return lower(c) || c == '-'; });
}

bool is_name_part(std::string_view text) {
  return !text.empty() && alnum(text.front()) && alnum(text.back()) &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return alnum(c) || c == '-' || c == '_' || c == '.'; });
}

std::string_view check_name(const ResourceInfo& resource, std::string_view name) {
  if (resource.custom) return check_dns_subdomain(name);
  if (resource.type.kind == "Service") return check_dns_1035(name);
  if (resource.type.kind == "Namespace") return check_dns_label(name);
  // Names like system:node and system:controller:token-cleaner.
  if (resource.type.group == "rbac.authorization.k8s.io") {
    bool good = !name.empty() && name != "." && name != ".." &&
                name.find_first_of("/%") == std::string_view::npos;
    return good ? std::string_view() : "may not be '.' or '..', and may not contain '/' or '%'";
  }
  return check_dns_subdomain(name);
}

// A field of the metadata that must be a map of strings.
Result<> check_string_map(const json& meta, const char* name) {
  auto it = meta.find(name);
  if (it == meta.end() || it->is_null()) return {};
  bool good = it->is_object() &&
              std::all_of(it->begin(), it->end(), [](const json& v) { return v.is_string(); });
  if (good) return {};
  return fail(ErrorCode::kInvalidArgument, "metadata.{}: want a map of strings", name);
}

Result<> check_string_list(const json& meta, const char* name) {
  auto it = meta.find(name);
  if (it == meta.end() || it->is_null()) return {};
  bool good = it->is_array() &&
              std::all_of(it->begin(), it->end(), [](const json& v) { return v.is_string(); });
  if (good) return {};
  return fail(ErrorCode::kInvalidArgument, "metadata.{}: want a list of strings", name);
}

}  // namespace

std::string_view check_dns_label(std::string_view text) {
  if (text.size() > 63) return "must be no more than 63 characters";
  return is_label(text) ? std::string_view() : kBadLabel;
}

std::string_view check_dns_subdomain(std::string_view text) {
  if (text.size() > 253) return "must be no more than 253 characters";
  while (true) {
    size_t dot = text.find('.');
    if (!is_label(text.substr(0, dot))) return kBadSubdomain;
    if (dot == std::string_view::npos) return {};
    text.remove_prefix(dot + 1);
  }
}

std::string_view check_dns_1035(std::string_view text) {
  if (text.size() > 63) return "must be no more than 63 characters";
  return is_label(text) && !(text[0] >= '0' && text[0] <= '9') ? std::string_view() : kBad1035;
}

std::string_view check_label_value(std::string_view text) {
  if (text.size() > 63) return "must be no more than 63 characters";
  return text.empty() || is_name_part(text) ? std::string_view() : kBadValue;
}

std::string_view check_qualified_name(std::string_view text) {
  size_t slash = text.find('/');
  if (slash != std::string_view::npos) {
    if (auto why = check_dns_subdomain(text.substr(0, slash)); !why.empty()) return why;
    text.remove_prefix(slash + 1);
  }
  if (text.size() > 63) return "name part must be no more than 63 characters";
  return is_name_part(text) ? std::string_view() : kBadQualified;
}

Result<> check_shape(const ResourceInfo& resource, const json& object) {
  auto meta = object.find("metadata");
  if (meta == object.end()) return {};
  if (!meta->is_object()) return fail(ErrorCode::kInvalidArgument, "metadata: want an object");
  for (const char* name : {"name", "namespace", "uid", "resourceVersion", "generateName"}) {
    auto it = meta->find(name);
    if (it != meta->end() && !it->is_string() && !it->is_null()) {
      return fail(ErrorCode::kInvalidArgument, "metadata.{}: want a string", name);
    }
  }
  EM_TRY_VOID(check_string_map(*meta, "labels"));
  EM_TRY_VOID(check_string_map(*meta, "annotations"));
  EM_TRY_VOID(check_string_list(*meta, "finalizers"));
  for (const char* name : {"spec", "status"}) {
    auto it = object.find(name);
    if (it != object.end() && !it->is_object() && !it->is_null()) {
      return fail(ErrorCode::kInvalidArgument, "{}: want an object", name);
    }
  }
  return check_kind_shape(resource, object);
}

FieldErrors validate_meta(const ResourceInfo& resource, const json& object) {
  FieldErrors out;
  std::string name = kube::text_at(object, "metadata", "name");
  if (name.empty()) {
    out.push_back(FieldError::required("metadata.name", "name or generateName is required"));
  } else if (auto why = check_name(resource, name); !why.empty()) {
    out.push_back(FieldError::invalid("metadata.name", json(name).dump(), why));
  }
  if (const json* labels = kube::find(object, "metadata", "labels")) {
    for (const auto& [key, value] : labels->items()) {
      if (auto why = check_qualified_name(key); !why.empty()) {
        out.push_back(FieldError::invalid("metadata.labels", json(key).dump(), why));
      }
      if (auto why = check_label_value(value.get_ref<const std::string&>()); !why.empty()) {
        out.push_back(FieldError::invalid("metadata.labels", value.dump(), why));
      }
    }
  }
  if (const json* annotations = kube::find(object, "metadata", "annotations")) {
    constexpr size_t kMaxBytes = 256 << 10;
    size_t bytes = 0;
    for (const auto& [key, value] : annotations->items()) {
      bytes += key.size() + value.get_ref<const std::string&>().size();
      if (auto why = check_qualified_name(key); !why.empty()) {
        out.push_back(FieldError::invalid("metadata.annotations", json(key).dump(), why));
      }
    }
    if (bytes > kMaxBytes) {
      out.push_back({"FieldValueTooLong", "metadata.annotations",
                     "Too long: must have at most 262144 bytes"});
    }
  }
  return out;
}

void set_defaults(const ResourceInfo& resource, json* object) {
  const std::string& kind = resource.type.kind;
  if (resource.custom) return;
  default_fields(resource, object);
  if (kind == "Service") return default_service(object);
  if (kind == "Pod") return default_pod(object);
  if (kind == "Namespace") return default_namespace(object);
  if (kind == "Secret") {
    if (kube::text_at(*object, "type").empty()) (*object)["type"] = "Opaque";
    return fold_string_data(object);
  }
  if (kind == "EndpointSlice") return default_endpoint_slice(object);
  if (kind == "Job") return default_workload(object);
  if (kind == "CustomResourceDefinition") return default_definition(object);
}

FieldErrors validate(const ResourceInfo& resource, const json& object) {
  FieldErrors out = validate_meta(resource, object);
  const std::string& kind = resource.type.kind;
  if (kind == "Service") validate_service(object, &out);
  if (kind == "Pod") validate_pod(object, &out);
  if (kind == "EndpointSlice") validate_endpoint_slice(object, &out);
  if (kind == "ConfigMap" || kind == "Secret") validate_data(object, &out);
  if (kind == "CustomResourceDefinition") validate_definition(object, &out);
  if (resource.type.group == "apps" || resource.type.group == "batch")
    validate_workload(object, &out);
  validate_other(object, &out);
  return out;
}

FieldErrors validate_change(const ResourceInfo& resource, const json& before, const json& after) {
  FieldErrors out;
  const std::string& kind = resource.type.kind;
  if (kind == "Pod" && !resource.custom) validate_pod_change(before, after, &out);
  if (kind == "ConfigMap" || kind == "Secret") validate_data_change(before, after, &out);
  if (resource.custom) return out;
  if (kind == "CustomResourceDefinition") validate_definition_change(before, after, &out);
  if (resource.type.group == "apps" || resource.type.group == "batch") {
    validate_workload_change(before, after, &out);
  }
  validate_other_change(before, after, &out);
  if (kind == "EndpointSlice" &&
      kube::text_at(before, "addressType") != kube::text_at(after, "addressType")) {
    out.push_back(FieldError::invalid(
        "addressType", json(kube::text_at(after, "addressType")).dump(), "field is immutable"));
  }
  if (kind == "Secret" && kube::text_at(before, "type") != kube::text_at(after, "type")) {
    out.push_back(FieldError::invalid("type", json(kube::text_at(after, "type")).dump(),
                                      "field is immutable"));
  }
  return out;
}

}  // namespace edgemesh::cloud
