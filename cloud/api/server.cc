#include "cloud/api/server.h"

#include <nlohmann/json.hpp>
#include <random>
#include <unordered_map>

#include "cloud/api/discovery.h"
#include "cloud/api/gate.h"
#include "cloud/api/list.h"
#include "cloud/api/list_options.h"
#include "cloud/api/node_authorizer.h"
#include "cloud/api/rbac.h"
#include "cloud/api/request.h"
#include "cloud/api/reviews.h"
#include "cloud/api/scale.h"
#include "cloud/api/schema.h"
#include "cloud/api/table.h"
#include "cloud/api/versions.h"
#include "cloud/api/watch.h"
#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

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

// For the header Warning; empty for nothing to say.
std::string warning_text(std::string_view text) {
  if (text.empty()) return {};
  std::string quoted;
  for (char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return fmt::format("299 - \"{}\"", quoted);
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return text;
}

// A request that was understood, on its way through the handlers.
struct Call {
  http::Request request;
  Writer writer;
  ResourcePath path;
  std::string verb;
  std::shared_ptr<const ApiUser> user;
  const ResourceInfo* resource = nullptr;
  std::string warning;  // for fieldValidation=Warn
  std::shared_ptr<AuditRecord> record = nullptr;  // null: there is no audit log
};

ApiResult<json> body_of(const Call& call, const http::Request& request) {
  auto body = parse_body(request);
  if (body && call.record != nullptr) call.record->set_object(*body, request.body.size());
  return body;
}

class Server final : public ApiServer {
 public:
  Server(io::Loop& loop, ApiCore& core, ApiServerOptions options)
      : loop_(loop),
        core_(core),
        options_(std::move(options)),
        gate_(options_.authenticator, options_.authorizer),
        random_(std::random_device()()) {}

  void handle(http::Request request, Writer writer) override;
  void drain() override;
  void end_refused() override;
  size_t watches() const override { return watches_.size(); }

 private:
  ApiResult<void> check(const Caller& caller, const ApiAttributes& what,
                        AuditRecord* record) const;
  bool handle_health(const http::Request& request, const Writer& writer);
  void handle_other(const http::Request& request, const Writer& writer);
  void handle_resource(Call call);
  bool check_subresource(const Call& call);
  void get(const Call& call);
  void list(const Call& call);
  void watch(const Call& call);
  void create(Call call);
  void review(Call call);
  void update(Call call);
  void patch(const Call& call);
  void remove(const Call& call);
  ApiResult<WatchParams> watch_params(const Call& call);
  // False: refused and answered.
  bool check_fields(Call* call, const json& body);
  ApiCore::Done answer(const Call& call);

  io::Loop& loop_;
  ApiCore& core_;
  ApiServerOptions options_;
  Gate gate_;
  std::minstd_rand random_;
  bool draining_ = false;
  struct OpenWatch {
    std::unique_ptr<HttpWatch> watch;
    std::shared_ptr<const tls::PeerIdentity> peer;  // null: it came with a token
  };
  std::unordered_map<HttpWatch*, OpenWatch> watches_;
};

void Server::handle(http::Request request, Writer writer) {
  if (handle_health(request, writer)) return;
  std::shared_ptr<AuditRecord> record;
  if (options_.audit != nullptr)
    writer = record = options_.audit->begin(request, std::move(writer));
  auto path = parse_resource_path(request.path());
  std::string verb = path ? verb_of(request, *path) : lower(request.method);
  if (record != nullptr && path) record->set_resource(*path, verb);
  if (record != nullptr && !path) record->set_verb(verb);
  auto caller = gate_.identify(request);
  if (!caller) return send_error(writer, caller.error());
  if (record != nullptr) record->set_caller(*caller);
  if (!path) {
    auto good = check(*caller, attributes_of(request, nullptr, verb), record.get());
    return good ? handle_other(request, writer) : send_error(writer, good.error());
  }
  if (verb.empty()) {
    return send_error(writer, ApiError::simple(405, "MethodNotAllowed",
                                               "the server does not allow this method on the "
                                               "requested resource"));
  }
  auto good = check(*caller, attributes_of(request, &*path, verb), record.get());
  if (!good) return send_error(writer, good.error());
  Call call{std::move(request),
            std::move(writer),
            std::move(*path),
            std::move(verb),
            std::make_shared<const ApiUser>(std::move(caller->user)),
            nullptr,
            {},
            std::move(record)};
  call.resource = core_.registry().find(call.path.group, call.path.version, call.path.resource);
  if (call.resource == nullptr) {
    return send_error(call.writer, ApiError::simple(404, "NotFound",
                                                    "the server could not find the requested "
                                                    "resource"));
  }
  handle_resource(std::move(call));
}

ApiResult<void> Server::check(const Caller& caller, const ApiAttributes& what,
                              AuditRecord* record) const {
  if (record == nullptr) return gate_.check(caller.user, what);
  std::string reason;
  auto good = gate_.check(caller.user, what, &reason);
  record->set_decision(good.has_value(), reason);
  return good;
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

void Server::handle_other(const http::Request& request, const Writer& writer) {
  if (request.method != "GET") {
    return send_error(writer, ApiError::simple(405, "MethodNotAllowed", "want GET"));
  }
  if (auto it = options_.documents.find(request.path()); it != options_.documents.end()) {
    return send(writer, 200, it->second.body, it->second.content_type.c_str());
  }
  auto answer = discovery(core_.registry(), request.path(), request.headers.get_or("Accept", ""));
  if (answer) return send(writer, 200, std::move(answer->body), answer->content_type.c_str());
  send(writer, 404, "404 page not found\n", "text/plain; charset=utf-8");
}

bool Server::check_subresource(const Call& call) {
  const std::string& sub = call.path.subresource;
  if (call.resource->review) return sub.empty() && call.verb == "create";
  if (sub.empty()) return true;
  if (sub == "status" && call.resource->has_status) {
    return call.verb == "get" || call.verb == "update" || call.verb == "patch";
  }
  const Subresource* known = call.resource->find_subresource(sub);
  if (known == nullptr) return false;
  const auto& verbs = known->verbs;
  if (std::find(verbs.begin(), verbs.end(), call.verb) == verbs.end()) return false;
  // What goes to a node, or needs keys, is served by others; here it would be taken for the object.
  return sub == "scale" || sub == "binding" || sub == "eviction" || sub == "ephemeralcontainers" ||
         sub == "finalize" || sub == "approval" || sub == "token";
}

void Server::handle_resource(Call call) {
  // A path without a namespace reaches all of them, for reading only.
  bool reads_all = call.verb == "list" || call.verb == "watch";
  bool misplaced =
      call.resource->type.namespaced ? call.path.ns.empty() && !reads_all : !call.path.ns.empty();
  bool streams = options_.on_subresource && !call.path.subresource.empty() && !misplaced;
  if (streams && options_.on_subresource(call.request, call.writer, call.path)) return;
  const bool computed = call.resource->computed;
  if (computed && !misplaced && options_.on_computed && call.path.subresource.empty() &&
      (call.verb == "get" || call.verb == "list")) {
    return options_.on_computed(call.request, call.writer, call.path);
  }
  if (misplaced || computed || !check_subresource(call)) {
    return send_error(call.writer, ApiError::simple(404, "NotFound",
                                                    "the server could not find the requested "
                                                    "resource"));
  }
  const auto user = call.user;
  ApiCore::Acting acting(core_, *user);
  if (call.resource->review) return review(std::move(call));
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
  if (call.path.subresource == "scale") {
    auto parsed = kube::parse_json(object->text);
    return send(call.writer, 200,
                kube::to_text(scale_of(*call.resource, parsed ? *parsed : json())));
  }
  object = to_served(*call.resource, object);
  if (!wants_table(call.request.headers.get_or("Accept", ""))) {
    return send(call.writer, 200, object->text);
  }
  TableParams params;
  params.version = object->version;
  params.include = parse_include_object(call.request.query("includeObject").value_or(""));
  params.now = loop_.clock().wall_now();
  send(call.writer, 200, table_text(*call.resource, {object}, params));
}

void Server::list(const Call& call) {
  const ApiStore& store = core_.store();
  auto query = list_query(call.request, call.path, *call.resource, store.version());
  if (!query) return send_error(call.writer, query.error());
  auto found = store.list(*call.resource, query->filter, query->limit, query->token, query->at);
  if (!found) {
    return send_error(call.writer, ApiError::from_error(found.error(), *call.resource, ""));
  }
  for (ObjectPtr& object : found->items) object = to_served(*call.resource, object);
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
  auto query = watch_query(call.request, call.path, *call.resource, core_.store().version());
  if (!query) return refuse(query.error());
  WatchParams params;
  params.resource = call.resource;
  params.filter = std::move(query->filter);
  params.from = query->from;
  params.initial_events = query->initial_events;
  params.bookmarks = query->bookmarks;
  params.table = wants_table(call.request.headers.get_or("Accept", ""));
  std::uniform_real_distribution<double> spread(1.0, 2.0);
  auto own = static_cast<double>(options_.watch_timeout.count()) * spread(random_);
  params.timeout = query->timeout_s > 0 ? Duration(std::chrono::seconds(query->timeout_s))
                                        : Duration(static_cast<int64_t>(own));
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
                                    loop_.defer([owned = std::move(it->second.watch)] {});
                                    watches_.erase(it);
                                  });
  if (!started) {
    return send_error(call.writer, ApiError::from_error(started.error(), *call.resource, ""));
  }
  HttpWatch* raw = started->get();
  watches_[raw] = {std::move(*started), call.request.peer};
}

