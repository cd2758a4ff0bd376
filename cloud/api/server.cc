#include "cloud/api/server.h"

#include <nlohmann/json.hpp>
#include <random>
#include <unordered_map>

#include "cloud/api/discovery.h"
#include "cloud/api/list.h"
#include "cloud/api/request.h"
#include "cloud/api/schema.h"
#include "cloud/api/table.h"
#include "cloud/api/watch.h"
#include "cloud/api/embedded_client.h"
#include "core/base/log.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using nlohmann::json;
using Writer = std::shared_ptr<http::ResponseWriter>;

namespace {

void send(const Writer& writer, int status, std::string body, const char* type = "application/json",
          std::string warning = {}) {
  http::Response out;
  out.status = status;
  out.headers.set("Content-Type", type);
  out.headers.set("Cache-Control", "no-cache, private");
  if (!warning.empty()) out.headers.set("Warning", warning);
  out.body = std::move(body);
  writer->respond(std::move(out));
}

void send_error(const Writer& writer, const ApiError& error) {
  http::Response out;
  out.status = error.code;
  out.headers.set("Content-Type", "application/json");
  if (error.retry_after_s > 0) {
    out.headers.set("Retry-After", std::to_string(error.retry_after_s));
  }
  out.body = error.to_text();
  writer->respond(std::move(out));
}

// A request that was understood, on its way through the handlers.
struct Call {
  http::Request request;
  Writer writer;
  ResourcePath path;
  std::string verb;
  const ResourceInfo* resource = nullptr;
  std::string warning;  // for fieldValidation=Warn
};

std::string metadata_name_of(const http::Request& request) {
  auto selector = kube::FieldSelector::parse(request.query("fieldSelector").value_or(""));
  if (!selector) return {};
  for (const auto& term : selector->terms()) {
    if (term.field == "metadata.name" && term.equal) return term.value;
  }
  return {};
}

class Server final : public ApiServer {
 public:
  Server(io::Loop& loop, ApiCore& core, ApiServerOptions options)
      : loop_(loop), core_(core), options_(std::move(options)), random_(std::random_device()()) {
    if (options_.authenticator == nullptr) options_.authenticator = make_authenticator();
    if (options_.authorizer == nullptr) options_.authorizer = make_authorizer();
  }

  void handle(http::Request request, Writer writer) override;
  void drain() override;
  size_t watches() const override { return watches_.size(); }

 private:
  bool handle_health(const http::Request& request, const Writer& writer);
  bool authorize(const http::Request& request, const Writer& writer, const ApiUser& user,
                 const ResourcePath* path, const std::string& verb);
  void handle_other(const http::Request& request, const Writer& writer);
  void handle_resource(Call call);
  bool check_subresource(const Call& call);
  void get(const Call& call);
  void list(const Call& call);
  void watch(const Call& call);
  void create(Call call);
  void update(Call call);
  void patch(const Call& call);
  void remove(const Call& call);
  ApiResult<ApiCore::Deletion> deletion_options(const Call& call);
  ApiResult<WatchParams> watch_params(const Call& call);
  ApiResult<Filter> filter_of(const Call& call);
  // False: refused and answered.
  bool check_fields(Call* call, const json& body);
  ApiCore::Done answer(const Call& call);

