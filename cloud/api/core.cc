#include "cloud/api/core.h"

#include <nlohmann/json.hpp>

#include "cloud/api/admission.h"
#include "cloud/api/apply.h"
#include "cloud/api/custom.h"
#include "cloud/api/meta.h"
#include "cloud/api/scale.h"
#include "cloud/api/schema.h"
#include "cloud/api/validate.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/patch.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using kube::find_pair;
using kube::text_at;
using nlohmann::json;

namespace {

ApiResult<json> parse_stored(const ObjectPtr& object) {
  auto parsed = kube::parse_json(object->text);
  if (!parsed) return refuse(ApiError::simple(500, "InternalError", parsed.error().message));
  return std::move(*parsed);
}

ApiResult<void> apply_patch(const ResourceInfo& resource, kube::PatchKind kind, const json& patch,
                            std::string_view name, json* object) {
  Result<> done;
  switch (kind) {
    case kube::PatchKind::kMerge: done = kube::apply_merge_patch(*object, patch); break;
    case kube::PatchKind::kJson: done = kube::apply_json_patch(*object, patch); break;
    case kube::PatchKind::kStrategic:
      if (resource.custom) {
        return refuse(ApiError::simple(
            415, "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json-patch+json, application/merge-patch+json, "
            "application/apply-patch+yaml"));
      }
      [[fallthrough]];
    case kube::PatchKind::kApply:
      done = kube::apply_strategic_patch(*object, patch, resource.type.kind);
      break;
  }
  if (done) {
    if (object->is_object()) return {};
    return refuse(ApiError::bad_request("the patch leaves no object"));
  }
  if (kind == kube::PatchKind::kJson) {
    return refuse(
        ApiError::invalid(resource, name, {{"FieldValueInvalid", "patch", done.error().message}}));
  }
  return refuse(ApiError::bad_request(done.error().message));
}

// Defaults, and what is wrong.
FieldErrors complete(const ResourceInfo& resource, json* body) {
  if (resource.custom) return complete_custom(resource, body);
  set_defaults(resource, body);
  return validate(resource, *body);
}

// A subresource that reaches one part of the object only.
void take_part(std::string_view subresource, const json& before, json* body) {
  json changed = before;
  if (subresource == "approval") {
    if (const json* conditions = kube::find(*body, "status", "conditions")) {
      changed["status"]["conditions"] = *conditions;
    }
  } else if (const json* list = kube::find(*body, "spec", "ephemeralContainers")) {
    changed["spec"]["ephemeralContainers"] = *list;
  }
  keep_managed_fields(*body, &changed);
  *body = std::move(changed);
}

std::string shown_version(const json& object, const StoredObject& stored) {
  json out = object;
  out["metadata"]["resourceVersion"] = std::to_string(stored.version);
  return kube::to_text(out);
}

}  // namespace

namespace {
// As kube-apiserver keeps them; the number bounds what a flood of a node's can take.
constexpr Duration kEventLifetime = std::chrono::hours(1);
constexpr Duration kEventSweep = std::chrono::minutes(1);
constexpr size_t kMaxEvents = 20'000;
}  // namespace

ApiCore::ApiCore(io::Loop& loop, ApiStore& store, ResourceRegistry& registry, Options options)
    : loop_(loop),
      store_(store),
      registry_(registry),
      mount_tokens_(options.mount_tokens),
      addresses_(options.service_cidrs, options.node_port_first, options.node_port_last),
      events_timer_(loop, [this] { expire_events(); }) {
  store_.add_observer(
      [this](const ResourceInfo& resource, const Change& change) { on_change(resource, change); });
}

void ApiCore::start() {
  if (auto services = store_.list(*registry_.find(kube::kServices), {})) {
    for (const ObjectPtr& object : services->items) {
      if (auto parsed = kube::parse_json(object->text)) addresses_.use(*parsed);
    }
  }
  const ResourceInfo& namespaces = *registry_.find(kube::kNamespaces);
  for (const char* name : {"default", "kube-system", "kube-public", "kube-node-lease"}) {
    if (store_.latest(namespaces, "", name) != nullptr) continue;
    create(namespaces, "", {{"metadata", {{"name", name}}}}, {}, [name](ApiResult<Written> done) {
      if (!done) EM_LOG(kError, "api", "namespace {}: {}", name, done.error().message);
    });
  }
  if (auto events = store_.list(*registry_.find(kube::kEvents), {})) {
    for (const ObjectPtr& object : events->items) note_event(*object);
  }
  events_timer_.start_repeating(kEventSweep);
  const ResourceInfo& definitions = *registry_.find_storage(kDefinitions);
  if (auto all = store_.list(definitions, {})) {
    for (const ObjectPtr& object : all->items) serve_custom(*object, nullptr);
  }
  // A namespace that was being deleted when we were stopped.
  if (auto all = store_.list(namespaces, {})) {
    for (const ObjectPtr& object : all->items) {
      auto parsed = kube::parse_json(object->text);
      if (parsed && is_deleting(*parsed)) empty_namespace(object->name);
    }
  }
}

