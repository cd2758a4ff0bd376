#include "cloud/streams/usage_metrics.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/api/list_options.h"
#include "core/base/log.h"
#include "kube/objects.h"

namespace edgemesh::cloud {
namespace {

using nlohmann::json;
using Writer = std::shared_ptr<http::ResponseWriter>;

constexpr const char* kGroupVersion = "metrics.k8s.io/v1beta1";

// The answer as a whole, instead of a connection's client.
class Collector final : public http::ResponseWriter {
 public:
  using Done = UniqueFunction<void(const http::Response&)>;
  Collector(size_t limit, Done done) : limit_(limit), done_(std::move(done)) {}
  ~Collector() override {
    if (!done_) return;
    response_ = {};
    response_.status = 502;
    end();
  }
  void respond(http::Response response) override {
    response_ = std::move(response);
    end();
  }
  void start(int status, http::Headers) override { response_.status = status; }
  bool write(std::string_view data) override {
    if (response_.body.size() + data.size() > limit_)
      respond({502, {}, "too large"});
    else if (done_)
      response_.body += data;
    return true;
  }
  void end() override {
    if (!done_) return;
    const auto done = std::move(done_);
    done_ = nullptr;
    done(response_);
  }
  void on_drain(UniqueFunction<void()>) override {}
  void on_close(UniqueFunction<void()>) override {}
  bool closed() const override { return !done_; }
  size_t queued_bytes() const override { return 0; }
  Result<std::unique_ptr<io::Stream>> upgrade(http::Headers) override {
    return fail(ErrorCode::kProtocol, "nobody asked for an upgrade");
  }

