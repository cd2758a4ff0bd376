#include "cloud/api/embedded_client.h"

#include <nlohmann/json.hpp>

#include "cloud/api/list.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using kube::EventType;
using nlohmann::json;

namespace {

// Replays the backlog in the next turn, then passes on what comes.
class EmbeddedWatch final : public kube::Watch {
 public:
  EmbeddedWatch(io::Loop& loop, ApiStore& store, const kube::WatchOptions& options,
                kube::WatchHandler handler)
      : loop_(loop),
        store_(store),
        handler_(std::move(handler)),
        next_(loop, [this] { flush(); }),
        timeout_(loop,
                 [this] {
                   end(Error{ErrorCode::kCancelled, "watch: its time is over"});
                 }),
        bookmark_(loop, [this] { bookmark(); }),
        bookmarks_(options.bookmarks) {
    next_.start(Duration::zero());
    if (options.timeout > Duration::zero()) timeout_.start(options.timeout);
    if (bookmarks_) bookmark_.start_repeating(std::chrono::minutes(1));
  }
  ~EmbeddedWatch() override {
    if (destroyed_ != nullptr) *destroyed_ = true;
  }

  void start(const ResourceInfo* resource, const std::string& ns,
             const kube::WatchOptions& options) {
    if (resource == nullptr) return fail_later(ErrorCode::kNotFound, "this resource is not served");
    auto filter = make_filter(ns, options.label_selector, options.field_selector);
    if (!filter) return fail_later(ErrorCode::kInvalidArgument, filter.error().message);
    uint64_t from = kube::resource_version_number(options.resource_version);
    if (from == 0) {
      auto all = store_.list(*resource, *filter);
      from = all->version;
      for (const ObjectPtr& object : all->items) queue_.emplace_back(EventType::kAdded, object);
    }
    auto made = store_.subscribe(*resource, std::move(*filter), from, &queue_,
                                 [this](EventType type, const ObjectPtr& object) {
                                   queue_.emplace_back(type, object);
                                   if (!next_.active()) next_.start(Duration::zero());
                                 });
    if (!made) return fail_later(made.error().code, made.error().message);
    subscription_ = std::move(*made);
  }

 private:
  void fail_later(ErrorCode code, std::string message) {
    error_ = std::make_unique<Error>(Error{code, std::move(message)});
  }

  void flush() {
    bool destroyed = false;
    destroyed_ = &destroyed;
    std::vector<std::pair<EventType, ObjectPtr>> batch;
    batch.swap(queue_);
    for (const auto& [type, object] : batch) {
      std::string version = std::to_string(object->version);
      handler_.on_event({type, object->ns, object->name, version, object->text});
      if (destroyed) return;
    }
    destroyed_ = nullptr;
    if (error_ != nullptr) end(*error_);
  }

  void bookmark() {
    if (!queue_.empty() || subscription_ == nullptr) return;
    std::string version = std::to_string(store_.version());
    handler_.on_event({EventType::kBookmark, {}, {}, version, {}});
  }

  void end(Error error) {
    subscription_.reset();
    next_.stop();
    timeout_.stop();
    bookmark_.stop();
    auto on_end = std::move(handler_.on_end);
    if (on_end) on_end(error);  // may destroy this
  }

  io::Loop& loop_;
  ApiStore& store_;
  kube::WatchHandler handler_;
  io::Timer next_;
  io::Timer timeout_;
  io::Timer bookmark_;
  bool bookmarks_;
  std::vector<std::pair<EventType, ObjectPtr>> queue_;
  std::unique_ptr<Subscription> subscription_;
  std::unique_ptr<Error> error_;
  bool* destroyed_ = nullptr;
};

class EmbeddedClient final : public kube::Client {
 public:
  explicit EmbeddedClient(ApiCore& core) : core_(core) {}
  ~EmbeddedClient() override { *alive_ = false; }

  void get(const kube::ResourceType& type, std::string_view ns, std::string_view name,
           Callback done) override {
    run(type, std::move(done),
        [this, ns = std::string(ns), name = std::string(name)](const ResourceInfo& info,
                                                               Callback reply) {
          ObjectPtr object = core_.store().get(info, ns, name);
          if (object == nullptr) return reply(fail(ApiError::not_found(info, name).to_error()));
          reply(object->text);
        });
  }

