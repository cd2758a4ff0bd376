// Deletion: preconditions, finalizers, grace, namespaces with all that is in them.
#include <nlohmann/json.hpp>

#include "cloud/api/core.h"
#include "cloud/api/meta.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

constexpr const char* kForeground = "foregroundDeletion";
constexpr const char* kOrphan = "orphan";

std::string success_status(const ResourceInfo& resource, const StoredObject& object) {
  json details = {{"name", object.name}, {"kind", resource.type.plural}, {"uid", object.uid}};
  if (!resource.type.group.empty()) details["group"] = resource.type.group;
  return kube::to_text({{"kind", "Status"},
                        {"apiVersion", "v1"},
                        {"metadata", json::object()},
                        {"status", "Success"},
                        {"details", details}});
}

bool is_protected(const ResourceInfo& resource, std::string_view name) {
  return resource.is("Namespace") && (name == "default" || name == "kube-system" ||
                                      name == "kube-public" || name == "kube-node-lease");
}

// Seconds to wait before the object really goes; 0: at once.
int grace_of(const ResourceInfo& resource, const json& object, int wanted) {
  // Only a pod that runs somewhere has something to end.
  if (!resource.is("Pod") || kube::text_at(object, "spec", "nodeName").empty()) return 0;
  std::string phase = kube::text_at(object, "status", "phase");
  if (phase == "Succeeded" || phase == "Failed") return 0;
  if (wanted >= 0) return wanted;
  const json* own = kube::find(object, "spec", "terminationGracePeriodSeconds");
  return own != nullptr && own->is_number_integer() ? own->get<int>() : 30;
}

// The finalizers of an object that is deleted so: dependents go before it (Foreground), or are
// released by the garbage collector (Orphan).
json finalizers_for(const json& object, std::string_view propagation) {
  const json* list = kube::find(object, "metadata", "finalizers");
  json out = json::array();
  for (const json& item : list != nullptr && list->is_array() ? *list : json::array()) {
    bool of_policy = item == kForeground || item == kOrphan;
    if (!of_policy || propagation.empty()) out.push_back(item);
  }
  if (propagation == "Foreground") out.push_back(kForeground);
  if (propagation == "Orphan") out.push_back(kOrphan);
  return out;
}

}  // namespace

void ApiCore::remove(const ResourceInfo& resource, std::string_view ns, std::string_view name,
                     const Deletion& deletion, Done done) {
  ObjectPtr previous = store_.latest(resource, ns, name);
  if (previous == nullptr) return done(refuse(ApiError::not_found(resource, name)));
  if (!deletion.uid.empty() && deletion.uid != previous->uid) {
    return done(refuse(ApiError::conflict(
        resource, name,
        fmt::format("Precondition failed: UID in precondition: {}, UID in object meta: {}",
                    deletion.uid, previous->uid))));
  }
  if (!deletion.resource_version.empty() &&
      deletion.resource_version != std::to_string(previous->version)) {
    return done(refuse(ApiError::conflict(
        resource, name,
        fmt::format("Precondition failed: ResourceVersion in precondition: {}, ResourceVersion in "
                    "object meta: {}",
                    deletion.resource_version, previous->version))));
  }
  if (is_protected(resource, name)) {
    return done(refuse(ApiError::forbidden(resource, name, "this namespace may not be deleted")));
  }
  auto object = kube::parse_json(previous->text);
  if (!object) return done(refuse(ApiError::simple(500, "InternalError", object.error().message)));
  if (auto good = admit(resource, previous->ns, name, "", &*object, nullptr); !good) {
    return done(refuse(good.error()));
  }
  if (deletion.dry_run) {
    return done(ApiCore::Written{success_status(resource, *previous), false, true});
  }
  int grace = grace_of(resource, *object, deletion.grace_s);
  json finalizers = finalizers_for(*object, deletion.propagation);
  bool is_definition = !resource.custom && resource.type.kind == "CustomResourceDefinition";
  bool stays = !finalizers.empty() || grace > 0 || resource.is("Namespace") || is_definition;
  if (stays) return mark_deleted(resource, previous, grace, std::move(finalizers), std::move(done));
  erase(resource, previous, std::move(done));
}