bool Server::check_fields(Call* call, const json& body) {
  std::string mode = call->request.query("fieldValidation").value_or("Warn");
  call->warning = warning_text(call->resource->warning);
  if (mode == "Ignore" || (!call->path.subresource.empty() && call->path.subresource != "status"))
    return true;
  std::string list;
  for (const std::string& field : unknown_fields(*call->resource, body)) {
    list += fmt::format("{}unknown field \"{}\"", list.empty() ? "" : ", ", field);
  }
  for (const std::string& field : duplicate_fields(call->request)) {
    list += fmt::format("{}duplicate field \"{}\"", list.empty() ? "" : ", ", field);
  }
  if (list.empty()) return true;
  if (mode != "Strict") {
    call->warning = warning_text(list);
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
  return [writer = call.writer, warning = call.warning,
          served = call.resource](ApiResult<ApiCore::Written> written) {
    if (!written) return send_error(writer, written.error());
    send(writer, written->created ? 201 : 200, to_served(*served, std::move(written->text)),
         "application/json", warning);
  };
}

void Server::create(Call call) {
  auto body = body_of(call, call.request);
  if (!body) return send_error(call.writer, body.error());
  if (!check_fields(&call, *body)) return;
  const ResourceInfo& stored = call.resource->stored();
  auto options = write_options(call.request, call.path);
  if (!call.path.subresource.empty()) {
    return core_.create_below(stored, call.path.ns, call.path.name, *body, options, answer(call));
  }
  to_stored(*call.resource, &*body);
  core_.create(stored, call.path.ns, std::move(*body), options, answer(call));
}

void Server::review(Call call) {
  auto body = body_of(call, call.request);
  if (!body) return send_error(call.writer, body.error());
  if (!check_fields(&call, *body)) return;
  auto answer = answer_review(gate_, *call.resource, call.path.ns, *call.user, std::move(*body),
                              loop_.clock().wall_now());
  if (!answer) return send_error(call.writer, answer.error());
  send(call.writer, 201, kube::to_text(*answer), "application/json", call.warning);
}

void Server::update(Call call) {
  auto body = body_of(call, call.request);
  if (!body) return send_error(call.writer, body.error());
  if (!check_fields(&call, *body)) return;
  to_stored(*call.resource, &*body);
  core_.update(call.resource->stored(), call.path.ns, call.path.name, std::move(*body),
               write_options(call.request, call.path), answer(call));
}

void Server::patch(const Call& call) {
  auto kind = patch_kind(call.request);
  if (!kind) return send_error(call.writer, kind.error());
  http::Request request = call.request;
  // The three JSON forms are JSON; an applied object may be YAML.
  if (*kind != kube::PatchKind::kApply) request.headers.set("Content-Type", "application/json");
  auto body = body_of(call, request);
  if (!body) return send_error(call.writer, body.error());
  Call checked = call;
  if (*kind != kube::PatchKind::kJson && !check_fields(&checked, *body)) return;
  to_stored(*call.resource, &*body);
  core_.patch(call.resource->stored(), call.path.ns, call.path.name, *kind, *body,
              write_options(call.request, call.path), answer(checked));
}

void Server::remove(const Call& call) {
  auto deletion = deletion_options(call.request);
  if (!deletion) return send_error(call.writer, deletion.error());
  if (call.record != nullptr) static_cast<void>(body_of(call, call.request));
  const ResourceInfo& stored = call.resource->stored();
  if (call.verb == "delete") {
    return core_.remove(stored, call.path.ns, call.path.name, *deletion, answer(call));
  }
  auto filter = filter_of(call.request, call.path, *call.resource);
  if (!filter) return send_error(call.writer, filter.error());
  core_.remove_all(stored, *filter, *deletion, answer(call));
}

void Server::drain() {
  draining_ = true;
  std::vector<HttpWatch*> all;
  for (const auto& [watch, owned] : watches_) all.push_back(watch);
  for (HttpWatch* watch : all) watch->finish();
}

void Server::end_refused() {
  std::vector<HttpWatch*> gone;
  for (const auto& [watch, open] : watches_) {
    if (open.peer == nullptr) continue;
    http::Request request;
    request.peer = open.peer;
    if (!gate_.authenticator().authenticate(request)) gone.push_back(watch);
  }
  for (HttpWatch* watch : gone) watch->finish();
}

}  // namespace

std::unique_ptr<ApiServer> ApiServer::create(io::Loop& loop, ApiCore& core,
                                             ApiServerOptions options) {
  if (options.authenticator == nullptr) options.authenticator = make_authenticator();
  if (options.authorizer == nullptr) {
    options.authorizer = make_authorizer({std::make_shared<NodeAuthorizer>(nullptr)});
  }
  return std::make_unique<Server>(loop, core, std::move(options));
}

}  // namespace edgemesh::cloud
