#include "agent/edged/spec/pod_spec.h"

#include <nlohmann/json.hpp>

#include "kube/json_util.h"
#include "kube/time.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;

int64_t number_at(const Json& object, const char* key, int64_t otherwise) {
  const Json* value = kube::find(object, key);
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : otherwise;
}

bool flag_at(const Json& object, const char* key) {
  const Json* value = kube::find(object, key);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

// A number or a name.
std::string port_at(const Json& object) {
  const Json* value = kube::find(object, "port");
  if (value == nullptr) return "";
  return value->is_number_integer() ? std::to_string(value->get<int64_t>())
                                    : kube::text_at(object, "port");
}

std::map<std::string, std::string> texts_at(const Json& object, const char* key) {
  std::map<std::string, std::string> out;
  const Json* value = kube::find(object, key);
  if (value == nullptr || !value->is_object()) return out;
  for (const auto& [name, text] : value->items()) {
    if (text.is_string()) out[name] = text.get<std::string>();
  }
  return out;
}

template <class Fn>
void for_each_at(const Json& object, const char* key, Fn fn) {
  const Json* list = kube::find(object, key);
  if (list == nullptr || !list->is_array()) return;
  for (const Json& item : *list) fn(item);
}

// FNV-1a: the same in every run and build.
std::string digest(const std::string& text) {
  uint64_t hash = 14695981039346656037ULL;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ULL;
  return fmt::format("{:x}", hash);
}

std::optional<Handler> read_handler(const Json& object) {
  Handler out;
  if (const Json* exec = kube::find(object, "exec")) {
    out.kind = Handler::Kind::kExec;
    for_each_at(*exec, "command", [&](const Json& word) {
      if (word.is_string()) out.command.push_back(word.get<std::string>());
    });
    return out;
  }
  if (const Json* http = kube::find(object, "httpGet")) {
    out.kind = Handler::Kind::kHttp;
    out.host = kube::text_at(*http, "host");
    out.port = port_at(*http);
    out.path = kube::text_at(*http, "path");
    out.scheme = kube::text_at(*http, "scheme");
    for_each_at(*http, "httpHeaders", [&](const Json& header) {
      out.headers.emplace_back(kube::text_at(header, "name"), kube::text_at(header, "value"));
    });
    return out;
  }
  if (const Json* tcp = kube::find(object, "tcpSocket")) {
    out.kind = Handler::Kind::kTcp;
    out.host = kube::text_at(*tcp, "host");
    out.port = port_at(*tcp);
    return out;
  }
  if (const Json* grpc = kube::find(object, "grpc")) {
    out.kind = Handler::Kind::kGrpc;
    out.port = port_at(*grpc);
    out.service = kube::text_at(*grpc, "service");
    return out;
  }
  if (const Json* sleep = kube::find(object, "sleep")) {
    out.kind = Handler::Kind::kSleep;
    out.sleep = seconds(number_at(*sleep, "seconds", 0));
    return out;
  }
  return std::nullopt;
}

std::optional<Probe> read_probe(const Json& container, const char* key) {
  const Json* object = kube::find(container, key);
  if (object == nullptr) return std::nullopt;
  auto handler = read_handler(*object);
  if (!handler) return std::nullopt;
  Probe out;
  out.handler = std::move(*handler);
  const auto at_least = [&](const char* name, int64_t otherwise) {
    const int64_t value = number_at(*object, name, otherwise);
    return value > 0 ? value : otherwise;
  };
  out.initial_delay = seconds(std::max<int64_t>(number_at(*object, "initialDelaySeconds", 0), 0));
  out.period = seconds(at_least("periodSeconds", 10));
  out.timeout = seconds(at_least("timeoutSeconds", 1));
  out.success_threshold = static_cast<int>(at_least("successThreshold", 1));
  out.failure_threshold = static_cast<int>(at_least("failureThreshold", 3));
  if (kube::find(*object, "terminationGracePeriodSeconds") != nullptr)
    out.grace = seconds(at_least("terminationGracePeriodSeconds", 1));
  return out;
}

PullPolicy read_pull_policy(const Json& container, const std::string& image) {
  const std::string word = kube::text_at(container, "imagePullPolicy");
  if (word == "Always") return PullPolicy::kAlways;
  if (word == "Never") return PullPolicy::kNever;
  if (!word.empty()) return PullPolicy::kIfNotPresent;
  const size_t name = image.rfind('/') == std::string::npos ? 0 : image.rfind('/');
  const size_t tag = image.find(':', name);
  if (image.find('@') != std::string::npos) return PullPolicy::kIfNotPresent;
  const bool latest = tag == std::string::npos || image.substr(tag) == ":latest";
  return latest ? PullPolicy::kAlways : PullPolicy::kIfNotPresent;
}

Container read_container(const Json& object) {
  Container out;
  out.name = kube::text_at(object, "name");
  out.image = kube::text_at(object, "image");
  out.pull_policy = read_pull_policy(object, out.image);
  for_each_at(object, "ports", [&](const Json& port) {
    ContainerPort one;
    one.name = kube::text_at(port, "name");
    if (std::string word = kube::text_at(port, "protocol"); !word.empty()) one.protocol = word;
    one.host_ip = kube::text_at(port, "hostIP");
    one.container_port = static_cast<int>(number_at(port, "containerPort", 0));
    one.host_port = static_cast<int>(number_at(port, "hostPort", 0));
    out.ports.push_back(std::move(one));
  });
  out.liveness = read_probe(object, "livenessProbe");
  out.readiness = read_probe(object, "readinessProbe");
  out.startup = read_probe(object, "startupProbe");
  if (const Json* hook = kube::find(object, "lifecycle", "postStart"))
    out.post_start = read_handler(*hook);
  if (const Json* hook = kube::find(object, "lifecycle", "preStop"))
    out.pre_stop = read_handler(*hook);
  out.restart_always = kube::text_at(object, "restartPolicy") == "Always";
  if (std::string path = kube::text_at(object, "terminationMessagePath"); !path.empty())
    out.termination_path = path;
  out.message_from_logs =
      kube::text_at(object, "terminationMessagePolicy") == "FallbackToLogsOnError";
  // Only the image may be changed in place; what a newer API server defaults must restart nothing.
  out.hash = digest(out.name + "\n" + out.image);
  out.json = std::make_shared<const Json>(object);
  return out;
}

}  // namespace