  io::Loop& loop_;
  ApiCore& core_;
  ApiServerOptions options_;
  std::minstd_rand random_;
  bool draining_ = false;
  std::unordered_map<HttpWatch*, std::unique_ptr<HttpWatch>> watches_;
};

void Server::handle(http::Request request, Writer writer) {
  if (handle_health(request, writer)) return;
  auto user = options_.authenticator->authenticate(request);
  if (!user) {
    return send_error(writer, ApiError::simple(401, "Unauthorized", "Unauthorized"));
  }
  auto path = parse_resource_path(request.path());
  if (!path) {
    if (!authorize(request, writer, *user, nullptr, "get")) return;
    return handle_other(request, writer);
  }
  std::string verb = verb_of(request, *path);
  if (verb.empty()) {
    return send_error(writer, ApiError::simple(405, "MethodNotAllowed",
                                               "the server does not allow this method on the "
                                               "requested resource"));
  }
  if (!authorize(request, writer, *user, &*path, verb)) return;
  Call call{std::move(request), std::move(writer), std::move(*path), std::move(verb), nullptr, {}};
  call.resource = core_.registry().find(call.path.group, call.path.version, call.path.resource);
  if (call.resource == nullptr) {
    return send_error(call.writer, ApiError::simple(404, "NotFound",
                                                    "the server could not find the requested "
                                                    "resource"));
  }
  handle_resource(std::move(call));
}

bool Server::handle_health(const http::Request& request, const Writer& writer) {
  std::string path(request.raw_path());
  bool health = path == "/healthz" || path == "/livez" || path == "/readyz" ||
                path.starts_with("/livez/") || path.starts_with("/readyz/");
  if (!health || request.method != "GET") return false;
  bool ready = !draining_ || !path.starts_with("/readyz");
  send(writer, ready ? 200 : 503, ready ? "ok" : "stopping", "text/plain; charset=utf-8");
  return true;
}

bool Server::authorize(const http::Request& request, const Writer& writer, const ApiUser& user,
                       const ResourcePath* path, const std::string& verb) {
  ApiAttributes what;
  what.verb = verb;
  what.path = request.path();
  if (path != nullptr) {
    what.group = path->group;
    what.version = path->version;
    what.resource = path->resource;
    what.subresource = path->subresource;
    what.ns = path->ns;
    what.name = path->name;
    what.field_name = metadata_name_of(request);
  }
  if (options_.authorizer->allows(user, what)) return true;
  ApiError error = ApiError::simple(403, "Forbidden", "");
  if (path == nullptr) {
    error.message =
        fmt::format("forbidden: User \"{}\" cannot {} path \"{}\"", user.name, verb, what.path);
  } else {
    std::string resource = what.resource;
    if (!what.group.empty()) resource += "." + what.group;
    error.message = fmt::format(
        "{}{} is forbidden: User \"{}\" cannot {} resource \"{}\" in API group \"{}\"{}", resource,
        what.name.empty() ? "" : " \"" + what.name + "\"", user.name, verb, what.resource,
        what.group,
        what.ns.empty() ? " at the cluster scope" : " in the namespace \"" + what.ns + "\"");
    error.name = what.name;
    error.group = what.group;
    error.kind = what.resource;
  }
  send_error(writer, error);
  return false;
}

void Server::handle_other(const http::Request& request, const Writer& writer) {
  if (request.method != "GET") {
    return send_error(writer, ApiError::simple(405, "MethodNotAllowed", "want GET"));
  }
  auto answer = discovery(core_.registry(), request.path(), request.headers.get_or("Accept", ""));
  if (answer) return send(writer, 200, std::move(answer->body), answer->content_type.c_str());
  send(writer, 404, "404 page not found\n", "text/plain; charset=utf-8");
}

bool Server::check_subresource(const Call& call) {
  const std::string& sub = call.path.subresource;
  bool status = sub == "status" && call.resource->has_status &&
                (call.verb == "get" || call.verb == "update" || call.verb == "patch");
  return sub.empty() || status;
}

void Server::handle_resource(Call call) {
  // A path without a namespace reaches all of them, for reading only.
  bool reads_all = call.verb == "list" || call.verb == "watch";
  bool misplaced =
      call.resource->type.namespaced ? call.path.ns.empty() && !reads_all : !call.path.ns.empty();
  if (misplaced || !check_subresource(call)) {
    return send_error(call.writer, ApiError::simple(404, "NotFound",
                                                    "the server could not find the requested "
                                                    "resource"));
  }
  if (call.verb == "get") return get(call);
  if (call.verb == "list") return list(call);
  if (call.verb == "watch") return watch(call);
  if (call.verb == "create") return create(std::move(call));
  if (call.verb == "update") return update(std::move(call));
  if (call.verb == "patch") return patch(call);
  remove(call);
}

void Server::get(const Call& call) {
  ObjectPtr object = core_.store().get(*call.resource, call.path.ns, call.path.name);
  if (object == nullptr) {
    return send_error(call.writer, ApiError::not_found(*call.resource, call.path.name));
  }
  if (!wants_table(call.request.headers.get_or("Accept", ""))) {
    return send(call.writer, 200, object->text);
  }
  TableParams params;
  params.version = object->version;
  params.include = parse_include_object(call.request.query("includeObject").value_or(""));
  params.now = loop_.clock().wall_now();
  send(call.writer, 200, table_text(*call.resource, {object}, params));
}

ApiResult<Filter> Server::filter_of(const Call& call) {
  auto filter = make_filter(call.path.ns, call.request.query("labelSelector").value_or(""),
                            call.request.query("fieldSelector").value_or(""));
  if (!filter) return refuse(ApiError::bad_request(filter.error().message));
  for (const auto& term : filter->fields.terms()) {
    const auto& known = call.resource->fields;
    bool good = term.field == "metadata.name" || term.field == "metadata.namespace" ||
                std::find(known.begin(), known.end(), term.field) != known.end();
    if (!good) {
      return refuse(ApiError::bad_request(fmt::format("field label not supported: {} (of {})",
                                                      term.field, call.resource->type.plural)));
    }
  }
  return std::move(*filter);
}

void Server::list(const Call& call) {
  auto filter = filter_of(call);
  if (!filter) return send_error(call.writer, filter.error());
  auto version = version_option(call.request);
  if (!version) return send_error(call.writer, version.error());
  int64_t limit = std::atoll(call.request.query("limit").value_or("0").c_str());
  std::string token = call.request.query("continue").value_or("");
  std::string match = call.request.query("resourceVersionMatch").value_or("");
  bool exact = match == "Exact";
  if (query_flag(call.request, "sendInitialEvents") || (!match.empty() && !token.empty()) ||
      (exact && *version == 0)) {
    return send_error(call.writer,
                      ApiError::simple(422, "Invalid",
                                       "ListOptions: sendInitialEvents and resourceVersionMatch do "
                                       "not fit the other options"));
  }
  uint64_t at = exact || *version > core_.store().version() ? *version : 0;
  auto found = core_.store().list(*call.resource, *filter, limit, token, at);
  if (!found) {
    return send_error(call.writer, ApiError::from_error(found.error(), *call.resource, ""));
  }
  if (!wants_table(call.request.headers.get_or("Accept", ""))) {
    return send(call.writer, 200, list_text(*call.resource, *found));
  }
  TableParams params;
  params.version = found->version;
  params.continue_token = found->continue_token;
  params.remaining = found->remaining;
  params.include = parse_include_object(call.request.query("includeObject").value_or(""));
  params.now = loop_.clock().wall_now();
  send(call.writer, 200, table_text(*call.resource, found->items, params));
}

ApiResult<WatchParams> Server::watch_params(const Call& call) {
  WatchParams params;
  params.resource = call.resource;
  auto filter = filter_of(call);
  if (!filter) return refuse(filter.error());
  params.filter = std::move(*filter);
  if (!call.path.name.empty()) {
    auto one = kube::FieldSelector::parse("metadata.name=" + call.path.name);
    if (one) params.filter.fields = std::move(*one);
  }
  auto version = version_option(call.request);
  if (!version) return refuse(version.error());
  params.from = *version;
  if (params.from > core_.store().version()) {
    Error error{ErrorCode::kTimeout, fmt::format("Too large resource version: {}, current: {}",
                                                 params.from, core_.store().version())};
    return refuse(ApiError::from_error(error, *call.resource, ""));
  }
  params.initial_events = query_flag(call.request, "sendInitialEvents");
  if (params.initial_events) {
    if (call.request.query("resourceVersionMatch").value_or("") != "NotOlderThan") {
      return refuse(ApiError::simple(422, "Invalid",
                                     "ListOptions.meta.k8s.io \"\" is invalid: "
                                     "resourceVersionMatch: Forbidden: sendInitialEvents requires "
                                     "setting resourceVersionMatch to NotOlderThan"));
    }
    params.from = 0;
  }
  params.bookmarks = query_flag(call.request, "allowWatchBookmarks");
  params.table = wants_table(call.request.headers.get_or("Accept", ""));
  int64_t seconds = std::atoll(call.request.query("timeoutSeconds").value_or("0").c_str());
  constexpr int64_t kMaxSeconds = 24 * 3600;
  std::uniform_real_distribution<double> spread(1.0, 2.0);
  params.timeout =
      seconds > 0 ? Duration(std::chrono::seconds(std::min(seconds, kMaxSeconds)))
                  : Duration(static_cast<int64_t>(
                        static_cast<double>(options_.watch_timeout.count()) * spread(random_)));
  params.bookmark_every = options_.bookmark_every;
  params.max_queue = options_.max_watch_queue;
  return params;
}

void Server::watch(const Call& call) {
  if (draining_ || watches_.size() >= options_.max_watches) {
    ApiError busy = ApiError::simple(429, "TooManyRequests",
                                     draining_ ? "the server is stopping" : "too many watches");
    busy.retry_after_s = 1;
    return send_error(call.writer, busy);
  }
  auto params = watch_params(call);
  if (!params) return send_error(call.writer, params.error());
  auto started = HttpWatch::start(loop_, core_.store(), std::move(*params), call.writer,
                                  [this](HttpWatch* ended) {
                                    auto it = watches_.find(ended);
                                    if (it == watches_.end()) return;
                                    loop_.defer([owned = std::move(it->second)] {});
                                    watches_.erase(it);
                                  });
  if (!started) {
    return send_error(call.writer, ApiError::from_error(started.error(), *call.resource, ""));
  }
  HttpWatch* raw = started->get();
  watches_[raw] = std::move(*started);
}

bool Server::check_fields(Call* call, const json& body) {
  std::string mode = call->request.query("fieldValidation").value_or("Warn");
  if (mode == "Ignore" || !call->path.subresource.empty()) return true;
  auto unknown = unknown_fields(*call->resource, body);
  if (unknown.empty()) return true;
  std::string list;
  for (const std::string& field : unknown) {
    list += fmt::format("{}unknown field \"{}\"", list.empty() ? "" : ", ", field);
  }
  if (mode != "Strict") {
    std::string quoted;
    for (char c : list) {
      if (c == '"') quoted += '\\';
      quoted += c;
    }
    call->warning = fmt::format("299 - \"{}\"", quoted);
    return true;
  }
  send_error(call->writer,
             ApiError::bad_request(fmt::format(
                 "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                 call->resource->type.kind, call->resource->type.version, call->resource->type.kind,
                 list)));
  return false;
}

ApiCore::Done Server::answer(const Call& call) {
  return [writer = call.writer, warning = call.warning](ApiResult<ApiCore::Written> written) {
    if (!written) return send_error(writer, written.error());
    send(writer, written->created ? 201 : 200, std::move(written->text), "application/json",
         warning);
  };
}

void Server::create(Call call) {
  auto body = parse_body(call.request);
  if (!body) return send_error(call.writer, body.error());
  if (!check_fields(&call, *body)) return;
  core_.create(*call.resource, call.path.ns, std::move(*body),
               write_options(call.request, call.path), answer(call));
}

void Server::update(Call call) {
  auto body = parse_body(call.request);
  if (!body) return send_error(call.writer, body.error());
  if (!check_fields(&call, *body)) return;
  core_.update(*call.resource, call.path.ns, call.path.name, std::move(*body),
               write_options(call.request, call.path), answer(call));
}

void Server::patch(const Call& call) {
  auto kind = patch_kind(call.request);
  if (!kind) return send_error(call.writer, kind.error());
  http::Request request = call.request;
  // The three JSON forms are JSON; an applied object may be YAML.
  if (*kind != kube::PatchKind::kApply) request.headers.set("Content-Type", "application/json");
  auto body = parse_body(request);
  if (!body) return send_error(call.writer, body.error());
  Call checked = call;
  if (*kind != kube::PatchKind::kJson && !check_fields(&checked, *body)) return;
  core_.patch(*call.resource, call.path.ns, call.path.name, *kind, *body,
              write_options(call.request, call.path), answer(checked));
}

ApiResult<ApiCore::Deletion> Server::deletion_options(const Call& call) {
  ApiCore::Deletion out;
  auto body = parse_body(call.request);
  if (!body) return refuse(body.error());
  out.propagation = call.request.query("propagationPolicy").value_or("");
  out.dry_run = call.request.query("dryRun").value_or("") == "All";
  std::string grace = call.request.query("gracePeriodSeconds").value_or("");
  if (!grace.empty()) out.grace_s = std::atoi(grace.c_str());
  if (!body->is_object()) return out;
  if (auto given = kube::find(*body, "gracePeriodSeconds"); given && given->is_number_integer()) {
    out.grace_s = given->get<int>();
  }
  if (auto policy = kube::text_at(*body, "propagationPolicy"); !policy.empty()) {
    out.propagation = policy;
  }
  out.uid = kube::text_at(*body, "preconditions", "uid");
  out.resource_version = kube::text_at(*body, "preconditions", "resourceVersion");
  if (auto dry = kube::find(*body, "dryRun"); dry && dry->is_array() && !dry->empty()) {
    out.dry_run = true;
  }
  return out;
}

void Server::remove(const Call& call) {
  auto deletion = deletion_options(call);
  if (!deletion) return send_error(call.writer, deletion.error());
  if (call.verb == "delete") {
    return core_.remove(*call.resource, call.path.ns, call.path.name, *deletion, answer(call));
  }
  auto filter = filter_of(call);
  if (!filter) return send_error(call.writer, filter.error());
  core_.remove_all(*call.resource, *filter, *deletion, answer(call));
}

void Server::drain() {
  draining_ = true;
  std::vector<HttpWatch*> all;
  for (const auto& [watch, owned] : watches_) all.push_back(watch);
  for (HttpWatch* watch : all) watch->finish();
}

}  // namespace

std::unique_ptr<ApiServer> ApiServer::create(io::Loop& loop, ApiCore& core,
                                             ApiServerOptions options) {
  return std::make_unique<Server>(loop, core, std::move(options));
}

Result<std::unique_ptr<EmbeddedApi>> EmbeddedApi::open(io::Loop& loop, Options options) {
  std::unique_ptr<EmbeddedApi> api(new EmbeddedApi());
  EM_TRY(api->store_, ApiStore::open(loop, api->registry_, options.store));
  api->core_ = std::make_unique<ApiCore>(loop, *api->store_, api->registry_, options.core);
  api->core_->start();
  api->client_ = make_embedded_client(*api->core_);
  api->server_ = ApiServer::create(loop, *api->core_, std::move(options.server));
  return api;
}

EmbeddedApi::~EmbeddedApi() {
  server_.reset();
  client_.reset();
  core_.reset();
  store_.reset();
}

}  // namespace edgemesh::cloud
