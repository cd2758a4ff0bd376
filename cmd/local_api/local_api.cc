#include "cmd/local_api/local_api.h"

#include <nlohmann/json.hpp>

#include "cloud/api/request.h"
#include "core/tls/x509.h"
#include "kube/json_util.h"

namespace edgemesh::cmd {

namespace {

using Json = nlohmann::json;
using Writer = std::shared_ptr<http::ResponseWriter>;
using channel::Application;
using cloud::ApiError;
using cloud::refuse;

// Who is on the machine may read all that is held: there is one user, of the server's own.
constexpr const char* kUser = "local";

void respond(const Writer& writer, int status, std::string body) {
  http::Response out;
  out.status = status;
  out.headers.set("Content-Type", "application/json");
  if (status == 429 || status == 503) out.headers.set("Retry-After", "1");
  out.body = std::move(body);
  writer->respond(std::move(out));
}

void respond_error(const Writer& writer, const ApiError& error) {
  respond(writer, error.code, error.to_text());
}

// A page in a browser on this machine can send requests here, too, under a name of its own choice.
bool from_a_web_page(const http::Request& request) {
  if (request.headers.has("Origin") || request.headers.has("Sec-Fetch-Site")) return true;
  std::string_view host = request.headers.get_or("Host", "");
  if (host.starts_with('[')) {
    host = host.substr(1, host.find(']') - 1);
  } else {
    host = host.substr(0, host.find(':'));
  }
  if (http::equals_ignore_case(host, "localhost")) return false;
  const auto ip = IpAddr::parse(host);
  return !ip || !ip->is_loopback();
}

bool reads(const std::string& verb) {
  return verb == "get" || verb == "list" || verb == "watch";
}

void take_query(const http::Request& request, const char* name, Json* options) {
  const auto value = request.query(name);
  if (value && !value->empty()) (*options)[name] = *value;
}

Json write_option_json(const http::Request& request, const cloud::ResourcePath& path) {
  const kube::WriteOptions given = cloud::write_options(request, path);
  Json out = Json::object();
  if (!given.field_manager.empty()) out["fieldManager"] = given.field_manager;
  if (given.dry_run) out["dryRun"] = {"All"};
  if (given.force) out["force"] = true;
  take_query(request, "fieldValidation", &out);
  return out;
}

Json list_options(const http::Request& request) {
  Json out = Json::object();
  for (const char* name : {"labelSelector", "fieldSelector", "continue"})
    take_query(request, name, &out);
  if (const auto limit = request.query("limit")) out["limit"] = std::atoll(limit->c_str());
  return out;
}

Json* member(Json* object, const char* first, const char* second) {
  const auto at = object->is_object() ? object->find(first) : object->end();
  if (at == object->end() || !at->is_object()) return nullptr;
  const auto found = at->find(second);
  return found == at->end() ? nullptr : &*found;
}

cloud::ApiResult<Json> delete_options(const http::Request& request) {
  auto body = cloud::parse_body(request);
  if (!body) return refuse(body.error());
  Json out = body->is_object() ? std::move(*body) : Json::object();
  take_query(request, "propagationPolicy", &out);
  if (const auto grace = request.query("gracePeriodSeconds"))
    out["gracePeriodSeconds"] = std::atoll(grace->c_str());
  if (request.query("dryRun").value_or("") == "All") out["dryRun"] = {"All"};
  return out;
}

}  // namespace

Result<std::unique_ptr<LocalApi>> LocalApi::create(io::Loop& loop, agent::Metastore& metastore,
                                                   agent::CloudCalls& cloud, Options options) {
  std::unique_ptr<LocalApi> self(new LocalApi(loop, cloud));
  EM_TRY(self->held_, HeldObjects::create(loop, metastore, options.objects));
  cloud::ApiServerOptions server;
  server.authenticator = cloud::make_authenticator(
      {{kUser, {"system:local", {std::string(cloud::kMastersGroup)}}}});
  server.max_watches = options.max_watches;
  server.bookmark_every = options.bookmark_every;
  server.max_watch_queue = 2 << 20;
  self->server_ = cloud::ApiServer::create(loop, self->held_->core(), std::move(server));
  http::ServerOptions listen;
  listen.listen = options.listen;
  listen.max_connections = options.max_connections;
  listen.max_body = 3 << 20;
  listen.name = "metaserver";
  EM_TRY(
      self->listener_,
      http::Server::create(loop, listen, [raw = self.get()](http::Request request, Writer writer) {
        raw->handle(std::move(request), std::move(writer));
      }));
  return self;
}

LocalApi::~LocalApi() {
  listener_.reset();
  server_.reset();
}

void LocalApi::drain() {
  server_->drain();
  listener_->drain();
}

void LocalApi::handle(http::Request request, Writer writer) {
  if (from_a_web_page(request)) {
    return respond_error(
        writer, ApiError::simple(403, "Forbidden",
                                 "this address serves programs of this machine, not web pages"));
  }
  request.headers.set("Authorization", fmt::format("Bearer {}", kUser));
  const auto path = cloud::parse_resource_path(request.path());
  if (!path) return server_->handle(std::move(request), std::move(writer));
  const std::string verb = cloud::verb_of(request, *path);
  const bool held = held_->registry().find(path->group, path->version, path->resource) != nullptr;
  const bool plain = path->subresource.empty() || path->subresource == "status";
  if (reads(verb) && held && plain) return server_->handle(std::move(request), std::move(writer));
  if (verb == "watch") {
    return respond_error(
        writer, ApiError::simple(404, "NotFound",
                                 "this node does not hold such objects, and watches what it holds "
                                 "only"));
  }
  if (verb.empty() || verb == "deletecollection") {
    return respond_error(writer, ApiError::simple(405, "MethodNotAllowed",
                                                  "the node's API does not allow this method on "
                                                  "the requested resource"));
  }
  forward(request, *path, verb, std::move(writer));
}

void LocalApi::forward(const http::Request& request, const cloud::ResourcePath& path,
                       const std::string& verb, Writer writer) {
  auto asked = application(request, path, verb);
  if (!asked) return respond_error(writer, asked.error());
  cloud_.call(std::move(*asked), [writer](agent::CloudCalls::Answer answer) {
    respond(writer, answer.status, std::move(answer.body));
  });
}

// Of the version here the one that the cloud knows the object by. Others are the cloud's own, from
// an earlier answer of it, or old ones that it refuses.
void LocalApi::restore_version(const cloud::ResourcePath& path, const std::string& name,
                               Json* version) const {
  const cloud::ResourceInfo* info = held_->registry().find(path.group, path.version, path.resource);
  if (info == nullptr || version == nullptr || !version->is_string()) return;
  auto known = held_->to_cloud_version(*info, path.ns, name, version->get_ref<std::string&>());
  if (known) *version = std::move(*known);
}

cloud::ApiResult<Application> LocalApi::application(const http::Request& request,
                                                    const cloud::ResourcePath& path,
                                                    const std::string& verb) const {
  Application out;
  out.group = path.group;
  out.version = path.version;
  out.resource = path.resource;
  out.ns = path.ns;
  out.name = path.name;
  out.subresource = path.subresource;
  out.verb = verb;
  if (verb == "list") {
    out.option = kube::to_text(list_options(request));
  } else if (verb == "delete") {
    auto options = delete_options(request);
    if (!options) return refuse(options.error());
    restore_version(path, path.name, member(&*options, "preconditions", "resourceVersion"));
    out.option = kube::to_text(*options);
  } else if (verb != "get") {
    if (auto written = add_body(request, path, &out); !written) return refuse(written.error());
  }
  return out;
}

// Of create, update and patch.
cloud::ApiResult<void> LocalApi::add_body(const http::Request& request,
                                          const cloud::ResourcePath& path, Application* out) const {
  http::Request json = request;
  const bool patches = out->verb == "patch";
  if (patches) {
    auto kind = cloud::patch_kind(request);
    if (!kind) return refuse(kind.error());
    // Apply may come as YAML, the other three are JSON.
    if (*kind != kube::PatchKind::kApply) json.headers.set("Content-Type", "application/json");
  }
  auto body = cloud::parse_body(json);
  if (!body) return refuse(body.error());
  const std::string name = path.name.empty() ? kube::text_at(*body, "metadata", "name") : path.name;
  restore_version(path, name, member(&*body, "metadata", "resourceVersion"));
  if (body->is_array()) {  // a JSON patch
    for (Json& step : *body) {
      if (kube::text_at(step, "path") == "/metadata/resourceVersion" && step.contains("value"))
        restore_version(path, name, &step["value"]);
    }
  }
  const Json options = write_option_json(request, path);
  if (!patches) {
    if (out->verb == "update" && path.subresource == "status") {
      out->verb = "updatestatus";
      out->subresource.clear();
    }
    out->option = kube::to_text(options);
    out->body = kube::to_text(*body);
    return {};
  }
  const std::string_view type = request.headers.get_or("Content-Type", "");
  const Json below = path.subresource.empty() ? Json::array() : Json::array({path.subresource});
  out->option = kube::to_text({{"Name", path.name},
                               {"PatchType", type.substr(0, type.find(';'))},
                               {"Data", tls::base64_encode(kube::to_text(*body))},
                               {"Options", options},
                               {"Subresources", below}});
  return {};
}

}  // namespace edgemesh::cmd
