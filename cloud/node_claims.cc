#include "cloud/node_claims.h"

#include <nlohmann/json.hpp>

#include "cloud/node_controller.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr int kMaxTries = 5;  // against others who write the same Node, its kubelet for one

Error taken(const std::string& node) {
  return {
      .code = ErrorCode::kAlreadyExists,
      .message = fmt::format(
          "node '{0}' has joined already. If it is gone for good or lost its certificate: 'kubectl "
          "delete node {0}', or join with a token of 'edgemesh-cloud token create --node {0} "
          "--replace'",
          node)};
}

}  // namespace

struct NodeClaims::Attempt {
  NodeClaim claim;
  Done done;
  int tries = 0;
};

NodeClaims::NodeClaims(kube::Client& client, const NodeLink& link, const Clock& clock)
    : client_(client), link_(link), clock_(clock) {}

NodeClaims::~NodeClaims() {
  *alive_ = false;
}

std::string NodeClaims::annotation(const NodeClaim& claim) const {
  Json out{{"key", claim.key_hash}, {"issued", kube::rfc3339(clock_.wall_now())}};
  if (claim.not_before > 0) out["notBefore"] = claim.not_before;
  return out.dump();
}

void NodeClaims::claim(NodeClaim claim, Done done) {
  // Agents of KubeEdge that joined before names were remembered have no annotation.
  if (link_.connected(claim.node) && !claim.replace) return done(fail(taken(claim.node)));
  auto attempt = std::make_shared<Attempt>();
  attempt->claim = std::move(claim);
  attempt->done = std::move(done);
  look(std::move(attempt));
}

void NodeClaims::look(std::shared_ptr<Attempt> attempt) {
  if (++attempt->tries > kMaxTries) {
    return attempt->done(fail(ErrorCode::kUnavailable,
                              "node '{}' is being changed by others; try again",
                              attempt->claim.node));
  }
  const std::string node = attempt->claim.node;
  client_.get(kube::kNodes, "", node, [this, alive = alive_, attempt](Result<std::string> object) {
    if (*alive) on_node(attempt, std::move(object));
  });
}

void NodeClaims::on_node(std::shared_ptr<Attempt> attempt, Result<std::string> object) {
  const NodeClaim& claim = attempt->claim;
  auto written = [this, alive = alive_, attempt](Result<std::string> result) {
    if (*alive) on_written(attempt, std::move(result));
  };
  if (!object) {
    if (object.error().code != ErrorCode::kNotFound) return attempt->done(fail(object.error()));
    const Json node{{"apiVersion", "v1"},
                    {"kind", "Node"},
                    {"metadata",
                     {{"name", claim.node},
                      {"labels", {{kNodeLabel, "true"}}},
                      {"annotations", {{kCertificateAnnotation, annotation(claim)}}}}}};
    return client_.create(kube::kNodes, "", node.dump(), {}, std::move(written));
  }
  const Json have = Json::parse(*object, nullptr, false);
  const Json* issued = kube::find(have, "metadata", "annotations", kCertificateAnnotation);
  const Json* reported = kube::find(have, "metadata", "annotations", kMeshAnnotation);
  if (issued != nullptr && issued->is_string() && !claim.replace) {
    const Json before = Json::parse(issued->get_ref<const std::string&>(), nullptr, false);
    const bool same = before.is_object() && kube::text_at(before, "key") == claim.key_hash;
    return same ? attempt->done({}) : attempt->done(fail(taken(claim.node)));
  }
  // It sent a report through the channel, so it has a certificate, of before names were remembered.
  if (reported != nullptr && !claim.replace) return attempt->done(fail(taken(claim.node)));
  const Json patch{{"metadata",
                    {{"resourceVersion", kube::text_at(have, "metadata", "resourceVersion")},
                     {"annotations", {{kCertificateAnnotation, annotation(claim)}}}}}};
  client_.patch(kube::kNodes, "", claim.node, kube::PatchKind::kMerge, patch.dump(), {},
                std::move(written));
}

void NodeClaims::on_written(std::shared_ptr<Attempt> attempt, Result<std::string> result) {
  if (result) return attempt->done({});
  const ErrorCode code = result.error().code;
  if (code == ErrorCode::kAlreadyExists || code == ErrorCode::kConflict ||
      code == ErrorCode::kNotFound) {
    return look(std::move(attempt));
  }
  attempt->done(fail(result.error()));
}

}  // namespace edgemesh::cloud
