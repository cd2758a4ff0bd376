#include "cloud/kube_http_client.h"

#include <nlohmann/json.hpp>

#include "cloud/api/error.h"
#include "cloud/files.h"
#include "core/base/log.h"
#include "core/http/client.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using kube::EventType;
using nlohmann::json;

namespace {

constexpr size_t kMaxFrame = 16 << 20;  // one watch event
constexpr auto kWatchGrace = std::chrono::seconds(30);
constexpr auto kReadTokenEvery = std::chrono::minutes(1);

void add_query(std::string* target, std::string_view name, std::string_view value) {
  if (value.empty()) return;
  *target += target->find('?') == std::string::npos ? '?' : '&';
  *target += name;
  *target += '=';
  *target += http::percent_encode(value);
}

const char* patch_type(kube::PatchKind kind) {
  switch (kind) {
    case kube::PatchKind::kMerge: return "application/merge-patch+json";
    case kube::PatchKind::kStrategic: return "application/strategic-merge-patch+json";
    case kube::PatchKind::kJson: return "application/json-patch+json";
    case kube::PatchKind::kApply: return "application/apply-patch+yaml";
  }
  return "application/json";
}

Error watch_error(const json& status) {
  const json* code = kube::find(status, "code");
  int number = code != nullptr && code->is_number_integer() ? code->get<int>() : 500;
  return error_from_status(number, kube::to_text(status));
}

// Servers send a bookmark about once a minute: when two of them are missing, the connection is dead
// though nobody said so.
constexpr Duration kMaxSilence = std::chrono::seconds(150);

// A stream of JSON objects, one a line.
class HttpWatch final : public kube::Watch {
 public:
  HttpWatch(io::Loop& loop, Duration limit, kube::WatchHandler handler)
      : handler_(std::move(handler)), limit_(loop, [this] {
          end(Error{ErrorCode::kTimeout, "watch: the server did not end it in time"});
        }),
        silence_(loop, [this] { end(Error{ErrorCode::kTimeout, "watch: the server fell silent"}); }) {
    if (limit > Duration::zero()) limit_.start(limit);
    silence_.start(kMaxSilence);
  }
  ~HttpWatch() override {
    if (destroyed_ != nullptr) *destroyed_ = true;
  }

  void start(http::Client& client, http::ClientRequest request) {
    http::StreamHandler handler;
    handler.on_head = [this](const http::Response& head) { status_ = head.status; };
    handler.on_data = [this](std::string_view data) { on_data(data); };
    handler.on_end = [this](Result<> result) {
      if (!result) return end(result.error());
      if (status_ != 200) return end(error_from_status(status_, buffer_));
      end(Error{ErrorCode::kCancelled, "the server ended the watch"});
    };
    call_ = client.stream(std::move(request), std::move(handler));
  }

 private:
  void on_data(std::string_view data) {
    silence_.start(kMaxSilence);
    buffer_.append(data);
    if (status_ != 200) {
      constexpr size_t kMaxError = 64 << 10;
      if (buffer_.size() > kMaxError) buffer_.resize(kMaxError);
      return;
    }
    bool destroyed = false;
    destroyed_ = &destroyed;
    size_t start = 0;
    while (!ended_) {
      size_t newline = buffer_.find('\n', std::max(start, searched_));
      if (newline == std::string::npos) break;
      on_line(std::string_view(buffer_).substr(start, newline - start));
      if (destroyed) return;
      start = newline + 1;
      searched_ = start;
    }
    destroyed_ = nullptr;
    if (ended_) return;
    buffer_.erase(0, start);
    searched_ = buffer_.size();
    if (buffer_.size() > kMaxFrame) {
      end(Error{ErrorCode::kResourceExhausted,
                fmt::format("a watch event has more than {} bytes", kMaxFrame)});
    }
  }

  void on_line(std::string_view line) {
    if (line.empty()) return;
    auto frame = kube::parse_json(line);
    if (!frame) return end(frame.error().with_context("watch"));
    std::string type = kube::text_at(*frame, "type");
    const json* object = kube::find(*frame, "object");
    if (object == nullptr || !object->is_object()) {
      return end(Error{ErrorCode::kProtocol, "watch: an event without an object"});
    }
    if (type == "ERROR") return end(watch_error(*object));
    std::string ns = kube::text_at(*object, "metadata", "namespace");
    std::string name = kube::text_at(*object, "metadata", "name");
    std::string version = kube::text_at(*object, "metadata", "resourceVersion");
    if (type == "BOOKMARK") {
      return handler_.on_event({EventType::kBookmark, {}, {}, version, {}});
    }
    EventType event = EventType::kAdded;
    if (type == "MODIFIED") event = EventType::kModified;
    if (type == "DELETED") event = EventType::kDeleted;
    if (event == EventType::kAdded && type != "ADDED") return;  // an event of the future
    std::string text = kube::to_text(*object);
    handler_.on_event({event, ns, name, version, text});
  }

