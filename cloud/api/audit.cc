#include "cloud/api/audit.h"

#include <nlohmann/json.hpp>

#include "cloud/api/meta.h"
#include "cloud/api/reviews.h"
#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

constexpr size_t kMostAgent = 1024, kMostUri = 8192, kMostMessage = 4096;
constexpr size_t kMostObject = 256 << 10;  // of a body that is written down
constexpr const char* kLeftOut = "audit.edgemesh.io/request-object";

// What is sent there, or what its errors quote, may be secret.
bool is_sensitive(const ResourcePath& path) {
  if (path.group.empty())
    return path.resource == "secrets" || path.resource == "configmaps" ||
           (path.resource == "serviceaccounts" && path.subresource == "token");
  return path.resource == "tokenreviews";
}

json object_ref(const ResourcePath& path) {
  json out = json::object();
  const auto set = [&out](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = value;
  };
  set("resource", path.resource);
  set("namespace", path.ns);
  set("name", path.name);
  set("apiGroup", path.group);
  set("apiVersion", path.version);
  set("subresource", path.subresource);
  return out;
}

}  // namespace

Result<std::shared_ptr<Audit>> Audit::open(const Clock& clock, const AuditOptions& options) {
  AuditFile::Options file;
  file.path = options.file;
  file.max_bytes = options.max_megabytes << 20;
  file.max_old = options.max_files;
  auto opened = AuditFile::open(std::move(file));
  if (!opened) return fail(opened.error().with_context("audit.file"));
  return std::shared_ptr<Audit>(new Audit(clock, options.level, std::move(*opened)));
}

AuditRecord::AuditRecord(std::shared_ptr<Audit> audit, const http::Request& request,
                         std::shared_ptr<http::ResponseWriter> inner)
    : audit_(std::move(audit)), inner_(std::move(inner)), event_(std::make_unique<json>()) {
  json& event = *event_;
  event = {{"kind", "Event"},
           {"apiVersion", "audit.k8s.io/v1"},
           {"level", audit_->level() == AuditLevel::kRequest ? "Request" : "Metadata"},
           {"auditID", new_uid()},
           {"requestURI", request.target.substr(0, kMostUri)},
           {"user", json::object()},
           {"requestReceivedTimestamp", kube::rfc3339(audit_->clock().wall_now(), true)}};
  // A node's request that came by its channel has no address.
  if (request.peer_addr.port != 0) event["sourceIPs"] = {request.peer_addr.ip.to_string()};
  const std::string_view agent = request.headers.get_or("User-Agent", "");
  if (!agent.empty()) event["userAgent"] = agent.substr(0, kMostAgent);
}

AuditRecord::~AuditRecord() {
  if (complete_) return;
  // The client went away, or a watch has ended.
  if (!event_->contains("responseStatus")) set_status(500, nullptr);
  emit("ResponseComplete");
}

void AuditRecord::set_caller(const Caller& caller) {
  if (caller.real == nullptr) {
    (*event_)["user"] = user_json(caller.user);
    return;
  }
  (*event_)["user"] = user_json(*caller.real);
  (*event_)["impersonatedUser"] = user_json(caller.user);
}

void AuditRecord::set_verb(const std::string& verb) {
  (*event_)["verb"] = verb;
}

void AuditRecord::set_resource(const ResourcePath& path, const std::string& verb) {
  set_verb(verb);
  (*event_)["objectRef"] = object_ref(path);
  sensitive_ = is_sensitive(path);
  if (sensitive_) (*event_)["level"] = "Metadata";
}

void AuditRecord::set_decision(bool allowed, const std::string& reason) {
  (*event_)["annotations"]["authorization.k8s.io/decision"] = allowed ? "allow" : "forbid";
  (*event_)["annotations"]["authorization.k8s.io/reason"] = reason;
}

void AuditRecord::set_object(const json& object, size_t bytes) {
  json& ref = (*event_)["objectRef"];
  for (const char* key : {"name", "namespace", "uid", "resourceVersion"}) {
    const std::string value = text_at(object, "metadata", key);
    if (!value.empty() && !ref.contains(key)) ref[key] = value;
  }
  if (sensitive_ || audit_->level() != AuditLevel::kRequest || object.is_null()) return;
  if (bytes > kMostObject) {
    (*event_)["annotations"][kLeftOut] = fmt::format("left out: {} bytes", bytes);
    return;
  }
  (*event_)["requestObject"] = object;
}

void AuditRecord::set_status(int status, const std::string* body) {
  json out = {{"metadata", json::object()}, {"code", status}};
  // The body of an error is a Status, and short.
  const json answer = status >= 400 && body != nullptr && body->size() <= kMostObject
                          ? json::parse(*body, nullptr, false)
                          : json();
  if (text_at(answer, "kind") == "Status") {
    out["status"] = text_at(answer, "status");
    out["reason"] = text_at(answer, "reason");
    if (!sensitive_) out["message"] = text_at(answer, "message").substr(0, kMostMessage);
  }
  (*event_)["responseStatus"] = std::move(out);
}

void AuditRecord::respond(http::Response response) {
  if (!complete_) {
    set_status(response.status, &response.body);
    emit("ResponseComplete");
    complete_ = true;
  }
  response.headers.set("Audit-Id", text_at(*event_, "auditID"));
  inner_->respond(std::move(response));
}

void AuditRecord::start(int status, http::Headers headers) {
  set_status(status, nullptr);
  if (!complete_) emit("ResponseStarted");
  headers.set("Audit-Id", text_at(*event_, "auditID"));
  inner_->start(status, std::move(headers));
}

void AuditRecord::end() {
  if (!std::exchange(complete_, true)) emit("ResponseComplete");
  inner_->end();
}

Result<std::unique_ptr<io::Stream>> AuditRecord::upgrade(http::Headers extra) {
  auto stream = inner_->upgrade(std::move(extra));
  // What follows is no longer HTTP: its end is not seen here.
  if (stream && !std::exchange(complete_, true)) {
    set_status(101, nullptr);
    emit("ResponseComplete");
  }
  return stream;
}

void AuditRecord::emit(const char* stage) {
  (*event_)["stage"] = stage;
  (*event_)["stageTimestamp"] = kube::rfc3339(audit_->clock().wall_now(), true);
  audit_->file().put(kube::to_text(*event_));
}

}  // namespace edgemesh::cloud
