#include "cloud/api/watch.h"

#include "cloud/api/table.h"
#include "cloud/api/versions.h"

namespace edgemesh::cloud {

using kube::EventType;

namespace {

std::string_view event_name(EventType type) {
  switch (type) {
    case EventType::kAdded: return "ADDED";
    case EventType::kModified: return "MODIFIED";
    case EventType::kDeleted: return "DELETED";
    case EventType::kBookmark: return "BOOKMARK";
  }
  return "ERROR";
}

}  // namespace

Result<std::unique_ptr<HttpWatch>> HttpWatch::start(io::Loop& loop, ApiStore& store,
                                                    WatchParams params,
                                                    std::shared_ptr<http::ResponseWriter> writer,
                                                    std::function<void(HttpWatch*)> on_end) {
  std::unique_ptr<HttpWatch> watch(
      new HttpWatch(loop, store, std::move(params), std::move(writer), std::move(on_end)));
  EM_TRY_VOID(watch->subscribe());
  std::weak_ptr<bool> alive = watch->alive_;
  HttpWatch* raw = watch.get();
  watch->writer_->start(
      200, {{"Content-Type", "application/json"}, {"Cache-Control", "no-cache, private"}});
  watch->writer_->on_drain([alive, raw] {
    if (alive.expired()) return;
    raw->blocked_ = false;
    raw->flush();
  });
  watch->writer_->on_close([alive, raw] {
    if (!alive.expired()) raw->finish();
  });
  // Not from within the handler of the request: the first events may be many.
  loop.defer([alive, raw] {
    if (!alive.expired()) raw->flush();
  });
  return watch;
}

HttpWatch::HttpWatch(io::Loop& loop, ApiStore& store, WatchParams params,
                     std::shared_ptr<http::ResponseWriter> writer,
                     std::function<void(HttpWatch*)> on_end)
    : loop_(loop),
      store_(store),
      params_(std::move(params)),
      writer_(std::move(writer)),
      on_end_(std::move(on_end)),
      timeout_(loop, [this] { finish(); }),
      bookmark_(loop, [this] { bookmark(); }) {
  if (params_.timeout > Duration::zero()) timeout_.start(params_.timeout);
  if (params_.bookmarks) bookmark_.start_repeating(params_.bookmark_every);
}

HttpWatch::~HttpWatch() = default;

Result<> HttpWatch::subscribe() {
  uint64_t from = params_.from;
  if (from == 0) {
    EM_TRY(auto all, store_.list(*params_.resource, params_.filter));
    from = all.version;
    for (const ObjectPtr& object : all.items) {
      queued_bytes_ += object->text.size();
      queue_.emplace_back(EventType::kAdded, object);
    }
  }
  std::vector<std::pair<EventType, ObjectPtr>> backlog;
  EM_TRY(subscription_, store_.subscribe(*params_.resource, params_.filter, from, &backlog,
                                         [this](EventType type, const ObjectPtr& object) {
                                           enqueue(type, object);
                                         }));
  for (auto& [type, object] : backlog) {
    queued_bytes_ += object->text.size();
    queue_.emplace_back(type, std::move(object));
  }
  initial_open_ = params_.initial_events;
  initial_left_ = queue_.size();
  initial_version_ = std::max(from, store_.version());
  return {};
}

void HttpWatch::enqueue(EventType type, const ObjectPtr& object) {
  queue_.emplace_back(type, object);
  queued_bytes_ += object->text.size();
  // The first part may be larger than the limit: it is there already, shared with the store.
  if (blocked_ && initial_left_ == 0 && queued_bytes_ > params_.max_queue) return finish();
  flush();
}

void HttpWatch::flush() {
  if (ended_) return;
  while (!blocked_ && !ended_) {
    if (initial_open_ && initial_left_ == 0) {
      initial_open_ = false;
      blocked_ = !writer_->write(bookmark_frame(true));
      continue;
    }
    if (queue_.empty()) return;
    auto [type, object] = std::move(queue_.front());
    queue_.pop_front();
    queued_bytes_ -= object->text.size();
    if (initial_left_ > 0) --initial_left_;
    blocked_ = !writer_->write(frame(type, object));
  }
}

void HttpWatch::bookmark() {
  if (ended_ || blocked_ || !queue_.empty() || initial_open_) return;
  blocked_ = !writer_->write(bookmark_frame(false));
}

std::string HttpWatch::frame(EventType type, const ObjectPtr& object) const {
  std::string out = R"({"type":")";
  out += event_name(type);
  out += R"(","object":)";
  if (params_.table) {
    TableParams table;
    table.version = object->version;
    table.now = loop_.clock().wall_now();
    out += table_text(*params_.resource, {to_served(*params_.resource, object)}, table);
  } else if (params_.resource->stored_as != nullptr) {
    out += to_served(*params_.resource, object)->text;
  } else {
    out += object->text;
  }
  out += "}\n";
  return out;
}

std::string HttpWatch::bookmark_frame(bool initial_end) const {
  const kube::ResourceType& type = params_.resource->type;
  uint64_t version = initial_end ? initial_version_ : store_.version();
  std::string meta = fmt::format(R"({{"resourceVersion":"{}","creationTimestamp":null)", version);
  if (initial_end) meta += R"(,"annotations":{"k8s.io/initial-events-end":"true"})";
  meta += "}";
  if (params_.table) {
    return fmt::format(
        R"({{"type":"BOOKMARK","object":{{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":)"
        R"({},"columnDefinitions":[],"rows":[]}}}})"
        "\n",
        meta);
  }
  return fmt::format(
      R"({{"type":"BOOKMARK","object":{{"kind":"{}","apiVersion":"{}","metadata":{}}}}})"
      "\n",
      type.kind, type.api_version(), meta);
}

void HttpWatch::finish() {
  if (ended_) return;
  ended_ = true;
  subscription_.reset();
  timeout_.stop();
  bookmark_.stop();
  writer_->end();
  auto on_end = std::move(on_end_);
  if (on_end) on_end(this);
}

}  // namespace edgemesh::cloud