Result<Pod> parse_pod(std::string_view text) {
  const Json object = Json::parse(text, nullptr, false);
  const Json* meta = kube::find(object, "metadata");
  const Json* spec = kube::find(object, "spec");
  if (meta == nullptr || spec == nullptr)
    return fail(ErrorCode::kInvalidArgument, "this is no pod: it has no metadata or no spec");
  Pod out;
  out.uid = kube::text_at(*meta, "uid");
  out.ns = kube::text_at(*meta, "namespace");
  out.name = kube::text_at(*meta, "name");
  if (out.uid.empty() || out.ns.empty() || out.name.empty())
    return fail(ErrorCode::kInvalidArgument, "this is no pod: it has no uid, namespace or name");
  out.node_name = kube::text_at(*spec, "nodeName");
  out.labels = texts_at(*meta, "labels");
  out.annotations = texts_at(*meta, "annotations");
  for_each_at(*spec, "initContainers",
              [&](const Json& c) { out.init_containers.push_back(read_container(c)); });
  for_each_at(*spec, "containers",
              [&](const Json& c) { out.containers.push_back(read_container(c)); });
  if (out.containers.empty())
    return fail(ErrorCode::kInvalidArgument, "spec.containers: it has none");
  const std::string policy = kube::text_at(*spec, "restartPolicy");
  out.restart_policy = policy == "Never"       ? RestartPolicy::kNever
                       : policy == "OnFailure" ? RestartPolicy::kOnFailure
                                               : RestartPolicy::kAlways;
  out.grace = seconds(std::max<int64_t>(number_at(*spec, "terminationGracePeriodSeconds", 30), 0));
  if (!kube::text_at(*meta, "deletionTimestamp").empty()) {
    const int64_t otherwise = std::chrono::duration_cast<seconds>(out.grace).count();
    out.deletion_grace =
        seconds(std::max<int64_t>(number_at(*meta, "deletionGracePeriodSeconds", otherwise), 0));
  }
  if (const int64_t most = number_at(*spec, "activeDeadlineSeconds", 0); most > 0)
    out.active_deadline = seconds(most);
  out.host_network = flag_at(*spec, "hostNetwork");
  for_each_at(*spec, "imagePullSecrets",
              [&](const Json& s) { out.pull_secrets.push_back(kube::text_at(s, "name")); });
  if (const auto at = kube::parse_rfc3339(kube::text_at(object, "status", "startTime")))
    out.start_time_s = std::chrono::duration_cast<seconds>(at->time_since_epoch()).count();
  if (const auto it = out.annotations.find("kubernetes.io/config.source");
      it != out.annotations.end())
    out.source = it->second;
  out.json = std::make_shared<const Json>(object);
  return out;
}

}  // namespace edgemesh::edged
