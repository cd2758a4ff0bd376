// CustomResourceDefinitions: their life, and that of the objects of what they define.
#include <nlohmann/json.hpp>

#include "cloud/api/core.h"
#include "cloud/api/custom.h"
#include "cloud/api/meta.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using nlohmann::json;

void ApiCore::serve_custom(const StoredObject& definition, const ObjectPtr& previous) {
  auto object = kube::parse_json(definition.text);
  if (!object || kube::find(*object, "spec") == nullptr) return;
  loop_.defer([this, name = definition.name] { check_custom(name); });
  // Its status changes more often than what it defines.
  const ResourceInfo* served = registry_.find_storage(definition.name);
  if (previous != nullptr && served != nullptr && served->terminating == is_deleting(*object)) {
    auto before = kube::parse_json(previous->text);
    if (before && same_spec(*before, *object)) return;
  }
  bool free = names_taken(*object, registry_).empty();
  registry_.replace(definition.name,
                    free ? resources_of(*object) : std::vector<std::unique_ptr<ResourceInfo>>());
  if (const ResourceInfo* stored = registry_.find_storage(definition.name)) store_.adopt(*stored);
}

void ApiCore::check_custom(const std::string& name) {
  const ResourceInfo& definitions = *registry_.find_storage(kDefinitions);
  ObjectPtr previous = store_.latest(definitions, "", name);
  if (previous == nullptr) return;
  auto object = kube::parse_json(previous->text);
  if (!object) return;
  std::string now = kube::rfc3339(loop_.clock().wall_now());
  bool changed = set_definition_status(names_taken(*object, registry_), now, &*object);
  if (is_deleting(*object)) return empty_custom(name);
  if (!changed) return;
  store_.replace(definitions, previous, std::move(*object), [this, name](Result<ObjectPtr> stored) {
    if (stored) return;
    if (stored.error().code == ErrorCode::kConflict) return check_custom(name);
    EM_LOG(kWarn, "api", "definition {}: {}", name, stored.error().message);
  });
}

void ApiCore::empty_custom(const std::string& name) {
  if (const ResourceInfo* custom = registry_.find_storage(name)) {
    if (auto content = store_.list(*custom, {})) {
      for (const ObjectPtr& object : content->items) {
        remove(*custom, object->ns, object->name, {}, [name](ApiResult<Written> removed) {
          if (!removed && removed.error().code != 404) {
            EM_LOG(kWarn, "api", "definition {}: {}", name, removed.error().message);
          }
        });
      }
    }
  }
  finish_custom(name);
}

void ApiCore::finish_custom(const std::string& name) {
  const ResourceInfo& definitions = *registry_.find_storage(kDefinitions);
  ObjectPtr previous = store_.latest(definitions, "", name);
  if (previous == nullptr) return;
  auto object = kube::parse_json(previous->text);
  if (!object || !is_deleting(*object)) return;
  const ResourceInfo* custom = registry_.find_storage(name);
  if (custom != nullptr && store_.count(*custom) > 0) return;
  json kept = json::array();
  if (const json* list = kube::find(*object, "metadata", "finalizers")) {
    for (const json& item : *list) {
      if (item != json(kDefinitionFinalizer)) kept.push_back(item);
    }
  }
  auto report = [name](const std::string& message) {
    EM_LOG(kWarn, "api", "definition {}: {}", name, message);
  };
  if (kept.empty()) {
    return erase(definitions, previous, [report](ApiResult<Written> erased) {
      if (!erased && erased.error().code != 404) report(erased.error().message);
    });
  }
  if (kept == (*object)["metadata"]["finalizers"]) return;
  (*object)["metadata"]["finalizers"] = std::move(kept);
  store_.replace(definitions, previous, std::move(*object), [report](Result<ObjectPtr> stored) {
    if (!stored) report(stored.error().message);
  });
}

}  // namespace edgemesh::cloud
