// What a pod's spec must be, by itself or in a template.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "cloud/api/validate.h"
#include "cloud/api/validate_kinds.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

const json& list_of(const json& object, std::string_view name) {
  static const json kNone = json::array();
  const json* list = find(object, name);
  return list != nullptr && list->is_array() ? *list : kNone;
}

int64_t number(const json& object, std::string_view name) {
  const json* value = find(object, name);
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
}

// "100m", "1.5", "2Gi", "1e3"; the value is good enough for comparing.
bool parse_quantity(const std::string& text, double* out) {
  char* end = nullptr;
  if (text.empty() || text.find_first_of("xXpPnN") == 0 || text[0] == ' ') return false;
  *out = std::strtod(text.c_str(), &end);
  if (end == text.c_str()) return false;
  std::string_view unit(end);
  constexpr std::pair<std::string_view, double> kUnits[] = {{"", 1},
                                                            {"n", 1e-9},
                                                            {"u", 1e-6},
                                                            {"m", 1e-3},
                                                            {"k", 1e3},
                                                            {"M", 1e6},
                                                            {"G", 1e9},
                                                            {"T", 1e12},
                                                            {"P", 1e15},
                                                            {"E", 1e18},
                                                            {"Ki", 1024.0},
                                                            {"Mi", 1048576.0},
                                                            {"Gi", 1073741824.0},
                                                            {"Ti", 1099511627776.0},
                                                            {"Pi", 1125899906842624.0},
                                                            {"Ei", 1152921504606846976.0}};
  for (const auto& [name, factor] : kUnits) {
    if (unit != name) continue;
    *out *= factor;
    return true;
  }
  return false;
}

