#include "kube/informer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::kube {

using nlohmann::json;

struct Informer::Impl : std::enable_shared_from_this<Informer::Impl> {
  Impl(io::Loop& l, Client& c, Options o, Handlers h)
      : loop(l),
        client(c),
        options(std::move(o)),
        handlers(std::move(h)),
        retry(l, [this] { next(); }),
        random(std::random_device()()) {}

  void next();
  void list_page();
  void on_page(Result<std::string> page);
  void finish_list(const json& list);
  void start_watch();
  void on_event(const WatchEvent& event);
  void on_watch_end(const Error& error);
  void upsert(std::string ns, std::string name, std::string version, std::string text);
  void drop(std::string_view ns, std::string_view name, std::string_view version);
  void back_off(const Error& error);
  void later(Duration wait) { retry.start(wait); }

  io::Loop& loop;
  Client& client;
  const Options options;
  Handlers handlers;
  io::Timer retry;
  std::minstd_rand random;
  bool alive = true;
  bool synced = false;
  bool must_list = true;
  int watch_failures = 0;  // in a row
  Duration delay{};
  std::string version;
  std::string continue_token;
  std::set<std::string> seen;  // keys of the list that runs
  TimePoint watch_started{};
  bool watch_had_events = false;
  std::map<std::string, Object, std::less<>> objects;
  std::unique_ptr<Watch> watch;
};

void Informer::Impl::next() {
  if (must_list) {
    seen.clear();
    continue_token.clear();
    list_page();
  } else {
    start_watch();
  }
}

void Informer::Impl::list_page() {
  ListOptions list;
  list.label_selector = options.label_selector;
  list.field_selector = options.field_selector;
  list.limit = options.page_size;
  list.continue_token = continue_token;
  client.list(options.type, options.ns, list, [weak = weak_from_this()](Result<std::string> page) {
    if (auto self = weak.lock(); self && self->alive) self->on_page(std::move(page));
  });
}

void Informer::Impl::on_page(Result<std::string> page) {
  if (!page) return back_off(page.error());
  auto list = parse_json(*page);
  const json* items = list ? kube::find(*list, "items") : nullptr;
  if (!list || (items != nullptr && !items->is_array())) {
    return back_off(Error{ErrorCode::kProtocol,
                          fmt::format("list of {}: not a Kubernetes list", options.type.plural)});
  }
  page->clear();
  for (size_t i = 0; items != nullptr && i < items->size(); ++i) {
    json item = (*items)[i];
    if (!item.is_object()) continue;
    // Servers leave these out of the items of typed lists.
    item["kind"] = options.type.kind;
    item["apiVersion"] = options.type.api_version();
    std::string ns = text_at(item, "metadata", "namespace");
    std::string name = text_at(item, "metadata", "name");
    seen.insert(object_key(ns, name));
    upsert(std::move(ns), std::move(name), text_at(item, "metadata", "resourceVersion"),
           to_text(item));
    if (!alive) return;
  }
  continue_token = text_at(*list, "metadata", "continue");
  if (!continue_token.empty()) return list_page();
  finish_list(*list);
}

void Informer::Impl::finish_list(const json& list) {
  std::vector<std::string> gone;
  for (const auto& [key, object] : objects) {
    if (!seen.contains(key)) gone.push_back(key);
  }
  seen.clear();
  version = text_at(list, "metadata", "resourceVersion");
  for (const std::string& key : gone) {
    auto it = objects.find(key);
    if (it == objects.end()) continue;
    std::string ns = it->second.ns;
    std::string name = it->second.name;
    drop(ns, name, version);
    if (!alive) return;
  }
  must_list = false;
  watch_failures = 0;
  delay = {};
  synced = true;
  if (handlers.on_synced) handlers.on_synced();
  if (alive) start_watch();
}

void Informer::Impl::start_watch() {
  WatchOptions watch_options;
  watch_options.resource_version = version;
  watch_options.label_selector = options.label_selector;
  watch_options.field_selector = options.field_selector;
  watch_options.timeout = options.watch_timeout;
  WatchHandler handler;
  handler.on_event = [weak = weak_from_this()](const WatchEvent& event) {
    if (auto self = weak.lock(); self && self->alive) self->on_event(event);
  };
  handler.on_end = [weak = weak_from_this()](const Error& error) {
    if (auto self = weak.lock(); self && self->alive) self->on_watch_end(error);
  };
  watch_started = loop.now();
  watch_had_events = false;
  watch = client.watch(options.type, options.ns, watch_options, std::move(handler));
}