 private:
  size_t limit_;
  Done done_;
  http::Response response_;
};

uint64_t unsigned_at(const json& object, const char* part, const char* field) {
  const auto at = object.find(part);
  if (at == object.end() || !at->is_object()) return 0;
  const auto value = at->find(field);
  return value != at->end() && value->is_number_unsigned() ? value->get<uint64_t>() : 0;
}

Usage usage_of(const json& object) {
  return {unsigned_at(object, "cpu", "usageNanoCores"),
          unsigned_at(object, "memory", "workingSetBytes")};
}

std::string text_at(const json& object, const char* field) {
  const auto at = object.find(field);
  return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}

std::string time_of(const json& object) {
  const auto cpu = object.find("cpu");
  return cpu != object.end() && cpu->is_object() ? text_at(*cpu, "time") : std::string();
}

json usage_json(const Usage& usage) {
  return {{"cpu", fmt::format("{}n", usage.nano_cores)},
          {"memory", fmt::format("{}Ki", usage.memory_bytes / 1024)}};
}

PodUsage pod_usage(const json& pod) {
  PodUsage out;
  if (const auto ref = pod.find("podRef"); ref != pod.end() && ref->is_object()) {
    out.ns = text_at(*ref, "namespace");
    out.name = text_at(*ref, "name");
  }
  out.time = time_of(pod);
  const auto containers = pod.find("containers");
  if (containers == pod.end() || !containers->is_array()) return out;
  for (const json& one : *containers) {
    if (!one.is_object()) continue;
    out.containers[text_at(one, "name")] = usage_of(one);
    if (out.time.empty()) out.time = time_of(one);
  }
  return out;
}

void send(const Writer& writer, int status, std::string body) {
  writer->respond({status, {{"Content-Type", "application/json"}}, std::move(body)});
}

}  // namespace

Result<NodeUsage> parse_summary(std::string_view text) {
  EM_TRY(const json summary, kube::parse_json(text));
  const auto node = summary.is_object() ? summary.find("node") : summary.end();
  if (!summary.is_object() || node == summary.end() || !node->is_object())
    return fail(ErrorCode::kProtocol, "the summary has no node");
  NodeUsage out;
  out.time = time_of(*node);
  out.node = usage_of(*node);
  const auto pods = summary.find("pods");
  if (pods == summary.end() || !pods->is_array()) return out;
  for (const json& pod : *pods)
    if (pod.is_object()) out.pods.push_back(pod_usage(pod));
  return out;
}

UsageMetrics::UsageMetrics(io::Loop& loop, NodeStreams& streams, const NodeLink& link,
                           const ApiStore& store, const ResourceRegistry& registry, Options options)
    : loop_(loop),
      streams_(streams),
      link_(link),
      store_(store),
      registry_(registry),
      options_(options) {}

UsageMetrics::~UsageMetrics() {
  *alive_ = false;
}

// The nodes or pods that are asked about.
std::vector<ObjectPtr> UsageMetrics::objects(const http::Request& request,
                                             const ResourcePath& path) const {
  const ResourceInfo* resource = registry_.find("", "v1", path.resource);
  if (resource == nullptr) return {};
  if (!path.name.empty()) {
    ObjectPtr one = store_.get(*resource, path.ns, path.name);
    return one == nullptr ? std::vector<ObjectPtr>() : std::vector<ObjectPtr>{std::move(one)};
  }
  const auto filter = filter_of(request, path, *resource);
  auto found = filter ? store_.list(*resource, *filter) : Result<ListResult>(ListResult());
  return found ? std::move(found->items) : std::vector<ObjectPtr>();
}

void UsageMetrics::handle(const http::Request& request, const Writer& writer,
                          const ResourcePath& path) {
  const bool of_nodes = path.resource == "nodes";
  std::vector<ObjectPtr> all = objects(request, path);
  std::set<std::string> nodes;
  for (const ObjectPtr& object : all) {
    const std::string* node =
        of_nodes ? &object->name : kube::find_pair(object->fields, "spec.nodeName");
    if (node != nullptr && !node->empty()) nodes.insert(*node);
  }
  gather(std::move(nodes), [this, of_nodes, all = std::move(all), writer, name = path.name] {
    json items = json::array();
    for (const ObjectPtr& object : all) {
      json one = render(*object, of_nodes);
      if (!one.is_null()) items.push_back(std::move(one));
    }
    if (name.empty()) {
      const json list{{"kind", of_nodes ? "NodeMetricsList" : "PodMetricsList"},
                      {"apiVersion", kGroupVersion},
                      {"metadata", json::object()},
                      {"items", std::move(items)}};
      return send(writer, 200, list.dump());
    }
    if (!items.empty()) return send(writer, 200, items[0].dump());
    const char* kind = of_nodes ? "nodemetrics" : "podmetrics";
    ApiError error = ApiError::simple(
        404, "NotFound", fmt::format("{}.metrics.k8s.io \"{}\" not found", kind, name));
    error.name = name;
    error.group = "metrics.k8s.io";
    error.kind = kind;
    send(writer, 404, error.to_text());
  });
}

json UsageMetrics::render(const StoredObject& object, bool of_nodes) const {
  const std::string* node =
      of_nodes ? &object.name : kube::find_pair(object.fields, "spec.nodeName");
  const NodeUsage* usage = node == nullptr ? nullptr : known(*node);
  if (usage == nullptr) return nullptr;
  json meta{{"name", object.name}, {"labels", json::object()}};
  for (const auto& [key, value] : object.labels) meta["labels"][key] = value;
  json out{{"kind", of_nodes ? "NodeMetrics" : "PodMetrics"}, {"apiVersion", kGroupVersion}};
  std::string time = usage->time;
  if (of_nodes) {
    out["usage"] = usage_json(usage->node);
  } else {
    meta["namespace"] = object.ns;
    const auto pod = std::find_if(usage->pods.begin(), usage->pods.end(), [&](const PodUsage& p) {
      return p.ns == object.ns && p.name == object.name;
    });
    if (pod == usage->pods.end()) return nullptr;  // it does not run, or has just begun to
    if (!pod->time.empty()) time = pod->time;
    out["containers"] = json::array();
    for (const auto& [name, used] : pod->containers)
      out["containers"].push_back({{"name", name}, {"usage", usage_json(used)}});
  }
  meta["creationTimestamp"] = time;
  out["metadata"] = std::move(meta);
  out["timestamp"] = time;
  out["window"] = "10s";
  return out;
}

const NodeUsage* UsageMetrics::known(const std::string& node) const {
  const auto it = known_.find(node);
  const Duration oldest = options_.fresh + options_.answer_timeout;
  return it == known_.end() || loop_.now() - it->second.at > oldest ? nullptr : &it->second.usage;
}

void UsageMetrics::gather(std::set<std::string> nodes, UniqueFunction<void()> done) {
  std::erase_if(known_, [this](const auto& k) { return known(k.first) == nullptr; });
  auto gather = std::make_shared<Gather>();
  for (const std::string& node : nodes) {
    const auto it = known_.find(node);
    const bool fresh = it != known_.end() && loop_.now() - it->second.at < options_.fresh;
    if (fresh || !link_.connected(node)) continue;
    gather->missing.insert(node);
    const bool waits = std::find(to_ask_.begin(), to_ask_.end(), node) != to_ask_.end();
    if (!waits && !asked_.contains(node)) to_ask_.push_back(node);
  }
  gather->done = std::move(done);
  if (gather->missing.empty()) return finish(*gather);
  Gather* raw = gather.get();
  gather->timer = std::make_unique<io::Timer>(loop_, [this, raw] { finish(*raw); });
  gather->timer->start(options_.answer_timeout);
  gathers_.push_back(std::move(gather));
  ask_next();
}

void UsageMetrics::finish(Gather& gather) {
  const auto it = std::find_if(gathers_.begin(), gathers_.end(),
                               [&](const auto& g) { return g.get() == &gather; });
  const auto done = std::move(gather.done);
  if (it != gathers_.end()) {
    loop_.defer([gone = std::move(*it)] {});
    gathers_.erase(it);
  }
  // Nobody waits for those any more.
  if (gathers_.empty()) to_ask_.clear();
  done();
}

void UsageMetrics::ask_next() {
  while (!to_ask_.empty() && asked_.size() < options_.max_asked) {
    const std::string node = std::move(to_ask_.front());
    to_ask_.pop_front();
    ask(node);
  }
}

void UsageMetrics::ask(const std::string& node) {
  asked_[node] = nullptr;
  auto collector = std::make_shared<Collector>(
      options_.max_summary, [this, alive = alive_, node](const http::Response& response) {
        if (*alive) answered(node, response);
      });
  streams_.open(
      node, [this, alive = alive_, node, collector](Result<std::unique_ptr<io::Stream>> stream) {
        if (!*alive) return;
        if (!stream) return collector->respond({503, {}, stream.error().message});
        http::ForwardRequest request;
        request.method = "GET";
        request.target = "/stats/summary?only_cpu_and_memory=true";
        request.host = node;
        http::ForwardOptions options;
        options.answer_timeout = options.idle_timeout = options_.answer_timeout;
        asked_[node] = http::Forward::start(loop_, std::move(request), std::move(*stream),
                                            collector, std::move(options), [](const Result<>&) {});
      });
}

void UsageMetrics::answered(const std::string& node, const http::Response& response) {
  if (auto gone = asked_.extract(node); !gone.empty())
    loop_.defer([forward = std::move(gone.mapped())] {});
  auto usage = response.status == 200
                   ? parse_summary(response.body)
                   : Result<NodeUsage>(fail(ErrorCode::kUnavailable, "{}", response.body));
  if (usage)
    known_[node] = {loop_.now(), std::move(*usage)};
  else
    EM_LOG(kDebug, "streams", "usage of node {}: {}", node, usage.error().message);
  std::vector<std::shared_ptr<Gather>> complete;
  for (const auto& gather : gathers_)
    if (gather->missing.erase(node) > 0 && gather->missing.empty()) complete.push_back(gather);
  for (const auto& gather : complete) finish(*gather);
  ask_next();
}

}  // namespace edgemesh::cloud