void check_enum(const json& object, const char* name, const std::string& at,
                const std::vector<std::string>& allowed, FieldErrors* out) {
  std::string value = text_at(object, name);
  if (value.empty() || std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  out->push_back(FieldError::not_supported(at + "." + name, value, allowed));
}

void check_port(int64_t value, const std::string& at, FieldErrors* out) {
  if (value >= 1 && value <= 65535) return;
  out->push_back(
      FieldError::invalid(at, std::to_string(value), "must be between 1 and 65535, inclusive"));
}

void check_resources(const json& container, const std::string& at, FieldErrors* out) {
  for (const char* list : {"limits", "requests"}) {
    const json* amounts = find(container, "resources", list);
    if (amounts == nullptr || !amounts->is_object()) continue;
    for (const auto& [name, value] : amounts->items()) {
      std::string where = fmt::format("{}.resources.{}[{}]", at, list, name);
      double amount = 0, most = 0;
      if (!value.is_string() || !parse_quantity(value.get<std::string>(), &amount)) {
        out->push_back(FieldError::invalid(where, value.dump(),
                                           "quantities must match the regular expression "
                                           "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"));
        continue;
      }
      if (amount < 0) {
        out->push_back(
            FieldError::invalid(where, value.dump(), "must be greater than or equal to 0"));
      }
      if (list[0] != 'r') continue;
      const json* limit = find(container, "resources", "limits", name);
      if (limit == nullptr || !limit->is_string()) continue;
      if (parse_quantity(limit->get<std::string>(), &most) && amount > most) {
        out->push_back(
            FieldError::invalid(at + ".resources.requests", value.dump(),
                                fmt::format("must be less than or equal to {} limit of {}", name,
                                            limit->get<std::string>())));
      }
    }
  }
}

void check_handler(const json& handler, const std::string& at, bool probe, FieldErrors* out) {
  int count = 0;
  for (const char* name : {"exec", "httpGet", "tcpSocket", "grpc", "sleep"}) {
    if (find(handler, name) != nullptr) ++count;
  }
  if (count == 0) out->push_back(FieldError::required(at, "must specify a handler type"));
  if (count > 1) {
    out->push_back(FieldError::forbidden(at, "may not specify more than 1 handler type"));
  }
  const json* command = find(handler, "exec", "command");
  if (find(handler, "exec") != nullptr && (command == nullptr || command->empty())) {
    out->push_back(FieldError::required(at + ".exec.command"));
  }
  for (const char* name : {"httpGet", "tcpSocket", "grpc"}) {
    const json* port = find(handler, name, "port");
    if (find(handler, name) == nullptr || (port != nullptr && port->is_string())) continue;
    check_port(port != nullptr ? port->get<int64_t>() : 0, fmt::format("{}.{}.port", at, name),
               out);
  }
  if (!probe) return;
  for (const char* name : {"initialDelaySeconds", "timeoutSeconds", "periodSeconds",
                           "successThreshold", "failureThreshold"}) {
    if (number(handler, name) < 0) {
      out->push_back(FieldError::invalid(at + "." + name, std::to_string(number(handler, name)),
                                         "must be greater than or equal to 0"));
    }
  }
}

void check_env(const json& container, const std::string& at, FieldErrors* out) {
  const json& env = list_of(container, "env");
  for (size_t i = 0; i < env.size(); ++i) {
    std::string where = fmt::format("{}.env[{}]", at, i);
    std::string name = text_at(env[i], "name");
    if (name.empty()) out->push_back(FieldError::required(where + ".name"));
    if (name.find('=') != std::string::npos) {
      out->push_back(FieldError::invalid(where + ".name", json(name).dump(),
                                         "a valid environment variable name must not contain '='"));
    }
    const json* from = find(env[i], "valueFrom");
    if (from == nullptr) continue;
    if (!text_at(env[i], "value").empty()) {
      out->push_back(FieldError::invalid(where + ".valueFrom", "\"\"",
                                         "may not be specified when `value` is not empty"));
    }
    if (from->size() != 1) {
      out->push_back(FieldError::invalid(where + ".valueFrom", "\"\"",
                                         "must specify one of: `fieldRef`, `resourceFieldRef`, "
                                         "`configMapKeyRef` or `secretKeyRef`"));
    }
  }
}

void check_ports(const json& container, const std::string& at, FieldErrors* out) {
  std::set<std::string> names;
  const json& ports = list_of(container, "ports");
  for (size_t i = 0; i < ports.size(); ++i) {
    std::string where = fmt::format("{}.ports[{}]", at, i);
    if (number(ports[i], "containerPort") == 0) {
      out->push_back(FieldError::required(where + ".containerPort"));
    } else {
      check_port(number(ports[i], "containerPort"), where + ".containerPort", out);
    }
    if (number(ports[i], "hostPort") != 0)
      check_port(number(ports[i], "hostPort"), where + ".hostPort", out);
    check_enum(ports[i], "protocol", where, {"SCTP", "TCP", "UDP"}, out);
    std::string name = text_at(ports[i], "name");
    if (name.size() > 15) {
      out->push_back(FieldError::invalid(where + ".name", json(name).dump(),
                                         "must be no more than 15 characters"));
    }
    if (!name.empty() && !names.insert(name).second) {
      out->push_back(FieldError::duplicate(where + ".name", json(name).dump()));
    }
  }
}

void check_mounts(const json& container, const std::string& at,
                  const std::set<std::string>& volumes, FieldErrors* out) {
  std::set<std::string> paths;
  const json& mounts = list_of(container, "volumeMounts");
  for (size_t i = 0; i < mounts.size(); ++i) {
    std::string where = fmt::format("{}.volumeMounts[{}]", at, i);
    std::string name = text_at(mounts[i], "name"), path = text_at(mounts[i], "mountPath");
    if (name.empty()) {
      out->push_back(FieldError::required(where + ".name"));
    } else if (!volumes.contains(name)) {
      out->push_back(
          {"FieldValueNotFound", where + ".name", fmt::format("Not found: {}", json(name).dump())});
    }
    if (path.empty()) {
      out->push_back(FieldError::required(where + ".mountPath"));
    } else if (!paths.insert(path).second) {
      out->push_back(
          FieldError::invalid(where + ".mountPath", json(path).dump(), "must be unique"));
    }
  }
}

void check_container(const json& container, const std::string& at, bool init,
                     const std::set<std::string>& volumes, std::set<std::string>* names,
                     FieldErrors* out) {
  std::string name = text_at(container, "name");
  if (name.empty()) {
    out->push_back(FieldError::required(at + ".name"));
  } else if (auto why = check_dns_label(name); !why.empty()) {
    out->push_back(FieldError::invalid(at + ".name", json(name).dump(), why));
  } else if (!names->insert(name).second) {
    out->push_back(FieldError::duplicate(at + ".name", json(name).dump()));
  }
  std::string image = text_at(container, "image");
  if (image.empty()) out->push_back(FieldError::required(at + ".image"));
  if (!image.empty() && (image.front() == ' ' || image.back() == ' ')) {
    out->push_back(FieldError::invalid(at + ".image", json(image).dump(),
                                       "must not have leading or trailing whitespace"));
  }
  check_enum(container, "imagePullPolicy", at, {"Always", "IfNotPresent", "Never"}, out);
  check_ports(container, at, out);
  check_env(container, at, out);
  check_mounts(container, at, volumes, out);
  check_resources(container, at, out);
  if (init) check_enum(container, "restartPolicy", at, {"Always"}, out);
  bool sidecar = init && text_at(container, "restartPolicy") == "Always";
  for (const char* probe : {"livenessProbe", "readinessProbe", "startupProbe"}) {
    const json* handler = find(container, probe);
    if (handler == nullptr) continue;
    std::string where = at + "." + probe;
    if (init && !sidecar) {
      out->push_back(FieldError::forbidden(
          where, "may not be set for init containers without restartPolicy=Always"));
      continue;
    }
    check_handler(*handler, where, true, out);
    if (probe[0] != 'r' && number(*handler, "successThreshold") != 1) {
      out->push_back(FieldError::invalid(where + ".successThreshold",
                                         std::to_string(number(*handler, "successThreshold")),
                                         "must be 1"));
    }
  }
  for (const char* hook : {"postStart", "preStop"}) {
    const json* handler = find(container, "lifecycle", hook);
    if (handler != nullptr)
      check_handler(*handler, fmt::format("{}.lifecycle.{}", at, hook), false, out);
  }
}

std::set<std::string> check_volumes(const json& spec, const std::string& at, FieldErrors* out) {
  std::set<std::string> names;
  const json& volumes = list_of(spec, "volumes");
  for (size_t i = 0; i < volumes.size(); ++i) {
    std::string where = fmt::format("{}.volumes[{}]", at, i);
    std::string name = text_at(volumes[i], "name");
    if (name.empty()) {
      out->push_back(FieldError::required(where + ".name"));
    } else if (auto why = check_dns_label(name); !why.empty()) {
      out->push_back(FieldError::invalid(where + ".name", json(name).dump(), why));
    } else if (!names.insert(name).second) {
      out->push_back(FieldError::duplicate(where + ".name", json(name).dump()));
    }
    if (volumes[i].size() > 2) {
      out->push_back(FieldError::forbidden(where, "may not specify more than 1 volume type"));
    }
    for (const auto& [source, field] :
         {std::pair("hostPath", "path"), std::pair("secret", "secretName"),
          std::pair("configMap", "name"), std::pair("persistentVolumeClaim", "claimName")}) {
      if (find(volumes[i], source) != nullptr && text_at(volumes[i], source, field).empty()) {
        out->push_back(FieldError::required(fmt::format("{}.{}.{}", where, source, field)));
      }
    }
  }
  return names;
}

}  // namespace