  void list(const kube::ResourceType& type, std::string_view ns, const kube::ListOptions& options,
            Callback done) override {
    run(type, std::move(done),
        [this, ns = std::string(ns), options](const ResourceInfo& info, Callback reply) {
          auto filter = make_filter(ns, options.label_selector, options.field_selector);
          if (!filter) return reply(fail(filter.error()));
          auto found = core_.store().list(info, *filter, options.limit, options.continue_token);
          if (!found) return reply(fail(found.error()));
          reply(list_text(info, *found));
        });
  }

  void create(const kube::ResourceType& type, std::string_view ns, std::string body,
              const kube::WriteOptions& options, Callback done) override {
    run(type, std::move(done),
        [this, ns = std::string(ns), body = std::move(body), options](const ResourceInfo& info,
                                                                      Callback reply) {
          auto object = kube::parse_json(body);
          if (!object) return reply(fail(object.error()));
          core_.create(info, ns, std::move(*object), options, forward(std::move(reply)));
        });
  }

  void update(const kube::ResourceType& type, std::string_view ns, std::string_view name,
              std::string body, const kube::WriteOptions& options, Callback done) override {
    run(type, std::move(done),
        [this, ns = std::string(ns), name = std::string(name), body = std::move(body), options](
            const ResourceInfo& info, Callback reply) {
          auto object = kube::parse_json(body);
          if (!object) return reply(fail(object.error()));
          core_.update(info, ns, name, std::move(*object), options, forward(std::move(reply)));
        });
  }

  void patch(const kube::ResourceType& type, std::string_view ns, std::string_view name,
             kube::PatchKind kind, std::string body, const kube::WriteOptions& options,
             Callback done) override {
    run(type, std::move(done),
        [this, ns = std::string(ns), name = std::string(name), kind, body = std::move(body),
         options](const ResourceInfo& info, Callback reply) {
          auto object = kube::parse_json(body);
          if (!object) return reply(fail(object.error()));
          core_.patch(info, ns, name, kind, *object, options, forward(std::move(reply)));
        });
  }

  void remove(const kube::ResourceType& type, std::string_view ns, std::string_view name,
              const kube::DeleteOptions& options, Callback done) override {
    run(type, std::move(done),
        [this, ns = std::string(ns), name = std::string(name), options](const ResourceInfo& info,
                                                                        Callback reply) {
          ApiCore::Deletion deletion;
          deletion.uid = options.uid;
          deletion.resource_version = options.resource_version;
          deletion.propagation = options.propagation;
          deletion.grace_s = options.grace_s;
          core_.remove(info, ns, name, deletion, forward(std::move(reply)));
        });
  }

  std::unique_ptr<kube::Watch> watch(const kube::ResourceType& type, std::string_view ns,
                                     const kube::WatchOptions& options,
                                     kube::WatchHandler handler) override {
    auto out =
        std::make_unique<EmbeddedWatch>(core_.loop(), core_.store(), options, std::move(handler));
    out->start(core_.registry().find(type), std::string(ns), options);
    return out;
  }

 private:
  // In a later turn, so that no callback runs from within a call.
  template <class Work>
  void run(const kube::ResourceType& type, Callback done, Work work) {
    const ResourceInfo* info = core_.registry().find(type);
    core_.loop().post(
        [alive = alive_, info, type, done = std::move(done), work = std::move(work)]() mutable {
          if (!*alive) return;
          if (info == nullptr) {
            return done(fail(ErrorCode::kNotFound, "{} ({}) are not served", type.plural,
                             type.api_version()));
          }
          work(*info, std::move(done));
        });
  }

  ApiCore::Done forward(Callback reply) {
    return [alive = alive_, reply = std::move(reply)](ApiResult<ApiCore::Written> written) {
      if (!*alive) return;
      if (!written) return reply(fail(written.error().to_error()));
      reply(std::move(written->text));
    };
  }

  ApiCore& core_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

std::unique_ptr<kube::Client> make_embedded_client(ApiCore& core) {
  return std::make_unique<EmbeddedClient>(core);
}

}  // namespace edgemesh::cloud
