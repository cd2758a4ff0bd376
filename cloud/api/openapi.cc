// OpenAPI v3: enough for kubectl to send JSON, to leave validation to the server and to explain.
#include <nlohmann/json.hpp>

#include "cloud/api/discovery.h"
#include "cloud/api/schema.h"
#include "core/base/version.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

json operation(const ResourceInfo& resource, const char* action, const json& schema) {
  json gvk = {{"group", resource.type.group},
              {"version", resource.type.version},
              {"kind", resource.type.kind}};
  json content = {{"application/json", {{"schema", schema}}}};
  json out = {{"x-kubernetes-action", action},
              {"x-kubernetes-group-version-kind", gvk},
              {"responses", {{"200", {{"description", "OK"}, {"content", content}}}}}};
  return out;
}

json parameter(const char* name) {
  return {{"name", name}, {"in", "query"}, {"schema", {{"type", "string"}}}};
}

json with_write_options(json op) {
  op["parameters"] =
      json::array({parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")});
  return op;
}

}  // namespace

std::string openapi_v3(const ResourceRegistry& registry, std::string_view group,
                       std::string_view version) {
  json paths = json::object();
  json schemas = json::object();
  for (const auto& info : registry.all()) {
    if (!info->served || info->computed || info->type.group != group || info->type.version != version) continue;
    add_schemas(*info, &schemas);
    json schema = {{"$ref", "#/components/schemas/" + schema_name(*info)}};
    std::string ns = info->type.namespaced ? "{namespace}" : "";
    paths[info->type.path(ns)] = {{"get", operation(*info, "list", schema)},
                                  {"post", with_write_options(operation(*info, "post", schema))}};
    paths[info->type.path(ns, "{name}")] = {
        {"get", operation(*info, "get", schema)},
        {"put", with_write_options(operation(*info, "put", schema))},
        {"patch", with_write_options(operation(*info, "patch", schema))},
        {"delete", operation(*info, "delete", schema)}};
  }
  return kube::to_text({{"openapi", "3.0.0"},
                        {"info", {{"title", "EdgeMesh Kubernetes API"}, {"version", kVersion}}},
                        {"paths", std::move(paths)},
                        {"components", {{"schemas", std::move(schemas)}}}});
}

}  // namespace edgemesh::cloud
