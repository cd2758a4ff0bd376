#include "cloud/api/node_objects.h"

#include <nlohmann/json.hpp>

#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/pod_references.h"
#include "kube/selector.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

std::string key_of(std::string_view resource, std::string_view ns, std::string_view name) {
  std::string out(resource);
  out += '/';
  out += ns;
  out += '/';
  out += name;
  return out;
}

// Claims that the pod's volumes name, or that are made for it.
std::vector<std::string> claims_of(const json& pod) {
  std::vector<std::string> out;
  const json* volumes = find(pod, "spec", "volumes");
  for (const json& volume : volumes != nullptr && volumes->is_array() ? *volumes : json::array()) {
    std::string claim = text_at(volume, "persistentVolumeClaim", "claimName");
    if (find(volume, "ephemeral") != nullptr) {
      claim = text_at(pod, "metadata", "name") + "-" + text_at(volume, "name");
    }
    if (!claim.empty()) out.push_back(std::move(claim));
  }
  return out;
}

// Any {"name": secret, "namespace": ns} within: a driver's secrets stand there.
bool refers_to(const json& value, std::string_view ns, std::string_view secret) {
  if (!value.is_object()) return false;
  if (text_at(value, "name") == secret && text_at(value, "namespace") == ns) return true;
  for (const auto& [key, item] : value.items()) {
    if (refers_to(item, ns, secret)) return true;
  }
  return false;
}

}  // namespace

NodeObjects::NodeObjects(ApiStore& store, const ResourceRegistry& registry)
    : store_(store),
      pods_info_(*registry.find_storage("pods")),
      volumes_(*registry.find_storage("persistentvolumes")),
      attachments_(*registry.find_storage("volumeattachments.storage.k8s.io")) {
  auto all = store_.list(pods_info_, {});
  for (const ObjectPtr& pod : all ? all->items : std::vector<ObjectPtr>()) on_pod(*pod, false);
  store_.add_observer([this, alive = alive_](const ResourceInfo& resource, const Change& change) {
    if (*alive && &resource == &pods_info_) {
      on_pod(*change.object, change.type == kube::EventType::kDeleted);
    }
  });
}

NodeObjects::~NodeObjects() {
  *alive_ = false;
}

void NodeObjects::forget(const std::string& key) {
  auto it = pods_.find(key);
  if (it == pods_.end()) return;
  for (Object* object : it->second.objects) {
    auto user = object->users.find(it->second.node);
    if (--user->second == 0) object->users.erase(user);
    if (object->users.empty()) objects_.erase(std::string(object->key));
  }
  pods_.erase(it);
}

void NodeObjects::use(Pod* pod, std::string key) {
  auto& slot = objects_[key];
  if (slot == nullptr) slot = std::make_unique<Object>(Object{std::move(key), {}});
  ++slot->users[pod->node];
  pod->objects.push_back(slot.get());
}

void NodeObjects::on_pod(const StoredObject& object, bool gone) {
  const std::string key = kube::object_key(object.ns, object.name);
  const std::string* node = kube::find_pair(object.fields, "spec.nodeName");
  if (gone || node == nullptr || node->empty()) return forget(key);
  // What a bound pod names is fixed, but for what containers to debug it may add.
  auto known = pods_.find(key);
  if (known != pods_.end() && known->second.uid == object.uid && known->second.node == *node &&
      object.text.find("\"ephemeralContainers\"") == std::string::npos) {
    return;
  }
  forget(key);
  auto parsed = kube::parse_json(object.text);
  if (!parsed) return;
  Pod& pod = pods_[key];
  pod.node = *node;
  pod.uid = object.uid;
  for (const kube::PodReference& reference : kube::pod_references(*parsed)) {
    use(&pod, key_of(reference.type->plural, object.ns, reference.name));
  }
  for (const std::string& claim : claims_of(*parsed)) {
    use(&pod, key_of("persistentvolumeclaims", object.ns, claim));
  }
  const std::string account = text_at(*parsed, "spec", "serviceAccountName");
  if (!account.empty()) use(&pod, key_of("serviceaccounts", object.ns, account));
  pod.objects.shrink_to_fit();
}

std::string NodeObjects::node_of_pod(std::string_view ns, std::string_view name) const {
  auto it = pods_.find(kube::object_key(ns, name));
  return it == pods_.end() ? "" : it->second.node;
}

bool NodeObjects::named(std::string_view node, std::string_view resource, std::string_view ns,
                        std::string_view name) const {
  auto it = objects_.find(key_of(resource, ns, name));
  return it != objects_.end() && it->second->users.contains(std::string(node));
}

bool NodeObjects::uses_volume(std::string_view node, const ObjectPtr& volume) const {
  if (volume == nullptr) return false;
  auto parsed = kube::parse_json(volume->text);
  return parsed &&
         named(node, "persistentvolumeclaims", text_at(*parsed, "spec", "claimRef", "namespace"),
               text_at(*parsed, "spec", "claimRef", "name"));
}

bool NodeObjects::volume_needs(std::string_view node, std::string_view ns,
                               std::string_view secret) const {
  const std::string quoted = json(secret).dump();
  auto all = store_.list(volumes_, {});
  for (const ObjectPtr& volume : all ? all->items : std::vector<ObjectPtr>()) {
    if (volume->text.find(quoted) == std::string::npos) continue;
    auto parsed = kube::parse_json(volume->text);
    const json* spec = parsed ? find(*parsed, "spec") : nullptr;
    if (spec != nullptr && refers_to(*spec, ns, secret) && uses_volume(node, volume)) return true;
  }
  return false;
}

bool NodeObjects::uses(std::string_view node, std::string_view resource, std::string_view ns,
                       std::string_view name) const {
  if (resource == "pods") return node_of_pod(ns, name) == node;
  if (resource == "persistentvolumes") return uses_volume(node, store_.get(volumes_, "", name));
  if (resource == "volumeattachments") {
    ObjectPtr attachment = store_.get(attachments_, "", name);
    auto parsed = attachment != nullptr ? kube::parse_json(attachment->text) : Result<json>(json());
    return parsed && text_at(*parsed, "spec", "nodeName") == node;
  }
  if (named(node, resource, ns, name)) return true;
  return resource == "secrets" && volume_needs(node, ns, name);
}

}  // namespace edgemesh::cloud