void Informer::Impl::on_event(const WatchEvent& event) {
  watch_had_events = true;
  watch_failures = 0;
  delay = {};
  std::string new_version(event.resource_version);
  switch (event.type) {
    case EventType::kAdded:
    case EventType::kModified:
      upsert(std::string(event.ns), std::string(event.name), new_version,
             std::string(event.object));
      break;
    case EventType::kDeleted: drop(event.ns, event.name, new_version); break;
    case EventType::kBookmark: break;
  }
  if (alive && !new_version.empty()) version = std::move(new_version);
}

void Informer::Impl::on_watch_end(const Error& error) {
  watch.reset();
  if (error.code == ErrorCode::kGone) {
    must_list = true;
    if (watch_had_events || loop.now() - watch_started > std::chrono::seconds(1)) {
      return later(Duration::zero());
    }
    // Gone at once, again and again: do not turn in a tight circle.
    delay = std::max(delay, options.backoff_min);
    Duration wait = delay;
    delay = std::min(delay * 2, options.backoff_max);
    return later(wait);
  }
  bool orderly = error.code == ErrorCode::kCancelled;
  // A server that was restored or replaced may not know this version and say so by any error, again and
  // again: a new list is right whatever has happened.
  constexpr int kFailuresToList = 3;
  watch_failures = orderly ? 0 : watch_failures + 1;
  if (watch_failures >= kFailuresToList) must_list = true;
  if (orderly && (watch_had_events || loop.now() - watch_started > std::chrono::seconds(1))) {
    return later(Duration::zero());
  }
  back_off(error);
}

void Informer::Impl::upsert(std::string ns, std::string name, std::string new_version,
                            std::string text) {
  std::string key = object_key(ns, name);
  auto [it, fresh] = objects.try_emplace(key);
  if (!fresh && !new_version.empty() && it->second.resource_version == new_version) return;
  Object object{std::move(ns), std::move(name), std::move(new_version), std::move(text)};
  if (options.keep_json) {
    it->second = object;
  } else {
    it->second = Object{object.ns, object.name, object.resource_version, {}};
  }
  if (handlers.on_upsert) handlers.on_upsert(object);
}

void Informer::Impl::drop(std::string_view ns, std::string_view name, std::string_view version_of) {
  auto it = objects.find(object_key(ns, name));
  if (it == objects.end()) return;
  Object object = std::move(it->second);
  objects.erase(it);
  object.resource_version = version_of;
  if (handlers.on_delete) handlers.on_delete(object);
}

void Informer::Impl::back_off(const Error& error) {
  if (error.code == ErrorCode::kGone) must_list = true;
  delay = std::clamp(delay * 2, options.backoff_min, options.backoff_max);
  std::uniform_real_distribution<double> jitter(0.5, 1.0);
  auto wait = Duration(static_cast<int64_t>(static_cast<double>(delay.count()) * jitter(random)));
  EM_LOG(kDebug, "informer", "{}: {}; again in {} ms", options.type.plural, error.message,
         std::chrono::duration_cast<std::chrono::milliseconds>(wait).count());
  later(wait);
  if (handlers.on_error) handlers.on_error(error);
}

Informer::Informer(io::Loop& loop, Client& client, Options options, Handlers handlers)
    : impl_(std::make_shared<Impl>(loop, client, std::move(options), std::move(handlers))) {}

Informer::~Informer() {
  impl_->alive = false;
  impl_->watch.reset();
  impl_->retry.stop();
}

void Informer::start() {
  impl_->later(Duration::zero());
}
bool Informer::synced() const {
  return impl_->synced;
}
const std::string& Informer::resource_version() const {
  return impl_->version;
}
const std::map<std::string, Informer::Object, std::less<>>& Informer::objects() const {
  return impl_->objects;
}
const Informer::Object* Informer::find(std::string_view ns, std::string_view name) const {
  auto it = impl_->objects.find(object_key(ns, name));
  return it == impl_->objects.end() ? nullptr : &it->second;
}

}  // namespace edgemesh::kube