  void end(Error error) {
    if (ended_) return;
    ended_ = true;
    limit_.stop();
    auto on_end = std::move(handler_.on_end);
    if (on_end) on_end(error);  // may destroy this
  }

  kube::WatchHandler handler_;
  io::Timer limit_;    // a connection that died silently never ends by itself
  io::Timer silence_;
  std::unique_ptr<http::Call> call_;
  int status_ = 0;
  std::string buffer_;
  size_t searched_ = 0;  // no newline before it
  bool ended_ = false;
  bool* destroyed_ = nullptr;
};

class HttpClient final : public kube::Client {
 public:
  HttpClient(io::Loop& loop, KubeConfig config, http::ClientOptions options)
      : loop_(loop), config_(std::move(config)), http_(loop, std::move(options)) {}

  void get(const kube::ResourceType& type, std::string_view ns, std::string_view name,
           Callback done) override {
    send("GET", path(type, ns, name), {}, {}, std::move(done));
  }

  void list(const kube::ResourceType& type, std::string_view ns, const kube::ListOptions& options,
            Callback done) override {
    std::string target = path(type, ns, {});
    add_query(&target, "labelSelector", options.label_selector);
    add_query(&target, "fieldSelector", options.field_selector);
    if (options.limit > 0) add_query(&target, "limit", std::to_string(options.limit));
    add_query(&target, "continue", options.continue_token);
    send("GET", std::move(target), {}, {}, std::move(done));
  }

  void create(const kube::ResourceType& type, std::string_view ns, std::string body,
              const kube::WriteOptions& options, Callback done) override {
    std::string name;  // below which object
    if (!options.subresource.empty()) {
      const auto object = kube::parse_json(body);
      if (object) name = kube::text_at(*object, "metadata", "name");
    }
    send("POST", write_target(path(type, ns, name, options.subresource), options),
         "application/json", std::move(body), std::move(done));
  }

  void update(const kube::ResourceType& type, std::string_view ns, std::string_view name,
              std::string body, const kube::WriteOptions& options, Callback done) override {
    send("PUT", write_target(path(type, ns, name, options.subresource), options),
         "application/json", std::move(body), std::move(done));
  }

  void patch(const kube::ResourceType& type, std::string_view ns, std::string_view name,
             kube::PatchKind kind, std::string body, const kube::WriteOptions& options,
             Callback done) override {
    std::string target = write_target(path(type, ns, name, options.subresource), options);
    if (kind == kube::PatchKind::kApply && options.force) add_query(&target, "force", "true");
    send("PATCH", std::move(target), patch_type(kind), std::move(body), std::move(done));
  }

  void remove(const kube::ResourceType& type, std::string_view ns, std::string_view name,
              const kube::DeleteOptions& options, Callback done) override {
    json body = {{"kind", "DeleteOptions"}, {"apiVersion", "v1"}};
    if (!options.propagation.empty()) body["propagationPolicy"] = options.propagation;
    if (options.grace_s >= 0) body["gracePeriodSeconds"] = options.grace_s;
    if (!options.uid.empty()) body["preconditions"]["uid"] = options.uid;
    if (!options.resource_version.empty()) {
      body["preconditions"]["resourceVersion"] = options.resource_version;
    }
    send("DELETE", path(type, ns, name), "application/json", kube::to_text(body), std::move(done));
  }

