// A Kubernetes API in memory behind kube::Client: objects, versions, patches, watches. Answers come
// in a later turn of the loop, as the contract of Client says.
#pragma once

#include <list>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "core/io/loop.h"
#include "kube/client.h"
#include "kube/patch.h"

namespace edgemesh::test {

class FakeKube final : public kube::Client {
 public:
  using Json = nlohmann::json;
  explicit FakeKube(io::Loop& loop) : loop_(loop) {}
  ~FakeKube() override { *alive_ = false; }

  // What tests look at and set.
  int writes = 0;
  kube::DeleteOptions last_deletion;
  int reads = 0;
  std::optional<Error> fail_with;  // every call fails so
  std::set<std::string> missing_types;  // plurals that this API does not have

  const Json* find(const kube::ResourceType& type, const std::string& ns, const std::string& name) {
    const auto it = objects_.find(key(type, ns, name));
    return it == objects_.end() ? nullptr : &it->second;
  }
  void put(const kube::ResourceType& type, Json object) {
    const Json& meta = object["metadata"];
    store(type, meta.value("namespace", ""), meta.value("name", ""), object);
  }
  void erase(const kube::ResourceType& type, const std::string& ns, const std::string& name) {
    const auto it = objects_.find(key(type, ns, name));
    if (it == objects_.end()) return;
    Json gone = it->second;
    gone["metadata"]["resourceVersion"] = std::to_string(++version_);
    objects_.erase(it);
    tell(type, kube::EventType::kDeleted, gone);
  }

  void get(const kube::ResourceType& type, std::string_view ns, std::string_view name,
           Callback done) override {
    ++reads;
    answer(std::move(done), fetch(type, ns, name));
  }
  void list(const kube::ResourceType& type, std::string_view ns, const kube::ListOptions& options,
            Callback done) override {
    ++reads;
    if (missing_types.contains(type.plural)) return missing(std::move(done));
    Json items = Json::array();
    const std::string prefix = type.plural + "|" + (ns.empty() ? "" : std::string(ns) + "/");
    for (const auto& [at, object] : objects_) {
      if (at.starts_with(prefix) && selected(object, options)) items.push_back(object);
    }
    answer(std::move(done),
           Json{{"metadata", {{"resourceVersion", std::to_string(version_)}}}, {"items", items}}
               .dump());
  }
  void create(const kube::ResourceType& type, std::string_view ns, std::string body,
              const kube::WriteOptions& options, Callback done) override {
    ++writes;
    Json object = Json::parse(body, nullptr, false);
    const std::string name = object["metadata"].value("name", "");
    if (options.subresource == "token") {
      object["status"]["token"] = "a.b.c";
      return answer(std::move(done), object.dump());
    }
    if (find(type, std::string(ns), name) != nullptr) {
      return answer(std::move(done), fail(ErrorCode::kAlreadyExists, "{} exists", name));
    }
    if (fail_with) return answer(std::move(done), std::string());
    object["metadata"]["uid"] = "uid-" + std::to_string(version_ + 1);
    answer(std::move(done), store(type, std::string(ns), name, object).dump());
  }
  void update(const kube::ResourceType& type, std::string_view ns, std::string_view name,
              std::string body, const kube::WriteOptions&, Callback done) override {
    ++writes;
    if (find(type, std::string(ns), std::string(name)) == nullptr) return missing(std::move(done));
    answer(
        std::move(done),
        store(type, std::string(ns), std::string(name), Json::parse(body, nullptr, false)).dump());
  }
  void patch(const kube::ResourceType& type, std::string_view ns, std::string_view name,
             kube::PatchKind kind, std::string body, const kube::WriteOptions&,
             Callback done) override {
    ++writes;
    const Json* old = find(type, std::string(ns), std::string(name));
    if (old == nullptr) return missing(std::move(done));
    if (fail_with) return answer(std::move(done), std::string());
    Json object = *old;
    const Json change = Json::parse(body, nullptr, false);
    const Result<> ok = kind == kube::PatchKind::kStrategic
                            ? kube::apply_strategic_patch(object, change, type.kind)
                            : kube::apply_merge_patch(object, change);
    if (!ok) return answer(std::move(done), fail(ok.error()));
    answer(std::move(done), store(type, std::string(ns), std::string(name), object).dump());
  }
  void remove(const kube::ResourceType& type, std::string_view ns, std::string_view name,
              const kube::DeleteOptions& options, Callback done) override {
    ++writes;
    last_deletion = options;
    auto object = fetch(type, ns, name);
    if (object && !fail_with) erase(type, std::string(ns), std::string(name));
    answer(std::move(done), std::move(object));
  }
  std::unique_ptr<kube::Watch> watch(const kube::ResourceType& type, std::string_view,
                                     const kube::WatchOptions&,
                                     kube::WatchHandler handler) override {
    auto state = std::make_shared<WatchState>();
    state->type = type;
    state->handler = std::move(handler);
    watches_.push_back(state);
    return std::make_unique<FakeWatch>(state);
  }