void validate_pod_spec(const json& spec, const std::string& at, FieldErrors* out) {
  if (list_of(spec, "containers").empty()) {
    out->push_back(FieldError::required(at + ".containers"));
    return;
  }
  std::set<std::string> names;
  std::set<std::string> volumes = check_volumes(spec, at, out);
  for (const char* list : {"initContainers", "containers"}) {
    const json& containers = list_of(spec, list);
    for (size_t i = 0; i < containers.size(); ++i) {
      check_container(containers[i], fmt::format("{}.{}[{}]", at, list, i), list[0] == 'i', volumes,
                      &names, out);
    }
  }
  check_enum(spec, "restartPolicy", at, {"Always", "OnFailure", "Never"}, out);
  check_enum(spec, "dnsPolicy", at, {"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"},
             out);
  check_enum(spec, "preemptionPolicy", at, {"Never", "PreemptLowerPriority"}, out);
  if (number(spec, "terminationGracePeriodSeconds") < 0) {
    out->push_back(
        FieldError::invalid(at + ".terminationGracePeriodSeconds",
                            std::to_string(number(spec, "terminationGracePeriodSeconds")),
                            "must be greater than or equal to 0"));
  }
  std::string node = text_at(spec, "nodeName");
  if (auto why = node.empty() ? std::string_view() : check_dns_subdomain(node); !why.empty()) {
    out->push_back(FieldError::invalid(at + ".nodeName", json(node).dump(), why));
  }
  const json& tolerations = list_of(spec, "tolerations");
  for (size_t i = 0; i < tolerations.size(); ++i) {
    std::string where = fmt::format("{}.tolerations[{}]", at, i);
    check_enum(tolerations[i], "operator", where, {"Equal", "Exists"}, out);
    check_enum(tolerations[i], "effect", where, {"NoSchedule", "PreferNoSchedule", "NoExecute"},
               out);
  }
}

void validate_pod(const json& object, FieldErrors* out) {
  const json* spec = find(object, "spec");
  static const json kNone = json::object();
  validate_pod_spec(spec != nullptr ? *spec : kNone, "spec", out);
}

}  // namespace edgemesh::cloud
