#include "cloud/api/kubernetes_service.h"

#include <nlohmann/json.hpp>

#include "cloud/api/service_ip.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

constexpr const char* kNamespace = "default";
constexpr const char* kName = "kubernetes";
constexpr uint16_t kPort = 443;

json meta(json labels) {
  return {{"name", kName}, {"namespace", kNamespace}, {"labels", std::move(labels)}};
}

// All that `wanted` has is in `have`; what the API added beside it is left alone.
bool holds(const json& have, const json& wanted) {
  if (wanted.is_object()) {
    for (const auto& [key, value] : wanted.items()) {
      const json* own = kube::find(have, key);
      if (own == nullptr || !holds(*own, value)) return false;
    }
    return have.is_object();
  }
  if (!wanted.is_array()) return have == wanted;
  if (!have.is_array() || have.size() != wanted.size()) return false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!holds(have[i], wanted[i])) return false;
  }
  return true;
}

}  // namespace

IpAddr kubernetes_service_ip(const Cidr& block) {
  return service_address(block, 1);
}

KubernetesService::KubernetesService(ApiCore& core, Options options)
    : core_(core),
      options_(options),
      services_(*core.registry().find(kube::kServices)),
      slices_(*core.registry().find(kube::kEndpointSlices)),
      endpoints_(*core.registry().find(kube::kEndpoints)) {
  core_.store().add_observer(
      [this, alive = alive_](const ResourceInfo& resource, const Change& change) {
        if (!*alive || change.object->name != kName || change.object->ns != kNamespace) return;
        if (&resource == &services_ || &resource == &slices_ || &resource == &endpoints_)
          look_later();
      });
}

KubernetesService::~KubernetesService() {
  *alive_ = false;
}

// Later: an observer must not write, and several changes make one look.
void KubernetesService::look_later() {
  if (std::exchange(pending_, true)) return;
  core_.loop().post([this, alive = alive_] {
    if (!*alive) return;
    pending_ = false;
    look();
  });
}

void KubernetesService::look() {
  const std::string address = options_.endpoint.ip.to_string();
  const json ports = {{{"name", "https"}, {"port", options_.endpoint.port}, {"protocol", "TCP"}}};
  keep(services_, {{"metadata", meta({{"component", "apiserver"}, {"provider", kName}})},
                   {"spec",
                    {{"clusterIP", options_.cluster_ip.to_string()},
                     {"ports",
                      {{{"name", "https"},
                        {"port", kPort},
                        {"protocol", "TCP"},
                        {"targetPort", options_.endpoint.port}}}}}}});
  keep(slices_, {{"metadata", meta({{"kubernetes.io/service-name", kName}})},
                 {"addressType", options_.endpoint.ip.is_v6() ? "IPv6" : "IPv4"},
                 {"endpoints", {{{"addresses", {address}}, {"conditions", {{"ready", true}}}}}},
                 {"ports", ports}});
  // Without the mark it would be mirrored into a second slice.
  keep(endpoints_, {{"metadata", meta({{"endpointslice.kubernetes.io/skip-mirror", "true"}})},
                    {"subsets", {{{"addresses", {{{"ip", address}}}}, {"ports", ports}}}}});
}

void KubernetesService::keep(const ResourceInfo& resource, json wanted) {
  kube::WriteOptions options;
  options.field_manager = "edgemesh-apiserver";
  auto done = [kind = resource.type.kind](ApiResult<ApiCore::Written> written) {
    // Changed by someone else meanwhile: that is looked at, too.
    if (written || written.error().code == 409) return;
    EM_LOG(kError, "api", "{} {}/{}, by which pods find this API: {}", kind, kNamespace, kName,
           written.error().message);
  };
  ObjectPtr stored = core_.store().latest(resource, kNamespace, kName);
  if (stored == nullptr)
    return core_.create(resource, kNamespace, std::move(wanted), options, std::move(done));
  auto object = kube::parse_json(stored->text);
  if (!object || holds(*object, wanted)) return;
  wanted["metadata"].erase("namespace");
  const json patch = std::move(wanted);
  core_.patch(resource, kNamespace, kName, kube::PatchKind::kMerge, patch, options,
              std::move(done));
}

}  // namespace edgemesh::cloud