void ApiCore::note_event(const StoredObject& event) {
  events_.push_back({loop_.now(), event.ns, event.name, event.version});
}

void ApiCore::expire_events() {
  const ResourceInfo& resource = *registry_.find(kube::kEvents);
  const TimePoint now = loop_.now();
  while (!events_.empty() &&
         (events_.size() > kMaxEvents || now - events_.front().when >= kEventLifetime)) {
    SeenEvent seen = std::move(events_.front());
    events_.pop_front();
    ObjectPtr object = store_.latest(resource, seen.ns, seen.name);
    // One that was changed since stands further back once more.
    if (object == nullptr || object->version != seen.version) continue;
    store_.erase(resource, object, [](Result<ObjectPtr>) {});
  }
}

void ApiCore::on_change(const ResourceInfo& resource, const Change& change) {
  if (resource.is("Event") && change.type != kube::EventType::kDeleted) {
    note_event(*change.object);
    if (events_.size() > 2 * kMaxEvents) expire_events();
  }
  if (resource.is("Service")) {
    if (change.previous != nullptr) {
      if (auto old = kube::parse_json(change.previous->text)) addresses_.forget(*old);
    }
    if (change.type != kube::EventType::kDeleted) {
      if (auto now = kube::parse_json(change.object->text)) addresses_.use(*now);
    }
  }
  if (resource.type.kind == "CustomResourceDefinition" && !resource.custom) {
    if (change.type == kube::EventType::kDeleted) {
      registry_.replace(change.object->name, {});
    } else {
      serve_custom(*change.object, change.previous);
    }
  }
  if (change.type == kube::EventType::kDeleted && resource.custom) {
    loop_.defer([this, name = resource.storage()] { finish_custom(name); });
  }
  if (change.type == kube::EventType::kDeleted && resource.type.namespaced) {
    const ResourceInfo& namespaces = *registry_.find(kube::kNamespaces);
    ObjectPtr ns = store_.latest(namespaces, "", change.object->ns);
    if (ns == nullptr || find_pair(ns->fields, "status.phase") == nullptr) return;
    if (*find_pair(ns->fields, "status.phase") == "Terminating") {
      loop_.defer([this, name = change.object->ns] { finish_namespace(name); });
    }
  }
}

ApiResult<void> ApiCore::check_namespace(const ResourceInfo& resource, std::string_view ns) {
  if (!resource.type.namespaced) return {};
  const ResourceInfo& namespaces = *registry_.find(kube::kNamespaces);
  ObjectPtr object = store_.latest(namespaces, "", ns);
  if (object == nullptr) return refuse(ApiError::not_found(namespaces, ns));
  const std::string* phase = find_pair(object->fields, "status.phase");
  if (phase != nullptr && *phase == "Terminating") {
    return refuse(ApiError::forbidden(
        resource, "",
        fmt::format("unable to create new content in namespace {} because it is being terminated",
                    ns)));
  }
  return {};
}

ApiResult<void> ApiCore::prepare_new(const ResourceInfo& resource, std::string_view ns,
                                     json* body) {
  if (auto good = check_type_and_namespace(resource, ns, body); !good) return good;
  auto shape = normalize(resource, body);
  if (shape) shape = check_shape(resource, *body);
  if (!shape) {
    return refuse(ApiError::bad_request(
        fmt::format("{} in version \"{}\" cannot be handled as a {}: {}", resource.type.kind,
                    resource.type.version, resource.type.kind, shape.error().message)));
  }
  if (auto good = reset_meta_for_create(resource, body); !good) return good;
  if (auto good = check_namespace(resource, ns); !good) return good;
  if (resource.terminating) {
    return refuse(
        ApiError::simple(405, "MethodNotAllowed",
                         "create not allowed while custom resource definition is terminating"));
  }
  if (resource.has_status && !resource.is("Node")) body->erase("status");
  if (has_generation(resource)) (*body)["metadata"]["generation"] = 1;
  (*body)["metadata"]["uid"] = new_uid();  // a job's labels have it
  FieldErrors errors = complete(resource, body);
  if (!errors.empty()) {
    return refuse(
        ApiError::invalid(resource, text_at(*body, "metadata", "name"), std::move(errors)));
  }
  if (auto good = admit_new(store_, registry_, resource, mount_tokens_, body); !good) return good;
  return admit(resource, ns, text_at(*body, "metadata", "name"), "", nullptr, body);
}

