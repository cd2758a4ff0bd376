// The environment of a container.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/edged/spec/translate.h"
#include "core/tls/x509.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

// Of all variables of a container: what execve() takes, with room for arguments.
constexpr size_t kMostBytes = 1 << 20;

class Builder {
 public:
  // A later one replaces an earlier one, in its place.
  void set(const std::string& name, std::string value) {
    const auto [it, fresh] = index_.try_emplace(name, env_.size());
    bytes_ += name.size() + value.size();
    if (fresh)
      env_.emplace_back(name, std::move(value));
    else
      env_[it->second].second = std::move(value);
  }
  const Env& env() const { return env_; }
  Env take() { return std::move(env_); }
  size_t bytes() const { return bytes_; }

 private:
  Env env_;
  std::map<std::string, size_t> index_;
  size_t bytes_ = 0;
};

bool flag_at(const Json& object, const char* key) {
  const Json* value = kube::find(object, key);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

// Whatever a process can have as the name of a variable.
bool usable_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(),
                                      [](char c) { return c >= 0x20 && c < 0x7f && c != '='; });
}

const char* title(bool secret) {
  return secret ? "Secret" : "ConfigMap";
}

Result<Json> get_object(ObjectSource& objects, const Pod& pod, bool secret,
                        const std::string& name) {
  const char* kind = secret ? "secret" : "configmap";
  auto got = objects.get(kind, pod.ns, name);
  if (!got && got.error().code == ErrorCode::kNotFound)
    return fail(ErrorCode::kNotFound, "{} \"{}\" not found", kind, name);
  return got;
}

// A value of a config map or secret as text. False: it has no such key.
Result<bool> text_of(const Json& object, bool secret, const std::string& key, std::string* out) {
  const Json* value = kube::find(object, "data", key);
  if (value == nullptr || !value->is_string()) return false;
  *out = value->get<std::string>();
  if (!secret) return true;
  auto bytes = tls::base64_decode(*out);
  if (!bytes) return fail(ErrorCode::kInvalidArgument, "secret: key {} is no base64", key);
  *out = std::move(*bytes);
  return true;
}

Result<> add_all_of(const Pod& pod, const Json& source, ObjectSource& objects, Builder& out) {
  for (const bool secret : {false, true}) {
    const Json* ref = kube::find(source, secret ? "secretRef" : "configMapRef");
    if (ref == nullptr) continue;
    auto object = get_object(objects, pod, secret, kube::text_at(*ref, "name"));
    if (!object && object.error().code == ErrorCode::kNotFound && flag_at(*ref, "optional"))
      continue;
    if (!object) return fail(object.error());
    const Json* data = kube::find(*object, "data");
    if (data == nullptr || !data->is_object()) continue;
    const std::string prefix = kube::text_at(source, "prefix");
    for (const auto& [key, value] : data->items()) {
      std::string text;
      EM_TRY(const bool there, text_of(*object, secret, key, &text));
      if (there && usable_name(prefix + key)) out.set(prefix + key, std::move(text));
    }
  }
  return {};
}

// As kubelet tells of the Service default/kubernetes.
void add_api_service(const SockAddr& service, Builder& out) {
  const std::string host = service.ip.to_string(), port = std::to_string(service.port);
  const std::string url = "tcp://" + service.to_string();
  const std::string below = "KUBERNETES_PORT_" + port + "_TCP";
  out.set("KUBERNETES_SERVICE_HOST", host);
  out.set("KUBERNETES_SERVICE_PORT", port);
  out.set("KUBERNETES_SERVICE_PORT_HTTPS", port);
  out.set("KUBERNETES_PORT", url);
  out.set(below, url);
  out.set(below + "_PROTO", "tcp");
  out.set(below + "_PORT", port);
  out.set(below + "_ADDR", host);
}

