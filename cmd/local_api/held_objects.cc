#include "cmd/local_api/held_objects.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cmd {

namespace {

using Json = nlohmann::json;
using channel::ResourceName;

constexpr const char* kEpochKey = "metaserver/epoch";
constexpr const char* kEpochType = "metaserver";
// An epoch begins with each start; what comes in one run has the lower half to itself.
constexpr int kEpochShift = 32;

struct HeldKind {
  const char* type;  // in the metastore
  const kube::ResourceType* resource;
};
const HeldKind kHeld[] = {
    {"node", &kube::kNodes},       {"configmap", &kube::kConfigMaps},
    {"secret", &kube::kSecrets},   {"pod", &kube::kPods},
    {"service", &kube::kServices}, {"endpointslice", &kube::kEndpointSlices},
};

std::vector<kube::ResourceType> served() {
  std::vector<kube::ResourceType> out{kube::kNamespaces};
  for (const HeldKind& kind : kHeld) out.push_back(*kind.resource);
  return out;
}

void log_failure(const char* what, const ResourceName& name, const Error& error) {
  EM_LOG(kWarn, "metaserver", "{}: {}: {}", name.text(), what, error.message);
}

}  // namespace

HeldObjects::HeldObjects(io::Loop& loop, agent::Metastore& metastore)
    : loop_(loop), metastore_(metastore), registry_(served()) {
  for (const HeldKind& kind : kHeld) kinds_[kind.type] = registry_.find(*kind.resource);
}

HeldObjects::~HeldObjects() {
  metastore_.set_observer(nullptr);
}

Result<std::unique_ptr<HeldObjects>> HeldObjects::create(io::Loop& loop,
                                                         agent::Metastore& metastore,
                                                         const Options& options) {
  std::unique_ptr<HeldObjects> self(new HeldObjects(loop, metastore));
  EM_TRY_VOID(self->open(options));
  return self;
}

Result<> HeldObjects::open(const Options& options) {
  cloud::ApiStore::Options store;
  store.path.clear();
  store.first_version = first_version();
  store.history_changes = options.history_changes;
  store.history_bytes = options.history_bytes;
  EM_TRY(store_, cloud::ApiStore::open(loop_, registry_, store));
  core_ = std::make_unique<cloud::ApiCore>(loop_, *store_, registry_, cloud::ApiCore::Options());
  for (const HeldKind& kind : kHeld) {
    EM_TRY_VOID(metastore_.for_each(kind.type, [&](const std::string& key, std::string_view value) {
      ResourceName name;
      if (ResourceName::parse(key, &name)) set(*kinds_.find(kind.type)->second, name, value);
    }));
  }
  metastore_.set_observer([this](const std::string& key, std::string_view type,
                                 const std::string* value) { on_row(key, type, value); });
  return {};
}

// Above those of every earlier run. The clock helps when the file was lost, and no more.
uint64_t HeldObjects::first_version() {
  auto stored = metastore_.get(kEpochKey);
  const uint64_t last = stored ? kube::resource_version_number(*stored) : 0;
  const auto minutes =
      std::chrono::duration_cast<std::chrono::minutes>(loop_.clock().wall_now().time_since_epoch());
  const uint64_t epoch =
      std::max(last + 1, static_cast<uint64_t>(std::max<int64_t>(0, minutes.count())));
  metastore_.put(kEpochKey, kEpochType, std::to_string(epoch));
  return (epoch << kEpochShift) + 1;
}

void HeldObjects::on_row(const std::string& key, std::string_view type, const std::string* value) {
  const auto kind = kinds_.find(type);
  ResourceName name;
  if (kind == kinds_.end() || !ResourceName::parse(key, &name)) return;
  if (value != nullptr) {
    set(*kind->second, name, *value);
  } else {
    remove(*kind->second, name);
  }
}

void HeldObjects::set(const cloud::ResourceInfo& resource, const ResourceName& name,
                      std::string_view text) {
  auto object = kube::parse_json(text);
  if (!object || !object->is_object() || kube::text_at(*object, "metadata", "name") != name.name) {
    EM_LOG(kWarn, "metaserver", "{} is not that object and is not shown", name.text());
    return;
  }
  (*object)["kind"] = resource.type.kind;
  (*object)["apiVersion"] = resource.type.api_version();
  const std::string key = name.text();
  const std::string version = kube::text_at(*object, "metadata", "resourceVersion");
  const std::string uid = kube::text_at(*object, "metadata", "uid");
  cloud::ObjectPtr before = store_->latest(resource, name.ns, name.name);
  const auto known = cloud_versions_.find(key);
  if (before != nullptr && before->uid == uid && known != cloud_versions_.end() &&
      !version.empty() && known->second == version)
    return;
  const auto done = [name](Result<cloud::ObjectPtr> stored) {
    if (!stored) log_failure("is not shown", name, stored.error());
  };
  if (before != nullptr && before->uid != uid) {  // made anew: the one before is gone
    store_->erase(resource, before, done);
    before = nullptr;
  } else if (before == nullptr && !name.ns.empty()) {
    count_namespace(name.ns, 1);
  }
  cloud_versions_[key] = version;
  if (before == nullptr) {
    store_->create(resource, std::move(*object), done);
  } else {
    store_->replace(resource, before, std::move(*object), done);
  }
}

void HeldObjects::remove(const cloud::ResourceInfo& resource, const ResourceName& name) {
  cloud_versions_.erase(name.text());
  cloud::ObjectPtr before = store_->latest(resource, name.ns, name.name);
  if (before == nullptr) return;
  store_->erase(resource, before, [name](Result<cloud::ObjectPtr> erased) {
    if (!erased) log_failure("is still shown", name, erased.error());
  });
  if (!name.ns.empty()) count_namespace(name.ns, -1);
}

void HeldObjects::count_namespace(const std::string& ns, int change) {
  const cloud::ResourceInfo& namespaces = *registry_.find(kube::kNamespaces);
  if (change > 0) {
    if (++namespaces_[ns] > 1) return;
    // Its name is all that is known of it.
    store_->create(namespaces,
                   {{"kind", "Namespace"},
                    {"apiVersion", "v1"},
                    {"metadata",
                     {{"name", ns},
                      {"uid", ""},
                      {"creationTimestamp", nullptr},
                      {"labels", {{"kubernetes.io/metadata.name", ns}}}}},
                    {"spec", Json::object()},
                    {"status", {{"phase", "Active"}}}},
                   [](Result<cloud::ObjectPtr>) {});
    return;
  }
  const auto it = namespaces_.find(ns);
  if (it == namespaces_.end() || --it->second > 0) return;
  namespaces_.erase(it);
  if (cloud::ObjectPtr before = store_->latest(namespaces, "", ns))
    store_->erase(namespaces, before, [](Result<cloud::ObjectPtr>) {});
}

std::optional<std::string> HeldObjects::to_cloud_version(const cloud::ResourceInfo& resource,
                                                         std::string_view ns, std::string_view name,
                                                         std::string_view version) const {
  const cloud::ObjectPtr now = store_->get(resource, ns, name);
  if (now == nullptr || std::to_string(now->version) != version) return std::nullopt;
  for (const auto& [type, info] : kinds_) {
    if (info != &resource) continue;
    const auto it = cloud_versions_.find(
        ResourceName{.kind = type, .ns = std::string(ns), .name = std::string(name)}.text());
    if (it != cloud_versions_.end()) return it->second;
  }
  return std::nullopt;
}

}  // namespace edgemesh::cmd