ApiResult<void> ApiCore::admit(const ResourceInfo& resource, std::string_view ns,
                               std::string_view name, std::string_view subresource,
                               const json* before, const json* after) const {
  for (const AdmissionCheck& check : admission_) {
    auto good = check({resource, ns, name, subresource, before, after, acting_});
    if (!good) return good;
  }
  return {};
}

void ApiCore::create(const ResourceInfo& resource, std::string_view ns, json body,
                     const kube::WriteOptions& options, Done done) {
  if (!options.subresource.empty()) {
    std::string name = text_at(body, "metadata", "name");
    return create_below(resource, ns, name, body, options, std::move(done));
  }
  if (auto good = prepare_new(resource, ns, &body); !good) return done(refuse(good.error()));
  track_update(resource, json::object(), options, loop_.clock().wall_now(), &body);
  store_new(resource, std::move(body), options.dry_run, std::move(done));
}

void ApiCore::store_new(const ResourceInfo& resource, json body, bool dry_run, Done done) {
  std::string name = text_at(body, "metadata", "name");
  if (store_.latest(resource, text_at(body, "metadata", "namespace"), name) != nullptr) {
    return done(refuse(ApiError::already_exists(resource, name)));
  }
  ServiceAddresses::Taken taken;
  if (resource.is("Service")) {
    FieldErrors errors;
    addresses_.assign(&body, nullptr, &errors, &taken);
    if (!errors.empty()) {
      addresses_.release(taken);
      return done(refuse(ApiError::invalid(resource, name, std::move(errors))));
    }
  }
  if (dry_run) {
    addresses_.release(taken);
    body["metadata"]["uid"] = new_uid();
    body["metadata"]["creationTimestamp"] = kube::rfc3339(loop_.clock().wall_now());
    return done(Written{kube::to_text(body), true, false});
  }
  store_.create(resource, std::move(body),
                [this, &resource, name, taken, done = std::move(done)](Result<ObjectPtr> stored) {
                  if (stored) return done(Written{(*stored)->text, true, false});
                  addresses_.release(taken);
                  done(refuse(ApiError::from_error(stored.error(), resource, name)));
                });
}

ApiResult<void> ApiCore::prepare_change(const ResourceInfo& resource, const json& before,
                                        const StoredObject& stored, std::string_view subresource,
                                        json* body) {
  if (auto good = check_type_and_namespace(resource, stored.ns, body); !good) return good;
  auto shape = normalize(resource, body);
  if (shape) shape = check_shape(resource, *body);
  if (!shape) {
    return refuse(ApiError::bad_request(shape.error().message));
  }
  if (text_at(*body, "metadata", "name") != stored.name) {
    return refuse(ApiError::bad_request(
        fmt::format("the name of the object ({}) does not match the name on the URL ({})",
                    text_at(*body, "metadata", "name"), stored.name)));
  }
  if (auto good = check_preconditions(resource, stored, *body); !good) return good;
  if (subresource == "status") {
    json changed = before;
    changed["status"] = body->value("status", json::object());
    keep_managed_fields(*body, &changed);
    *body = std::move(changed);
  } else if (subresource == "ephemeralcontainers" || subresource == "approval") {
    take_part(subresource, before, body);
  } else if (resource.has_status) {
    body->erase("status");
    if (before.contains("status")) (*body)["status"] = before["status"];
  }
  keep_system_meta(before, body);
  FieldErrors errors = complete(resource, body);
  FieldErrors frozen = validate_change(resource, before, *body);
  errors.insert(errors.end(), frozen.begin(), frozen.end());
  if (!errors.empty()) return refuse(ApiError::invalid(resource, stored.name, std::move(errors)));
  if (has_generation(resource) && !same_spec(before, *body)) bump_generation(before, body);
  return admit(resource, stored.ns, stored.name, subresource, &before, body);
}