// From one key; `skip`: it is optional and not there.
Result<std::string> from_key(const Pod& pod, const Json& ref, bool secret, ObjectSource& objects,
                             bool* skip) {
  const std::string name = kube::text_at(ref, "name"), key = kube::text_at(ref, "key");
  const bool optional = flag_at(ref, "optional");
  auto object = get_object(objects, pod, secret, name);
  if (!object) {
    *skip = optional && object.error().code == ErrorCode::kNotFound;
    if (*skip) return std::string();
    return fail(object.error());
  }
  std::string text;
  EM_TRY(const bool there, text_of(*object, secret, key, &text));
  if (there) return text;
  *skip = optional;
  if (optional) return std::string();
  return fail(ErrorCode::kNotFound, "couldn't find key {} in {} {}/{}", key, title(secret), pod.ns,
              name);
}

Result<std::string> from_source(const Pod& pod, const Container& container, const Json& source,
                                const FieldContext& fields, ObjectSource& objects, bool* skip) {
  if (const Json* ref = kube::find(source, "fieldRef"))
    return field_value(pod, kube::text_at(*ref, "fieldPath"), fields);
  if (const Json* ref = kube::find(source, "resourceFieldRef"))
    return resource_value(pod, *ref, &container, fields);
  for (const bool secret : {false, true}) {
    if (const Json* ref = kube::find(source, secret ? "secretKeyRef" : "configMapKeyRef"))
      return from_key(pod, *ref, secret, objects, skip);
  }
  return fail(ErrorCode::kInvalidArgument, "env: a valueFrom of a kind that is not known");
}

}  // namespace

std::string expand(std::string_view text, const Env& env) {
  std::string out;
  // No longer than what is refused as too long: values may repeat others.
  for (size_t i = 0; i < text.size() && out.size() <= kMostBytes; ++i) {
    if (text[i] != '$' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    if (text[i + 1] == '$') {
      out += '$';
      ++i;
      continue;
    }
    const size_t end = text[i + 1] == '(' ? text.find(')', i) : std::string_view::npos;
    if (end == std::string_view::npos) {
      out += '$';
      continue;
    }
    const std::string_view name = text.substr(i + 2, end - i - 2);
    const auto it =
        std::find_if(env.begin(), env.end(), [&](const auto& e) { return e.first == name; });
    if (it == env.end())
      out += text.substr(i, end - i + 1);
    else
      out += it->second;
    i = end;
  }
  return out;
}

Result<Env> container_env(const Pod& pod, const Container& container, const NodeContext& node,
                          const std::vector<std::string>& pod_ips, ObjectSource& objects) {
  Builder out;
  FieldContext fields = node.fields;
  fields.pod_ips = pod_ips;
  if (pod.host_network) fields.pod_ips = {fields.host_ip};
  if (node.api_service) add_api_service(*node.api_service, out);
  if (const Json* list = kube::find(*container.json, "envFrom");
      list != nullptr && list->is_array()) {
    for (const Json& source : *list) EM_TRY_VOID(add_all_of(pod, source, objects, out));
  }
  if (const Json* list = kube::find(*container.json, "env"); list != nullptr && list->is_array()) {
    for (const Json& one : *list) {
      const std::string name = kube::text_at(one, "name");
      if (!usable_name(name))
        return fail(ErrorCode::kInvalidArgument, "env: a variable cannot be named \"{}\"", name);
      const Json* source = kube::find(one, "valueFrom");
      if (source == nullptr) {
        out.set(name, expand(kube::text_at(one, "value"), out.env()));
      } else {
        bool skip = false;
        EM_TRY(std::string value, from_source(pod, container, *source, fields, objects, &skip));
        if (!skip) out.set(name, std::move(value));
      }
      if (out.bytes() > kMostBytes)
        return fail(ErrorCode::kResourceExhausted, "env: more than {} bytes", kMostBytes);
    }
  }
  if (out.bytes() > kMostBytes)
    return fail(ErrorCode::kResourceExhausted, "env: more than {} bytes", kMostBytes);
  return out.take();
}

}  // namespace edgemesh::edged
