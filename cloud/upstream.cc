#include "cloud/upstream.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/node_claims.h"
#include "cloud/upstream_request.h"
#include "core/base/log.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxStatuses = 200;  // in one podstatus message; a node runs 110 pods at most

Json at(const Json& object, const char* key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && it != object.end() ? *it : Json();
}

std::string text_at(const Json& object, const char* key) {
  const Json value = at(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string version_of(const Json& object) {
  return text_at(at(object, "metadata"), "resourceVersion");
}

Error forbidden(std::string message) {
  return {.code = ErrorCode::kPermissionDenied, .message = std::move(message)};
}

// Patches come as a string that holds JSON; some senders put the object itself. Only the status is passed
// on: a patch of the status subresource may change labels and annotations too, and the cloud's rights are
// wider than the node's. A uid stays, as the precondition that it is.
std::string status_patch(const Json& content) {
  const Json patch =
      content.is_string() ? Json::parse(content.get<std::string>(), nullptr, false) : content;
  Json out = Json::object();
  if (const Json status = at(patch, "status"); status.is_object()) out["status"] = status;
  const std::string uid = text_at(at(patch, "metadata"), "uid");
  if (!uid.empty()) out["metadata"]["uid"] = uid;
  return dump(out);
}

// An object whose metadata is an object, or that has none.
bool has_metadata(const Json& object) {
  if (!object.is_object()) return false;
  const auto meta = object.find("metadata");
  return meta == object.end() || meta->is_object();
}

// A mirror pod shows in the API what a node runs by itself. As for Kubernetes' NodeRestriction it names
// itself as one and refers to nothing: else a node could make itself a reader of any secret.
constexpr const char* kMirrorAnnotation = "kubernetes.io/config.mirror";

bool is_mirror(const Json& pod) {
  return at(at(at(pod, "metadata"), "annotations"), kMirrorAnnotation).is_string();
}

bool refers_to_objects(const Json& value) {
  constexpr std::string_view kReferences[] = {
      "secret",       "configMap",       "persistentVolumeClaim", "projected",         "secretRef",
      "configMapRef", "secretKeyRef",    "configMapKeyRef",       "imagePullSecrets",  "serviceAccountName",
      "csi",          "nodePublishSecretRef", "serviceAccount",   "resourceClaims",    "ephemeral"};
  if (value.is_array())
    return std::any_of(value.begin(), value.end(), [](const Json& item) { return refers_to_objects(item); });
  if (!value.is_object()) return false;
  for (const auto& [key, item] : value.items()) {
    const bool named = std::find(std::begin(kReferences), std::end(kReferences), key) != std::end(kReferences);
    const bool says_something = !item.is_null() && item != Json("") && !(item.is_array() && item.empty());
    if ((named && says_something) || refers_to_objects(item)) return true;
  }
  return false;
}

bool may_be_mirror(const Json& pod) {
  return has_metadata(pod) && is_mirror(pod) && !refers_to_objects(at(pod, "spec"));
}

// Labels that only administrators set, and what is kept about its certificate: a node must not give them to
// itself.
void strip_restricted(Json& object) {
  const auto meta = object.find("metadata");
  if (meta == object.end() || !meta->is_object()) return;
  if (meta->contains("annotations") && (*meta)["annotations"].is_object()) {
    (*meta)["annotations"].erase(kCertificateAnnotation);
  }
  if (!meta->contains("labels")) return;
  Json& labels = (*meta)["labels"];
  if (!labels.is_object()) return;
  for (auto it = labels.begin(); it != labels.end();) {
    const bool restricted = it.key().find("node-restriction.kubernetes.io/") != std::string::npos;
    it = restricted ? labels.erase(it) : std::next(it);
  }
}

}  // namespace

Upstream::Upstream(kube::Client& client, NodeLink& link, UpstreamOptions options)
    : client_(client), link_(link), options_(options) {}

Upstream::~Upstream() {
  *alive_ = false;
}

kube::Client::Callback Upstream::guarded(Then then) {
  return [alive = alive_, then = std::move(then)](Result<std::string> result) {
    if (*alive) then(std::move(result));
  };
}

void Upstream::release(const std::string& node) {
  const auto it = in_flight_.find(node);
  if (it == in_flight_.end()) return;
  if (--it->second == options_.max_in_flight / 2) link_.resume(node);
  if (it->second == 0) in_flight_.erase(it);
}

void Upstream::on_disconnected(const std::string&) {}

void Upstream::on_message(const std::string& node, channel::Message message) {
  auto request = std::make_shared<Request>();
  request->owner = this;
  request->alive = alive_;
  request->node = node;
  if (++in_flight_[node] >= options_.max_in_flight) link_.pause(node);
  const std::string& resource = message.resource;
  const size_t first = resource.find('/');
  const size_t second = first == std::string::npos ? first : resource.find('/', first + 1);
  if (first != std::string::npos) {
    request->ns = resource.substr(0, first);
    request->kind = resource.substr(first + 1, second - first - 1);
    if (second != std::string::npos) request->name = resource.substr(second + 1);
  }
  request->content = Json::parse(message.content, nullptr, false);
  request->message = std::move(message);
  const std::string& kind = request->kind;
  if (request->content.is_discarded()) return;
  if (kind == "node") return on_node(request);
  if (kind == "nodepatch") return on_node_patch(request);
  if (kind == "nodestatus") return on_node_status(request);
  if (kind == "lease") return on_lease(request);
  if (kind == "pod") return on_pod(request);
  if (kind == "podstatus") return on_pod_status(request);
  if (kind == "podpatch") return on_pod_patch(request);
  if (kind == "configmap") return on_config(request, kube::kConfigMaps);
  if (kind == "secret") return on_config(request, kube::kSecrets);
  if (kind == "event") return on_event(request);
  if (kind == "serviceaccounttoken") return on_service_token(request);
  EM_LOG(kDebug, "upstream", "node {}: nothing here answers {} {}", node, request->operation(),
         request->message.resource.substr(0, 200));
}

// --- replies ---

void Upstream::reply(const Request& r, std::string content, std::string resource_version) {
  channel::Message out;
  out.id = channel::new_id();
  out.parent_id = r.message.id;
  out.timestamp_ms = channel::now_ms();
  out.resource_version = std::move(resource_version);
  out.source = "edgecontroller";
  out.group = "resource";
  out.operation = "response";
  out.resource = r.message.resource;
  out.content = std::move(content);
  link_.send(r.node, out);
}

void Upstream::reply_object(const Request& r, const Result<std::string>& result) {
  if (!result) {
    const Json content{{"Object", nullptr}, {"Err", error_status(result.error(), r.type, r.name)}};
    return reply(r, dump(content));
  }
  const Json object = Json::parse(*result, nullptr, false);
  reply(r, dump({{"Object", object}, {"Err", nullptr}}), version_of(object));
}

void Upstream::reply_plain(const Request& r, const Result<std::string>& result) {
  if (!result) return reply(r, dump(error_status(result.error(), r.type, r.name)));
  reply(r, *result, version_of(Json::parse(*result, nullptr, false)));
}

void Upstream::reply_ok(const Request& r, const Result<std::string>& result) {
  if (!result) return reply(r, dump(error_status(result.error(), r.type, r.name)));
  reply(r, R"("OK")");
}

void Upstream::refuse(const Request& r, bool object_resp) {
  EM_LOG(kWarn, "upstream", "node {} is not allowed to {} {}", r.node, r.operation(),
         r.message.resource.substr(0, 200));
  const Result<std::string> error = fail(
      forbidden(fmt::format("node {} may not {} {}", r.node, r.operation(), r.message.resource)));
  object_resp ? reply_object(r, error) : reply_plain(r, error);
}

// --- nodes ---

void Upstream::on_node(const RequestPtr& r) {
  const bool own = r->name == r->node;
  if (r->operation() == "query") {
    // Another node's object is none of its business: for this node it does not exist.
    if (!own) return reply_plain(*r, fail(ErrorCode::kNotFound, "not found"));
    return client_.get(kube::kNodes, "", r->name,
                       guarded([this, r](Result<std::string> result) { reply_plain(*r, result); }));
  }
  if (r->operation() == "insert") {
    if (!own || !r->content.is_object() || text_at(at(r->content, "metadata"), "name") != r->name) {
      return refuse(*r, true);
    }
    if (options_.may_create && !options_.may_create(r->node)) return refuse(*r, true);
    Json object = r->content;
    object["apiVersion"] = "v1";
    object["kind"] = "Node";
    strip_restricted(object);
    auto done = [this, r](Result<std::string> result) { reply_object(*r, result); };
    const std::string text = dump(object);
    auto made = [this, r, object = std::move(object), done](Result<std::string> result) mutable {
      if (result || result.error().code != ErrorCode::kAlreadyExists) return done(std::move(result));
      register_claimed(r, std::move(object), done);
    };
    return client_.create(kube::kNodes, "", text, {}, guarded(std::move(made)));
  }
  if (r->operation() != "update") return;
  if (!own || !r->content.is_object()) return refuse(*r, false);
  // Only labels and annotations are taken over, as KubeEdge does.
  Json object = r->content;
  strip_restricted(object);
  Json patch{{"metadata", Json::object()}};
  for (const char* part : {"labels", "annotations"}) {
    const Json value = at(at(object, "metadata"), part);
    if (value.is_object()) patch["metadata"][part] = value;
  }
  client_.patch(kube::kNodes, "", r->name, kube::PatchKind::kMerge, dump(patch), {},
                guarded([this, r](Result<std::string> result) { reply_ok(*r, result); }));
}

void Upstream::on_node_patch(const RequestPtr& r) {
  if (r->operation() != "patch") return;
  if (r->name != r->node) return refuse(*r, true);
  kube::WriteOptions options;
  options.subresource = "status";
  client_.patch(kube::kNodes, "", r->name, kube::PatchKind::kStrategic, status_patch(r->content), options,
                guarded([this, r](Result<std::string> result) { reply_object(*r, result); }));
}

// Agents up to v1.11: the Node at first, then {"UID","Status","ExtendResources"}.
void Upstream::on_node_status(const RequestPtr& r) {
  if (r->name != r->node || !r->content.is_object()) return refuse(*r, false);
  if (r->operation() == "insert") {
    Json object = r->content;
    if (!has_metadata(object)) return refuse(*r, false);
    if (options_.may_create && !options_.may_create(r->node)) return refuse(*r, false);
    object["apiVersion"] = "v1";
    object["kind"] = "Node";
    object["metadata"]["name"] = r->name;
    strip_restricted(object);
    auto done = [this, r](Result<std::string> result) {
      const bool there = !result && result.error().code == ErrorCode::kAlreadyExists;
      reply_ok(*r, there ? Result<std::string>(std::string()) : result);
    };
    const std::string text = dump(object);
    auto made = [this, r, object = std::move(object), done](Result<std::string> result) mutable {
      if (result || result.error().code != ErrorCode::kAlreadyExists) return done(std::move(result));
      register_claimed(r, std::move(object), done);
    };
    return client_.create(kube::kNodes, "", text, {}, guarded(std::move(made)));
  }
  if (r->operation() != "update") return;
  kube::WriteOptions options;
  options.subresource = "status";
  const Json patch{{"status", at(r->content, "Status")}};
  client_.patch(kube::kNodes, "", r->name, kube::PatchKind::kStrategic, dump(patch), options,
                guarded([this, r](Result<std::string> result) {
                  if (!result) return reply_ok(*r, result);
                  reply(*r, R"("OK")", version_of(Json::parse(*result, nullptr, false)));
                }));
}

// A Node without a status was made when the node's certificate was issued: this is its registration. Any other
// Node is left as it is.
void Upstream::register_claimed(const RequestPtr& r, Json object, Then done) {
  auto look = [this, r, object = std::move(object), done = std::move(done)](Result<std::string> result) mutable {
    if (!result) return done(std::move(result));
    const Json have = Json::parse(*result, nullptr, false);
    const bool claimed = at(at(at(have, "metadata"), "annotations"), kCertificateAnnotation).is_string();
    if (!claimed || at(at(have, "status"), "conditions").is_array()) {
      return done(fail(ErrorCode::kAlreadyExists, "nodes \"{}\" already exists", r->name));
    }
    Json patch{{"metadata", Json::object()}};
    for (const char* part : {"labels", "annotations"}) {
      const Json value = at(at(object, "metadata"), part);
      if (value.is_object()) patch["metadata"][part] = value;
    }
    if (at(object, "spec").is_object()) patch["spec"] = object["spec"];
    auto then = [this, r, status = at(object, "status"), done = std::move(done)](Result<std::string> made) mutable {
      if (!made || !status.is_object() || status.empty()) return done(std::move(made));
      kube::WriteOptions options;
      options.subresource = "status";
      client_.patch(kube::kNodes, "", r->name, kube::PatchKind::kMerge, dump(Json{{"status", status}}), options,
                    guarded(std::move(done)));
    };
    client_.patch(kube::kNodes, "", r->name, kube::PatchKind::kMerge, dump(patch), {}, guarded(std::move(then)));
  };
  client_.get(kube::kNodes, "", r->name, guarded(std::move(look)));
}

void Upstream::on_lease(const RequestPtr& r) {
  r->type = kube::kLeases;
  if (r->name != r->node || r->ns != "kube-node-lease") return refuse(*r, true);
  auto done = guarded([this, r](Result<std::string> result) { reply_object(*r, result); });
  if (r->operation() == "query") {
    return client_.get(kube::kLeases, r->ns, r->name, std::move(done));
  }
  if (!has_metadata(r->content)) return refuse(*r, true);
  Json lease = r->content;
  lease["apiVersion"] = "coordination.k8s.io/v1";
  lease["kind"] = "Lease";
  lease["metadata"]["name"] = r->name;
  lease["metadata"]["namespace"] = r->ns;
  if (r->operation() == "insert") {
    return client_.create(kube::kLeases, r->ns, dump(lease), {}, std::move(done));
  }
  if (r->operation() == "update") {
    client_.update(kube::kLeases, r->ns, r->name, dump(lease), {}, std::move(done));
  }
}

// --- pods ---

void Upstream::own_pod(const RequestPtr& r, const std::string& name, Then then) {
  client_.get(kube::kPods, r->ns, name,
              guarded([r, name, then = std::move(then)](Result<std::string> pod) {
                if (!pod) return then(std::move(pod));
                const Json parsed = Json::parse(*pod, nullptr, false);
                if (text_at(at(parsed, "spec"), "nodeName") != r->node) {
                  // The same answer as for one that is not there.
                  return then(fail(ErrorCode::kNotFound, "pod {} is not of this node", name));
                }
                then(std::move(pod));
              }));
}

void Upstream::on_pod(const RequestPtr& r) {
  r->type = kube::kPods;
  if (r->operation() == "delete") {
    kube::DeleteOptions options;
    // Old agents send the UID alone, newer ones metav1.DeleteOptions.
    options.uid = r->content.is_string() ? r->content.get<std::string>()
                                         : text_at(at(r->content, "preconditions"), "uid");
    // The node has ended the pod: nothing is left to wait for.
    options.grace_s = 0;
    return own_pod(r, r->name, [this, r, options](Result<std::string> pod) {
      // Gone is what was asked for.
      if (!pod && pod.error().code == ErrorCode::kNotFound) return reply(*r, R"("OK")");
      if (!pod) return reply_ok(*r, pod);
      client_.remove(kube::kPods, r->ns, r->name, options,
                     guarded([this, r](Result<std::string> result) { reply_ok(*r, result); }));
    });
  }
  if (r->operation() != "insert") return;
  if (text_at(at(r->content, "spec"), "nodeName") != r->node ||
      text_at(at(r->content, "metadata"), "name") != r->name || !may_be_mirror(r->content)) {
    return refuse(*r, true);
  }
  Json pod = r->content;
  pod["apiVersion"] = "v1";
  pod["kind"] = "Pod";
  client_.create(kube::kPods, r->ns, dump(pod), {},
                 guarded([this, r](Result<std::string> result) { reply_object(*r, result); }));
}

void Upstream::on_pod_status(const RequestPtr& r) {
  if (r->operation() != "update") return;
  reply(*r, R"("OK")");
  if (!r->content.is_array()) return one_pod_status(r, r->content);
  size_t count = 0;
  for (const Json& status : r->content) {
    if (++count <= kMaxStatuses) one_pod_status(r, status);
  }
}

void Upstream::one_pod_status(const RequestPtr& r, const Json& status) {
  const std::string name = text_at(status, "Name").empty() ? r->name : text_at(status, "Name");
  if (name.empty() || !at(status, "Status").is_object()) return;
  const std::string uid = text_at(status, "UID");
  own_pod(r, name, [this, r, name, uid, body = at(status, "Status")](Result<std::string> pod) {
    if (!pod && pod.error().code != ErrorCode::kNotFound) return;
    const Json object = pod ? Json::parse(*pod, nullptr, false) : Json();
    if (!pod || text_at(at(object, "metadata"), "uid") != uid) {
      // The node runs a pod that is not (any more) in the API: it must end it.
      channel::Message out;
      out.id = channel::new_id();
      out.timestamp_ms = channel::now_ms();
      out.source = "edgecontroller";
      out.group = "resource";
      out.operation = "delete";
      out.resource = r->ns + "/pod/" + name;
      out.content = dump({{"metadata", {{"name", name}, {"namespace", r->ns}, {"uid", uid}}}});
      link_.send(r->node, out);
      return;
    }
    kube::WriteOptions options;
    options.subresource = "status";
    const Json whole = whole_pod_status(object, body);
    client_.patch(kube::kPods, r->ns, name, kube::PatchKind::kStrategic, dump({{"status", whole}}),
                  options, guarded([r, name](Result<std::string> result) {
                    if (result) return;
                    EM_LOG(kWarn, "upstream", "status of pod {}/{}: {}", r->ns, name,
                           result.error().message);
                  }));
  });
}

void Upstream::on_pod_patch(const RequestPtr& r) {
  r->type = kube::kPods;
  if (r->operation() != "patch") return;
  own_pod(r, r->name, [this, r](Result<std::string> pod) {
    if (!pod) return reply_object(*r, pod);
    kube::WriteOptions options;
    options.subresource = "status";
    client_.patch(kube::kPods, r->ns, r->name, kube::PatchKind::kStrategic, status_patch(r->content), options,
                  guarded([this, r](Result<std::string> result) { reply_object(*r, result); }));
  });
}

// --- config maps, secrets, events ---

void Upstream::on_config(const RequestPtr& r, const kube::ResourceType& type) {
  r->type = type;
  if (r->operation() != "query") return;
  kube::ListOptions options;
  options.field_selector = "spec.nodeName=" + r->node;
  client_.list(kube::kPods, r->ns, options, guarded([this, r, type](Result<std::string> list) {
                 if (!list) return reply_plain(*r, list);
                 bool named = false;
                 const Json pods = Json::parse(*list, nullptr, false);
                 for (const Json& pod : at(pods, "items")) {
                   // What the node itself wrote gives it no right to read.
                   named = named || (!is_mirror(pod) && pod_refers_to(pod, type, r->name));
                 }
                 if (!named) return reply_plain(*r, fail(ErrorCode::kNotFound, "not found"));
                 client_.get(type, r->ns, r->name, guarded([this, r](Result<std::string> result) {
                               reply_plain(*r, result);
                             }));
               }));
}

void Upstream::on_event(const RequestPtr& r) {
  auto done = guarded([r](Result<std::string> result) {
    if (!result) EM_LOG(kDebug, "upstream", "event of {}: {}", r->node, result.error().message);
  });
  if (!r->content.is_object()) return;
  if (r->operation() == "patch") {
    return client_.patch(kube::kEvents, r->ns, r->name, kube::PatchKind::kStrategic,
                         text_at(r->content, "patchData"), {}, std::move(done));
  }
  Json event = r->content;
  event["apiVersion"] = "v1";
  event["kind"] = "Event";
  if (r->operation() == "insert") {
    client_.create(kube::kEvents, r->ns, dump(event), {}, std::move(done));
  } else if (r->operation() == "update") {
    client_.update(kube::kEvents, r->ns, r->name, dump(event), {}, std::move(done));
  }
}

}  // namespace edgemesh::cloud