void ApiCore::update(const ResourceInfo& resource, std::string_view ns, std::string_view name,
                     json body, const kube::WriteOptions& options, Done done) {
  ObjectPtr previous = store_.latest(resource, ns, name);
  if (previous == nullptr) return done(refuse(ApiError::not_found(resource, name)));
  auto before = parse_stored(previous);
  if (!before) return done(refuse(before.error()));
  if (!body.is_object()) return done(refuse(ApiError::bad_request("want a JSON object")));
  if (body.find("metadata") == body.end()) body["metadata"] = {{"name", std::string(name)}};
  if (options.subresource == "scale") {
    return update_scale(resource, previous, body, options, std::move(done));
  }
  if (auto good = prepare_change(resource, *before, *previous, options.subresource, &body); !good) {
    return done(refuse(good.error()));
  }
  track_update(resource, *before, options, loop_.clock().wall_now(), &body);
  store_change(resource, previous, *before, std::move(body), options, std::move(done));
}

void ApiCore::patch(const ResourceInfo& resource, std::string_view ns, std::string_view name,
                    kube::PatchKind kind, const json& patch, const kube::WriteOptions& options,
                    Done done) {
  ObjectPtr previous = store_.latest(resource, ns, name);
  bool applies = kind == kube::PatchKind::kApply;
  if (previous == nullptr) {
    if (applies) return apply_missing(resource, ns, name, patch, options, std::move(done));
    return done(refuse(ApiError::not_found(resource, name)));
  }
  auto before = parse_stored(previous);
  if (!before) return done(refuse(before.error()));
  bool scales = options.subresource == "scale" && resource.scale != nullptr;
  json body = scales ? scale_of(resource, *before) : *before;
  if (!applies || scales) {
    if (auto good = apply_patch(resource, kind, patch, name, &body); !good) {
      return done(refuse(good.error()));
    }
  } else {
    auto good = apply_fields(resource, patch, options, loop_.clock().wall_now(), &body);
    if (!good) return done(refuse(good.error()));
  }
  if (scales) return update_scale(resource, previous, body, options, std::move(done));
  if (auto good = prepare_change(resource, *before, *previous, options.subresource, &body); !good) {
    return done(refuse(good.error()));
  }
  if (!applies) track_update(resource, *before, options, loop_.clock().wall_now(), &body);
  store_change(resource, previous, *before, std::move(body), options, std::move(done));
}

void ApiCore::apply_missing(const ResourceInfo& resource, std::string_view ns,
                            std::string_view name, const json& patch,
                            const kube::WriteOptions& options, Done done) {
  if (!options.subresource.empty()) return done(refuse(ApiError::not_found(resource, name)));
  json body = json::object();
  auto good = apply_fields(resource, patch, options, loop_.clock().wall_now(), &body);
  if (!good) return done(refuse(good.error()));
  if (text_at(body, "metadata", "name").empty()) body["metadata"]["name"] = std::string(name);
  if (auto ready = prepare_new(resource, ns, &body); !ready) return done(refuse(ready.error()));
  store_new(resource, std::move(body), options.dry_run, std::move(done));
}

void ApiCore::store_change(const ResourceInfo& resource, const ObjectPtr& previous,
                           const json& before, json body, const kube::WriteOptions& options,
                           Done done) {
  ServiceAddresses::Taken taken;
  if (resource.is("Service") && options.subresource.empty()) {
    FieldErrors errors;
    addresses_.assign(&body, &before, &errors, &taken);
    if (!errors.empty()) {
      addresses_.release(taken);
      return done(refuse(ApiError::invalid(resource, previous->name, std::move(errors))));
    }
  }
  body["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"];
  if (options.dry_run || body == before) {
    addresses_.release(taken);
    // Nothing to write. What is stored may still be on its way to the disk: the answer must wait.
    if (options.dry_run || store_.get(resource, previous->ns, previous->name) == previous) {
      return done(Written{shown_version(body, *previous), false, false});
    }
  }
  const bool is_namespace = resource.is("Namespace");
  if (is_deleting(body) && !has_finalizers(body) && !is_namespace) {
    bool waits_for_node = resource.is("Pod") && has_grace(body);
    if (!waits_for_node) {
      addresses_.release(taken);
      return erase(resource, previous, std::move(done));
    }
  }
  store_.replace(resource, previous, std::move(body),
                 [this, &resource, is_namespace, name = previous->name, taken,
                  done = std::move(done)](Result<ObjectPtr> stored) {
                   if (stored) {
                     // It may have been the last that a deletion waited for.
                     if (is_namespace) finish_namespace(name);
                     return done(Written{(*stored)->text, false, false});
                   }
                   addresses_.release(taken);
                   done(refuse(ApiError::from_error(stored.error(), resource, name)));
                 });
}

}  // namespace edgemesh::cloud
