#include "cloud/api/default_accounts.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

constexpr const char* kAccount = "default";
constexpr const char* kConfig = "kube-root-ca.crt";
constexpr const char* kFile = "ca.crt";

kube::WriteOptions as_controller() {
  kube::WriteOptions out;
  out.field_manager = "edgemesh-service-accounts";
  return out;
}

ApiCore::Done logged(std::string what) {
  return [what = std::move(what)](ApiResult<ApiCore::Written> done) {
    // It was made by someone else meanwhile, or the namespace goes.
    if (done || done.error().code == 409 || done.error().code == 403 || done.error().code == 404)
      return;
    EM_LOG(kError, "api", "{}: {}", what, done.error().message);
  };
}

}  // namespace

DefaultAccounts::DefaultAccounts(ApiCore& core, std::string root_ca_pem)
    : core_(core),
      root_ca_pem_(std::move(root_ca_pem)),
      namespaces_(*core.registry().find(kube::kNamespaces)),
      accounts_(*core.registry().find(kube::kServiceAccounts)),
      configs_(*core.registry().find(kube::kConfigMaps)) {
  core_.store().add_observer(
      [this, alive = alive_](const ResourceInfo& resource, const Change& change) {
        if (*alive) on_change(resource, change);
      });
}

DefaultAccounts::~DefaultAccounts() {
  *alive_ = false;
}

void DefaultAccounts::start() {
  auto all = core_.store().list(namespaces_, {});
  for (const ObjectPtr& object : all ? all->items : std::vector<ObjectPtr>()) look_at(object->name);
}

void DefaultAccounts::on_change(const ResourceInfo& resource, const Change& change) {
  const bool gone = change.type == kube::EventType::kDeleted;
  if (&resource == &namespaces_) {
    if (change.type == kube::EventType::kAdded) look_at(change.object->name);
  } else if (&resource == &accounts_) {
    if (gone && change.object->name == kAccount) look_at(change.object->ns);
  } else if (&resource == &configs_) {
    if (change.object->name == kConfig) look_at(change.object->ns);
  }
}

// Later: an observer must not write, and several changes make one look.
void DefaultAccounts::look_at(const std::string& ns) {
  if (pending_.empty()) {
    core_.loop().post([this, alive = alive_] {
      if (*alive) look_at_all();
    });
  }
  pending_.insert(ns);
}

void DefaultAccounts::look_at_all() {
  for (const std::string& ns : std::exchange(pending_, {})) {
    ObjectPtr object = core_.store().latest(namespaces_, "", ns);
    const std::string* phase =
        object != nullptr ? kube::find_pair(object->fields, "status.phase") : nullptr;
    if (object == nullptr || (phase != nullptr && *phase == "Terminating")) continue;
    if (core_.store().latest(accounts_, ns, kAccount) == nullptr) {
      core_.create(accounts_, ns, {{"metadata", {{"name", kAccount}}}}, as_controller(),
                   logged("service account of namespace " + ns));
    }
    if (!root_ca_pem_.empty()) keep_config(ns);
  }
}

void DefaultAccounts::keep_config(const std::string& ns) {
  ObjectPtr stored = core_.store().latest(configs_, ns, kConfig);
  const json data = {{kFile, root_ca_pem_}};
  const std::string what = fmt::format("{} of namespace {}", kConfig, ns);
  if (stored == nullptr) {
    const json meta = {
        {"name", kConfig},
        {"annotations",
         {{"kubernetes.io/description",
           "A bundle of the certificates by which clients in pods check the Kubernetes API."}}}};
    return core_.create(configs_, ns, {{"metadata", meta}, {"data", data}}, as_controller(),
                        logged(what));
  }
  auto object = kube::parse_json(stored->text);
  const json* have = object ? kube::find(*object, "data") : nullptr;
  if (!object || (have != nullptr && *have == data)) return;
  (*object)["data"] = data;
  core_.update(configs_, ns, kConfig, std::move(*object), as_controller(), logged(what));
}

}  // namespace edgemesh::cloud
