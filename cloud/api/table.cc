#include "cloud/api/table.h"

#include <nlohmann/json.hpp>

#include "cloud/api/json_path.h"
#include "cloud/api/table_columns.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

constexpr const char* kTableVersion = "meta.k8s.io/v1";

std::string trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return std::string(text);
}

json definitions(const std::vector<Column>& columns) {
  json out = json::array();
  for (const Column& column : columns) {
    out.push_back({{"name", column.name},
                   {"type", column.type},
                   {"format", std::string(column.name) == "Name" ? "name" : ""},
                   {"description", ""},
                   {"priority", column.wide ? 1 : 0}});
  }
  return out;
}

json custom_definitions(const ResourceInfo& resource) {
  json out = json::array();
  out.push_back({{"name", "Name"},
                 {"type", "string"},
                 {"format", "name"},
                 {"description", ""},
                 {"priority", 0}});
  for (const PrinterColumn& column : resource.columns) {
    out.push_back({{"name", column.name},
                   {"type", column.type},
                   {"format", ""},
                   {"description", ""},
                   {"priority", column.wide ? 1 : 0}});
  }
  return out;
}

json custom_cell(const PrinterColumn& column, const json& object,
                 std::chrono::system_clock::time_point now) {
  auto found = json_path(object, column.json_path);
  if (found.empty()) return nullptr;
  const json& value = *found[0];
  if (column.type == "date")
    return value.is_string() ? age_of(value.get<std::string>(), now) : "<invalid>";
  if (column.type != "string") return value.is_primitive() ? value : json(kube::to_text(value));
  if (found.size() == 1) return value.is_string() ? value : json(kube::to_text(value));
  std::string out;
  for (const json* one : found) {
    out += (out.empty() ? "" : ",") +
           (one->is_string() ? one->get<std::string>() : kube::to_text(*one));
  }
  return out;
}

json custom_cells(const ResourceInfo& resource, const json& object,
                  std::chrono::system_clock::time_point now) {
  json out = json::array({kube::text_at(object, "metadata", "name")});
  for (const PrinterColumn& column : resource.columns)
    out.push_back(custom_cell(column, object, now));
  return out;
}

json row_object(const StoredObject& stored, const json& object, IncludeObject include) {
  if (include == IncludeObject::kNone) return nullptr;
  if (include == IncludeObject::kObject) return object;
  static_cast<void>(stored);
  json meta = object.value("metadata", json::object());
  return {{"kind", "PartialObjectMetadata"}, {"apiVersion", kTableVersion}, {"metadata", meta}};
}

}  // namespace

bool wants_table(std::string_view accept) {
  while (!accept.empty()) {
    size_t comma = accept.find(',');
    std::string item = trim(accept.substr(0, comma));
    accept = comma == std::string_view::npos ? std::string_view() : accept.substr(comma + 1);
    bool is_json = item.starts_with("application/json");
    if (is_json && item.find("as=Table") != std::string::npos &&
        item.find("g=meta.k8s.io") != std::string::npos) {
      return item.find("v=v1;") != std::string::npos || item.ends_with("v=v1");
    }
    if (item == "application/json" || item == "*/*") return false;
  }
  return false;
}

IncludeObject parse_include_object(std::string_view text) {
  if (text == "None") return IncludeObject::kNone;
  if (text == "Object") return IncludeObject::kObject;
  return IncludeObject::kMetadata;
}

std::string short_duration(std::chrono::seconds age) {
  int64_t s = age.count();
  if (s < 0) return "0s";
  constexpr int64_t kMinute = 60, kHour = 3600, kDay = 86400, kYear = 365 * kDay;
  auto pair = [](int64_t big, const char* big_unit, int64_t small, const char* small_unit) {
    return small == 0 ? fmt::format("{}{}", big, big_unit)
                      : fmt::format("{}{}{}{}", big, big_unit, small, small_unit);
  };
  if (s < 2 * kMinute) return fmt::format("{}s", s);
  if (s < 10 * kMinute) return pair(s / kMinute, "m", s % kMinute, "s");
  if (s < 3 * kHour) return fmt::format("{}m", s / kMinute);
  if (s < 8 * kHour) return pair(s / kHour, "h", s % kHour / kMinute, "m");
  if (s < 2 * kDay) return fmt::format("{}h", s / kHour);
  if (s < 8 * kDay) return pair(s / kDay, "d", s % kDay / kHour, "h");
  if (s < 2 * kYear) return fmt::format("{}d", s / kDay);
  if (s < 8 * kYear) return pair(s / kYear, "y", s % kYear / kDay, "d");
  return fmt::format("{}y", s / kYear);
}

std::string age_of(const std::string& stamp, std::chrono::system_clock::time_point now) {
  const auto then = kube::parse_rfc3339(stamp);
  if (!then) return "<unknown>";
  return short_duration(std::chrono::duration_cast<std::chrono::seconds>(now - *then));
}

std::string between(const std::string& from, const std::string& to) {
  const auto end = kube::parse_rfc3339(to);
  return end ? age_of(from, *end) : "<unknown>";
}

std::string table_text(const ResourceInfo& resource, const std::vector<ObjectPtr>& objects,
                       const TableParams& params) {
  const TableKind& kind = table_kind(resource.type.kind);
  json rows = json::array();
  for (const ObjectPtr& stored : objects) {
    auto object = kube::parse_json(stored->text);
    if (!object) continue;
    rows.push_back({{"cells", resource.custom ? custom_cells(resource, *object, params.now)
                                              : kind.cells(*object, params.now)},
                    {"object", row_object(*stored, *object, params.include)}});
  }
  json meta = {{"resourceVersion", std::to_string(params.version)}};
  if (!params.continue_token.empty()) meta["continue"] = params.continue_token;
  if (params.remaining >= 0) meta["remainingItemCount"] = params.remaining;
  return kube::to_text({{"kind", "Table"},
                        {"apiVersion", kTableVersion},
                        {"metadata", std::move(meta)},
                        {"columnDefinitions", resource.custom ? custom_definitions(resource)
                                                              : definitions(kind.columns)},
                        {"rows", std::move(rows)}});
}

}  // namespace edgemesh::cloud