void ApiCore::mark_deleted(const ResourceInfo& resource, const ObjectPtr& previous, int grace_s,
                           json finalizers, Done done) {
  auto object = kube::parse_json(previous->text);
  if (!object) return done(refuse(ApiError::simple(500, "InternalError", object.error().message)));
  bool was_marked = is_deleting(*object);
  bool is_namespace = resource.is("Namespace");
  json before = *object;
  json& meta = (*object)["metadata"];
  bool is_definition = !resource.custom && resource.type.kind == "CustomResourceDefinition";
  const json* grace = kube::find(meta, "deletionGracePeriodSeconds");
  // The time that is left can only be made shorter.
  if (!was_marked ||
      (grace != nullptr && grace->is_number_integer() && grace->get<int>() > grace_s)) {
    meta["deletionTimestamp"] =
        kube::rfc3339(loop_.clock().wall_now() + std::chrono::seconds(grace_s));
    meta["deletionGracePeriodSeconds"] = grace_s;
  }
  if (finalizers.empty()) {
    meta.erase("finalizers");
  } else {
    meta["finalizers"] = std::move(finalizers);
  }
  if (has_generation(resource) && !was_marked) bump_generation(before, &*object);
  if (is_namespace) (*object)["status"]["phase"] = "Terminating";
  if (before == *object) {
    if (is_namespace) empty_namespace(previous->name);
    if (is_definition) empty_custom(previous->name);
    return done(Written{previous->text, false, false});
  }
  store_.replace(resource, previous, std::move(*object),
                 [this, &resource, is_namespace, is_definition, name = previous->name,
                  done = std::move(done)](Result<ObjectPtr> stored) {
                   if (!stored) {
                     return done(refuse(ApiError::from_error(stored.error(), resource, name)));
                   }
                   if (is_namespace) empty_namespace(name);
                   if (is_definition) empty_custom(name);
                   done(Written{(*stored)->text, false, false});
                 });
}

void ApiCore::erase(const ResourceInfo& resource, const ObjectPtr& previous, Done done) {
  store_.erase(
      resource, previous, [&resource, previous, done = std::move(done)](Result<ObjectPtr> erased) {
        if (!erased) {
          return done(refuse(ApiError::from_error(erased.error(), resource, previous->name)));
        }
        done(Written{success_status(resource, *previous), false, true});
      });
}

void ApiCore::empty_namespace(const std::string& name) {
  Filter filter;
  filter.ns = name;
  for (const auto& info : registry_.all()) {
    if (!info->type.namespaced || info->stored_as != nullptr) continue;
    auto content = store_.list(*info, filter);
    if (!content) continue;
    for (const ObjectPtr& object : content->items) {
      remove(*info, name, object->name, {}, [name, object](ApiResult<Written> removed) {
        if (!removed && removed.error().code != 404) {
          EM_LOG(kWarn, "api", "namespace {}: {}", name, removed.error().message);
        }
      });
    }
  }
  finish_namespace(name);
}

void ApiCore::finish_namespace(const std::string& name) {
  const ResourceInfo& namespaces = *registry_.find(kube::kNamespaces);
  ObjectPtr object = store_.latest(namespaces, "", name);
  if (object == nullptr) return;
  Filter filter;
  filter.ns = name;
  for (const auto& info : registry_.all()) {
    if (!info->type.namespaced || info->stored_as != nullptr) continue;
    auto content = store_.list(*info, filter, 1);
    if (!content || !content->items.empty()) return;
  }
  auto parsed = kube::parse_json(object->text);
  if (!parsed || !is_deleting(*parsed) || has_finalizers(*parsed)) return;
  erase(namespaces, object, [name](ApiResult<Written> erased) {
    if (!erased) EM_LOG(kWarn, "api", "namespace {}: {}", name, erased.error().message);
  });
}

void ApiCore::remove_all(const ResourceInfo& resource, const Filter& filter,
                         const Deletion& deletion, Done done) {
  auto found = store_.list(resource, filter);
  if (!found) return done(refuse(ApiError::from_error(found.error(), resource, "")));
  std::string text = fmt::format(
      R"({{"kind":"{}","apiVersion":"{}","metadata":{{"resourceVersion":"{}"}},"items":[)",
      resource.list_kind_name(), resource.type.api_version(), found->version);
  for (size_t i = 0; i < found->items.size(); ++i) {
    if (i > 0) text += ',';
    text += found->items[i]->text;
  }
  text += "]}";
  struct Progress {
    size_t left = 0;
    std::string text;
    Done done;
    std::string error;
  };
  auto progress = std::make_shared<Progress>();
  progress->left = found->items.size() + 1;
  progress->text = std::move(text);
  progress->done = std::move(done);
  auto one_done = [progress](ApiResult<Written> removed) {
    if (!removed && removed.error().code != 404) progress->error = removed.error().message;
    if (--progress->left > 0) return;
    if (!progress->error.empty()) {
      return progress->done(refuse(ApiError::simple(500, "InternalError", progress->error)));
    }
    progress->done(Written{std::move(progress->text), false, false});
  };
  for (const ObjectPtr& object : found->items) {
    remove(resource, object->ns, object->name, deletion, one_done);
  }
  one_done(Written{});
}

}  // namespace edgemesh::cloud
