#include "agent/edged/spec/fields.h"

#include <algorithm>

#include "agent/edged/spec/quantity.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;
using Texts = std::map<std::string, std::string>;

// As Go quotes a string: what is no printable ASCII and no UTF-8 letter is escaped.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
          out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        else
          out += c;
    }
  }
  return out + '"';
}

std::string lines_of(const Texts& map) {
  std::string out;
  for (const auto& [key, value] : map)
    out += fmt::format("{}{}={}", out.empty() ? "" : "\n", key, quoted(value));
  return out;
}

// metadata.labels['key']; false: not of this form.
bool subscript(const std::string& path, std::string_view map, std::string* key) {
  if (!path.starts_with(map) || !path.ends_with("']")) return false;
  const std::string_view rest = std::string_view(path).substr(map.size());
  if (!rest.starts_with("['") || rest.size() < 4) return false;
  *key = rest.substr(2, rest.size() - 4);
  return true;
}

std::string value_of(const Texts& map, const std::string& key) {
  const auto it = map.find(key);
  return it == map.end() ? std::string() : it->second;
}

std::string joined(const std::vector<std::string>& list) {
  std::string out;
  for (const std::string& one : list) out += (out.empty() ? "" : ",") + one;
  return out;
}

const Container* find_container(const Pod& pod, const std::string& name) {
  for (const auto* list : {&pod.containers, &pod.init_containers}) {
    for (const Container& c : *list) {
      if (c.name == name) return &c;
    }
  }
  return nullptr;
}

}  // namespace

Result<std::string> field_value(const Pod& pod, const std::string& path,
                                const FieldContext& context) {
  if (path == "metadata.name") return pod.name;
  if (path == "metadata.namespace") return pod.ns;
  if (path == "metadata.uid") return pod.uid;
  if (path == "metadata.labels") return lines_of(pod.labels);
  if (path == "metadata.annotations") return lines_of(pod.annotations);
  if (path == "spec.nodeName") return pod.node_name.empty() ? context.node : pod.node_name;
  if (path == "spec.serviceAccountName")
    return kube::text_at(*pod.json, "spec", "serviceAccountName");
  if (path == "status.hostIP" || path == "status.hostIPs") return context.host_ip;
  if (path == "status.podIP") return context.pod_ips.empty() ? "" : context.pod_ips.front();
  if (path == "status.podIPs") return joined(context.pod_ips);
  std::string key;
  if (subscript(path, "metadata.labels", &key)) return value_of(pod.labels, key);
  if (subscript(path, "metadata.annotations", &key)) return value_of(pod.annotations, key);
  return fail(ErrorCode::kInvalidArgument, "unsupported fieldPath: {}", path);
}

Result<std::string> resource_value(const Pod& pod, const Json& ref, const Container* self,
                                   const FieldContext& context) {
  const std::string name = kube::text_at(ref, "containerName");
  const Container* of = name.empty() ? self : find_container(pod, name);
  if (of == nullptr) return fail(ErrorCode::kNotFound, "container {} not found", name);
  const std::string resource = kube::text_at(ref, "resource");
  const size_t dot = resource.find('.');
  const std::string list = resource.substr(0, dot);
  const std::string what = dot == std::string::npos ? "" : resource.substr(dot + 1);
  const bool cpu = what == "cpu";
  if ((list != "limits" && list != "requests") ||
      (!cpu && what != "memory" && what != "ephemeral-storage"))
    return fail(ErrorCode::kInvalidArgument, "unsupported container resource : {}", resource);
  // In thousandths, as a divisor may be.
  int64_t value =
      cpu ? cpu_milli(*of->json, list.c_str()) : bytes_of(*of->json, list.c_str(), what.c_str());
  if (value == 0 && list == "limits")
    value = cpu ? context.cpu_milli : what == "memory" ? context.memory_bytes : context.disk_bytes;
  const Json* written = kube::find(ref, "divisor");
  std::string divisor_text = "1";
  if (written != nullptr)
    divisor_text = written->is_string() ? written->get<std::string>() : written->dump();
  const auto milli = parse_milli(divisor_text);
  if (!milli || *milli < 0)
    return fail(ErrorCode::kInvalidArgument, "divisor {} is no quantity", divisor_text);
  const int64_t divisor = *milli == 0 ? 1000 : *milli;
  const auto wide = static_cast<__int128>(value) * (cpu ? 1 : 1000);
  return std::to_string(static_cast<int64_t>((wide + divisor - 1) / divisor));
}

}  // namespace edgemesh::edged