 private:
  struct WatchState {
    kube::ResourceType type;
    kube::WatchHandler handler;
    bool ended = false;
  };
  struct FakeWatch final : kube::Watch {
    explicit FakeWatch(std::shared_ptr<WatchState> s) : state(std::move(s)) {}
    ~FakeWatch() override { state->ended = true; }
    std::shared_ptr<WatchState> state;
  };

  static std::string key(const kube::ResourceType& type, std::string_view ns,
                         std::string_view name) {
    return type.plural + "|" + kube::object_key(ns, name);
  }
  static bool selected(const Json& object, const kube::ListOptions& options) {
    const std::string& field = options.field_selector;
    if (field.starts_with("spec.nodeName=")) {
      return object.value("/spec/nodeName"_json_pointer, std::string()) == field.substr(14);
    }
    if (const size_t at = options.label_selector.find('='); at != std::string::npos) {
      const auto labels = object["metadata"].value("labels", Json::object());
      return labels.value(options.label_selector.substr(0, at), std::string()) ==
             options.label_selector.substr(at + 1);
    }
    return true;
  }
  Result<std::string> fetch(const kube::ResourceType& type, std::string_view ns,
                            std::string_view name) {
    const Json* object = find(type, std::string(ns), std::string(name));
    if (object == nullptr) return fail(ErrorCode::kNotFound, "{} not found", name);
    return object->dump();
  }
  const Json& store(const kube::ResourceType& type, const std::string& ns, const std::string& name,
                    Json object) {
    object["apiVersion"] = type.api_version();
    object["kind"] = type.kind;
    object["metadata"]["resourceVersion"] = std::to_string(++version_);
    const auto [it, fresh] = objects_.insert_or_assign(key(type, ns, name), std::move(object));
    tell(type, fresh ? kube::EventType::kAdded : kube::EventType::kModified, it->second);
    return it->second;
  }
  void tell(const kube::ResourceType& type, kube::EventType event, const Json& object) {
    std::erase_if(watches_, [](const auto& w) { return w->ended; });
    for (const auto& watch : watches_) {
      if (!(watch->type == type)) continue;
      loop_.post([watch, event, object] {
        if (watch->ended) return;
        const Json& meta = object["metadata"];
        const std::string ns = meta.value("namespace", "");
        const std::string name = meta.value("name", "");
        const std::string version = meta.value("resourceVersion", "");
        const std::string text = object.dump();
        watch->handler.on_event({event, ns, name, version, text});
      });
    }
  }
  void missing(Callback done) { answer(std::move(done), fail(ErrorCode::kNotFound, "not found")); }
  void answer(Callback done, Result<std::string> result) {
    if (fail_with && (result || result.error().code != ErrorCode::kNotFound)) {
      result = edgemesh::fail(*fail_with);
    }
    loop_.post([alive = alive_, done = std::move(done), result = std::move(result)]() mutable {
      if (*alive) done(std::move(result));
    });
  }

  io::Loop& loop_;
  uint64_t version_ = 1000;
  std::map<std::string, Json> objects_;
  std::list<std::shared_ptr<WatchState>> watches_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::test
