#include "cloud/edge/sync_book.h"

#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {
namespace {

using Json = nlohmann::json;

const kube::ResourceType& sync_type(const ObjectRef& ref) {
  return ref.ns.empty() ? kClusterObjectSyncs : kObjectSyncs;
}

std::string sync_name(const std::string& node, const std::string& uid) {
  return node + "." + uid;
}

// A uid has no dots, a node's name may have some.
bool split(const std::string& name, std::string* node, std::string* uid) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos || dot == 0 || dot + 1 == name.size()) return false;
  *node = name.substr(0, dot);
  *uid = name.substr(dot + 1);
  return true;
}

Json status_of(const std::string& version) {
  return {{"status", {{"objectResourceVersion", version}}}};
}

}  // namespace

SyncBook::SyncBook(io::Loop& loop, kube::Client& client) : SyncBook(loop, client, Options{}) {}

SyncBook::SyncBook(io::Loop& loop, kube::Client& client, Options options)
    : loop_(loop), client_(client), options_(options), retry_timer_(loop, [this] {
        queue_.insert(queue_.end(), failed_.begin(), failed_.end());
        failed_.clear();
        pump();
      }) {}

SyncBook::~SyncBook() {
  *alive_ = false;
}

kube::Client::Callback SyncBook::guarded(UniqueFunction<void(Result<std::string>)> then) {
  return [alive = alive_, then = std::move(then)](Result<std::string> result) mutable {
    if (*alive) then(std::move(result));
  };
}

void SyncBook::start(UniqueFunction<void()> on_loaded) {
  on_loaded_ = std::move(on_loaded);
  namespaced_ = inform(kObjectSyncs);
  cluster_ = inform(kClusterObjectSyncs);
  namespaced_->start();
  cluster_->start();
}

std::unique_ptr<kube::Informer> SyncBook::inform(const kube::ResourceType& type) {
  kube::Informer::Options options;
  options.type = type;
  options.keep_json = false;
  kube::Informer::Handlers handlers;
  handlers.on_upsert = [this](const kube::Informer::Object& object) { load(object); };
  handlers.on_delete = [this](const kube::Informer::Object& object) { unload(object); };
  handlers.on_synced = [this, &type] { on_list(type); };
  handlers.on_error = [this](const Error& error) {
    if (error.code == ErrorCode::kNotFound) go_without(error);
  };
  return std::make_unique<kube::Informer>(loop_, client_, std::move(options), std::move(handlers));
}

void SyncBook::on_list(const kube::ResourceType& type) {
  (type.namespaced ? listed_namespaced_ : listed_cluster_) = true;
  if (loaded_ || !listed_namespaced_ || !listed_cluster_) return;
  loaded_ = true;
  if (on_loaded_) on_loaded_();
}

void SyncBook::go_without(const Error& error) {
  if (!std::exchange(persistent_, false)) return;
  EM_LOG(
      kWarn, "edge",
      "what nodes confirmed is kept in memory only, the API has no objectsyncs of {} ({}); apply "
      "configs/crds/reliablesyncs.yaml to keep it over restarts",
      kObjectSyncs.api_version(), error.message);
  dirty_.clear();
  queue_.clear();
  failed_.clear();
  // Not from within the informers' callback.
  loop_.post([this, alive = alive_] {
    if (!*alive) return;
    namespaced_.reset();
    cluster_.reset();
    on_list(kObjectSyncs);
    on_list(kClusterObjectSyncs);
  });
}

// Ours come back, too: they are as new as the book at most, so they change nothing.
void SyncBook::load(const kube::Informer::Object& object) {
  std::string node, uid;
  if (!split(object.name, &node, &uid)) return;
  if (dirty_.contains(object.name)) return;  // the book is ahead
  const Json json = Json::parse(object.json, nullptr, false);
  const kube::ResourceType* type = type_of_kind(kube::text_at(json, "spec", "objectKind"));
  const std::string version = kube::text_at(json, "status", "objectResourceVersion");
  if (type == nullptr) return;
  Entry& entry = nodes_[node][uid];
  if (!entry.version.empty() && kube::version_at_least(entry.version, version)) return;
  entry.ref = {type, object.ns, kube::text_at(json, "spec", "objectName"), uid};
  entry.version = version.empty() ? "0" : version;
}

void SyncBook::unload(const kube::Informer::Object& object) {
  std::string node, uid;
  if (!split(object.name, &node, &uid) || dirty_.contains(object.name)) return;
  const auto it = nodes_.find(node);
  if (it == nodes_.end()) return;
  it->second.erase(uid);
  if (it->second.empty()) nodes_.erase(it);
}

const SyncBook::Entry* SyncBook::find(const std::string& node, const std::string& uid) const {
  const auto it = nodes_.find(node);
  if (it == nodes_.end()) return nullptr;
  const auto entry = it->second.find(uid);
  return entry == it->second.end() ? nullptr : &entry->second;
}

std::vector<const SyncBook::Entry*> SyncBook::of_node(const std::string& node) const {
  std::vector<const Entry*> out;
  const auto it = nodes_.find(node);
  if (it == nodes_.end()) return out;
  for (const auto& [uid, entry] : it->second) out.push_back(&entry);
  return out;
}

