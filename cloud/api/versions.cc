#include "cloud/api/versions.h"

#include <nlohmann/json.hpp>

#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

// Names of the fields in core/v1 and in events.k8s.io/v1.
constexpr std::pair<const char*, const char*> kEventFields[] = {
    {"involvedObject", "regarding"},
    {"message", "note"},
    {"source", "deprecatedSource"},
    {"firstTimestamp", "deprecatedFirstTimestamp"},
    {"lastTimestamp", "deprecatedLastTimestamp"},
    {"count", "deprecatedCount"},
    {"reportingComponent", "reportingController"}};

void rename(const char* from, const char* to, json* object) {
  auto it = object->find(from);
  if (it == object->end()) return;
  json value = std::move(*it);
  object->erase(it);
  (*object)[to] = std::move(value);
}

void convert(const ResourceInfo& served, json* object) {
  (*object)["apiVersion"] = served.type.api_version();
  if (served.custom) return;
  for (const auto& [core, named] : kEventFields) rename(core, named, object);
}

}  // namespace

void to_stored(const ResourceInfo& served, json* body) {
  if (served.stored_as == nullptr || !body->is_object()) return;
  if (kube::text_at(*body, "apiVersion") == served.type.api_version()) {
    (*body)["apiVersion"] = served.stored_as->type.api_version();
  }
  if (served.custom) return;
  for (const auto& [core, named] : kEventFields) rename(named, core, body);
}

std::string to_served(const ResourceInfo& served, std::string text) {
  if (served.stored_as == nullptr) return text;
  auto object = kube::parse_json(text);
  if (!object || kube::text_at(*object, "kind") == "Status") return text;
  auto items = object->find("items");
  if (items != object->end() && items->is_array()) {
    (*object)["apiVersion"] = served.type.api_version();
    for (json& item : *items) convert(served, &item);
  } else {
    convert(served, &*object);
  }
  return kube::to_text(*object);
}

ObjectPtr to_served(const ResourceInfo& served, const ObjectPtr& object) {
  if (served.stored_as == nullptr) return object;
  auto out = std::make_shared<StoredObject>(*object);
  out->text = to_served(served, std::move(out->text));
  return out;
}

}  // namespace edgemesh::cloud