  std::unique_ptr<kube::Watch> watch(const kube::ResourceType& type, std::string_view ns,
                                     const kube::WatchOptions& options,
                                     kube::WatchHandler handler) override {
    std::string target = path(type, ns, {});
    add_query(&target, "watch", "true");
    add_query(&target, "resourceVersion", options.resource_version);
    add_query(&target, "labelSelector", options.label_selector);
    add_query(&target, "fieldSelector", options.field_selector);
    if (options.bookmarks) add_query(&target, "allowWatchBookmarks", "true");
    auto seconds = std::chrono::duration_cast<std::chrono::seconds>(options.timeout).count();
    if (options.timeout > Duration::zero()) {
      add_query(&target, "timeoutSeconds", std::to_string(std::max<int64_t>(1, seconds)));
    }
    Duration limit =
        options.timeout > Duration::zero() ? options.timeout + kWatchGrace : Duration();
    auto out = std::make_unique<HttpWatch>(loop_, limit, std::move(handler));
    out->start(http_, request("GET", std::move(target)));
    return out;
  }

  void call_as_node(NodeCall call, UniqueFunction<void(Result<NodeCallAnswer>)> done) {
    auto out = request(std::move(call.method), std::move(call.target));
    out.headers.set("Impersonate-User", "system:node:" + call.node);
    out.headers.add("Impersonate-Group", "system:nodes");
    out.headers.add("Impersonate-Group", "system:authenticated");
    if (!call.content_type.empty()) out.headers.set("Content-Type", call.content_type);
    out.body = std::move(call.body);
    http_.request(std::move(out), [done = std::move(done)](Result<http::Response> response) {
      if (!response) return done(fail(response.error()));
      done(NodeCallAnswer{response->status, std::move(response->body)});
    });
  }

 private:
  static std::string path(const kube::ResourceType& type, std::string_view ns,
                          std::string_view name, std::string_view subresource = {}) {
    // Names are DNS names; what else a caller may pass must not change the path.
    return type.path(http::percent_encode(ns), http::percent_encode(name), subresource);
  }
  static std::string write_target(std::string target, const kube::WriteOptions& options) {
    add_query(&target, "fieldManager", options.field_manager);
    if (options.dry_run) add_query(&target, "dryRun", "All");
    return target;
  }

  http::ClientRequest request(std::string method, std::string target) {
    http::ClientRequest out;
    out.method = std::move(method);
    out.url = config_.server + target;
    out.server_name = config_.tls_server_name;
    out.headers.set("Accept", "application/json");
    out.headers.set("User-Agent", "edgemesh");
    refresh_token();
    if (!config_.token.empty()) out.headers.set("Authorization", "Bearer " + config_.token);
    return out;
  }

  // Tokens of service accounts are replaced on disk while we run.
  void refresh_token() {
    if (config_.token_file.empty() || loop_.now() < token_good_until_) return;
    token_good_until_ = loop_.now() + kReadTokenEvery;
    auto text = read_file(config_.token_file);
    if (!text) {
      EM_LOG(kWarn, "kube", "{}: the token read before stays in use", text.error().message);
      return;
    }
    while (!text->empty() && (text->back() == '\n' || text->back() == '\r')) text->pop_back();
    config_.token = std::move(*text);
  }

  void send(std::string method, std::string target, std::string_view content_type, std::string body,
            Callback done) {
    auto out = request(std::move(method), std::move(target));
    if (!content_type.empty()) out.headers.set("Content-Type", content_type);
    out.body = std::move(body);
    http_.request(std::move(out), [done = std::move(done)](Result<http::Response> response) {
      if (!response) return done(fail(response.error()));
      if (response->status >= 200 && response->status < 300) {
        return done(std::move(response->body));
      }
      done(fail(error_from_status(response->status, response->body)));
    });
  }

  io::Loop& loop_;
  KubeConfig config_;
  TimePoint token_good_until_{};
  http::Client http_;
};

}  // namespace

Result<std::unique_ptr<kube::Client>> make_http_client(io::Loop& loop, const KubeConfig& config) {
  tls::ContextOptions tls_options;
  tls_options.cert_pem = config.cert_pem;
  tls_options.key_pem = config.key_pem;
  tls_options.ca_pem = config.ca_pem;
  tls_options.verify =
      config.insecure_skip_tls_verify ? tls::ContextOptions::kNone : tls::ContextOptions::kRequired;
  tls_options.alpn = {"http/1.1"};
  http::ClientOptions options;
  EM_TRY(options.tls, tls::Context::client(tls_options));
  return std::unique_ptr<kube::Client>(
      std::make_unique<HttpClient>(loop, config, std::move(options)));
}

CallAsNode calls_as_node(kube::Client& http_client) {
  return [&client = static_cast<HttpClient&>(http_client)](NodeCall call, auto done) {
    client.call_as_node(std::move(call), std::move(done));
  };
}

}  // namespace edgemesh::cloud