void SyncBook::record(const std::string& node, const ObjectRef& ref, std::string version) {
  Entry& entry = nodes_[node][ref.uid];
  if (entry.version == version) return;
  entry.ref = ref;
  entry.version = version;
  mark(node, ref, std::move(version));
}

void SyncBook::forget(const std::string& node, const std::string& uid) {
  const auto it = nodes_.find(node);
  if (it == nodes_.end()) return;
  const auto entry = it->second.find(uid);
  if (entry == it->second.end()) return;
  mark(node, entry->second.ref, "");
  it->second.erase(entry);
  if (it->second.empty()) nodes_.erase(it);
}

void SyncBook::forget_node(const std::string& node) {
  replace(node, {});
}

void SyncBook::replace(const std::string& node, std::vector<Entry> entries) {
  NodeBook fresh;
  for (Entry& entry : entries) {
    std::string uid = entry.ref.uid;
    fresh.insert_or_assign(std::move(uid), std::move(entry));
  }
  std::vector<std::string> gone;
  if (const auto it = nodes_.find(node); it != nodes_.end()) {
    for (const auto& [uid, entry] : it->second) {
      if (!fresh.contains(uid)) gone.push_back(uid);
    }
  }
  for (const std::string& uid : gone) forget(node, uid);
  for (auto& [uid, entry] : fresh) record(node, entry.ref, entry.version);
}

void SyncBook::mark(const std::string& node, const ObjectRef& ref, std::string version) {
  if (!persistent_) return;
  const std::string key = sync_name(node, ref.uid);
  const auto [it, fresh] = dirty_.try_emplace(key);
  Write& write = it->second;
  write.ref = ref;
  write.version = std::move(version);
  if (write.running) {
    write.again = true;
  } else if (fresh) {
    queue_.push_back(key);
    pump();
  }
}

void SyncBook::pump() {
  while (in_flight_ < options_.max_in_flight && !queue_.empty()) {
    const std::string key = std::move(queue_.front());
    queue_.pop_front();
    const auto it = dirty_.find(key);
    if (it == dirty_.end()) continue;
    ++in_flight_;
    begin(key, it->second);
  }
}

void SyncBook::begin(const std::string& key, Write& write) {
  write.running = true;
  write.again = false;
  if (!write.version.empty()) return write_status(key, write, true);
  client_.remove(sync_type(write.ref), write.ref.ns, key, {},
                 guarded([this, key](Result<std::string> result) {
                   const bool gone = !result && result.error().code == ErrorCode::kNotFound;
                   finish(key, gone ? Result<std::string>(std::string()) : std::move(result));
                 }));
}

void SyncBook::write_status(const std::string& key, const Write& write, bool may_create) {
  kube::WriteOptions options;
  options.subresource = "status";
  auto then = [this, key, may_create](Result<std::string> result) {
    const bool missing = !result && result.error().code == ErrorCode::kNotFound;
    const auto it = dirty_.find(key);
    if (missing && may_create && it != dirty_.end()) return create(key, it->second);
    finish(key, result);
  };
  client_.patch(sync_type(write.ref), write.ref.ns, key, kube::PatchKind::kMerge,
                kube::to_text(status_of(write.version)), options, guarded(std::move(then)));
}

void SyncBook::create(const std::string& key, const Write& write) {
  const kube::ResourceType& type = sync_type(write.ref);
  Json object{{"apiVersion", type.api_version()},
              {"kind", type.kind},
              {"metadata", {{"name", key}}},
              {"spec",
               {{"objectAPIVersion", write.ref.type->api_version()},
                {"objectKind", write.ref.type->kind},
                {"objectName", write.ref.name}}}};
  if (!write.ref.ns.empty()) object["metadata"]["namespace"] = write.ref.ns;
  auto then = [this, key](Result<std::string> result) {
    const auto it = dirty_.find(key);
    const bool there = !result && result.error().code == ErrorCode::kAlreadyExists;
    if ((!result && !there) || it == dirty_.end()) return finish(key, result);
    // Deleted again meanwhile: finish() sees that it changed.
    if (it->second.version.empty()) return finish(key, std::string());
    write_status(key, it->second, false);
  };
  client_.create(type, write.ref.ns, kube::to_text(object), {}, guarded(std::move(then)));
}

void SyncBook::finish(const std::string& key, const Result<std::string>& result) {
  --in_flight_;
  if (const auto it = dirty_.find(key); it != dirty_.end()) {
    Write& write = it->second;
    write.running = false;
    if (write.again) {
      queue_.push_back(key);
    } else if (!result && result.error().code != ErrorCode::kNotFound &&
               result.error().code != ErrorCode::kInvalidArgument) {
      // kNotFound: the namespace went away, and the object with it. kInvalidArgument: a name that
      // the API will never take; such an object is in memory only.
      EM_LOG(kDebug, "edge", "writing {} failed, again in a while: {}", key,
             result.error().message);
      failed_.push_back(key);
      if (!retry_timer_.active()) retry_timer_.start(options_.retry);
    } else {
      dirty_.erase(it);
    }
  }
  pump();
}

}  // namespace edgemesh::cloud
