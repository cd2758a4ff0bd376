// Tokens of service accounts for the pods of a node.
#include <nlohmann/json.hpp>

#include "cloud/upstream_request.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using Json = nlohmann::json;

// The token is bound to a pod of this node that runs as that account; anything else is no business
// of the node's.
void Upstream::on_service_token(const RequestPtr& r) {
  r->type = kube::kServiceAccounts;
  if (r->operation() != "query") return;
  const Json* reference = find(r->content, "spec", "boundObjectRef");
  const std::string pod = reference != nullptr ? text_at(*reference, "name") : "";
  const std::string uid = reference != nullptr ? text_at(*reference, "uid") : "";
  if (pod.empty() || uid.empty() || text_at(*reference, "kind") != "Pod") return refuse(*r, false);
  own_pod(r, pod, [this, r, uid](Result<std::string> found) {
    if (!found) return reply_plain(*r, found);
    const Json object = Json::parse(*found, nullptr, false);
    if (text_at(object, "metadata", "uid") != uid ||
        text_at(object, "spec", "serviceAccountName") != r->name) {
      return refuse(*r, false);
    }
    const Json request{{"apiVersion", "authentication.k8s.io/v1"},
                       {"kind", "TokenRequest"},
                       {"metadata", {{"name", r->name}, {"namespace", r->ns}}},
                       {"spec", r->content["spec"]}};
    kube::WriteOptions options;
    options.subresource = "token";
    client_.create(kube::kServiceAccounts, r->ns, kube::to_text(request), options,
                   guarded([this, r](Result<std::string> result) { reply_plain(*r, result); }));
  });
}

}  // namespace edgemesh::cloud
