#include "cloud/api/request.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "core/config/yaml_json.h"
#include "kube/objects.h"
#include "kube/protobuf.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

std::vector<std::string> segments(std::string_view path) {
  std::vector<std::string> out;
  while (!path.empty()) {
    size_t slash = path.find('/');
    if (slash != 0) out.emplace_back(path.substr(0, slash));
    if (slash == std::string_view::npos) break;
    path.remove_prefix(slash + 1);
  }
  return out;
}

// "application/json; charset=utf-8" -> "application/json"
std::string media_type(const http::Request& request) {
  std::string_view type = request.headers.get_or("Content-Type", "");
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  return std::string(type);
}

ApiError unsupported_media(const std::string& type, std::string_view accepted) {
  return ApiError::simple(
      415, "UnsupportedMediaType",
      fmt::format("the body of the request was in an unknown format ({}) - accepted media types "
                  "include: {}",
                  type, accepted));
}

// Listens to the parser for names that come again.
class DuplicateFinder final : public json::json_sax_t {
 public:
  std::vector<std::string> found;

  bool null() override { return leave_value(); }
  bool boolean(bool) override { return leave_value(); }
  bool number_integer(number_integer_t) override { return leave_value(); }
  bool number_unsigned(number_unsigned_t) override { return leave_value(); }
  bool number_float(number_float_t, const string_t&) override { return leave_value(); }
  bool string(string_t&) override { return leave_value(); }
  bool binary(binary_t&) override { return leave_value(); }
  bool start_object(std::size_t) override {
    levels_.push_back({{}, {}, false});
    return true;
  }
  bool end_object() override { return leave(); }
  bool start_array(std::size_t) override {
    levels_.push_back({{}, "0", true});
    return true;
  }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    Level& level = levels_.back();
    level.at = name;
    if (!level.seen.insert(name).second && found.size() < kMaxShown) found.push_back(path());
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception&) override {
    return false;
  }

 private:
  static constexpr size_t kMaxShown = 10;
  struct Level {
    std::set<std::string> seen;
    std::string at;  // member or index
    bool list = false;
    size_t index = 0;
  };
  bool leave_value() {
    if (!levels_.empty() && levels_.back().list)
      levels_.back().at = std::to_string(++levels_.back().index);
    return true;
  }
  bool leave() {
    levels_.pop_back();
    return leave_value();
  }
  std::string path() const {
    std::string out;
    for (const Level& level : levels_) {
      if (level.list) {
        out += "[" + level.at + "]";
      } else {
        out += (out.empty() ? "" : ".") + level.at;
      }
    }
    return out;
  }
  std::vector<Level> levels_;
};

}  // namespace

std::vector<std::string> duplicate_fields(const http::Request& request) {
  DuplicateFinder finder;
  // Only what was parsed before comes here: its depth is limited.
  if (!request.body.empty() && request.body.front() == '{') json::sax_parse(request.body, &finder);
  return std::move(finder.found);
}

std::optional<ResourcePath> parse_resource_path(std::string_view path) {
  auto parts = segments(path);
  ResourcePath out;
  size_t at = 0;
  if (parts.size() > 2 && parts[0] == "api") {
    out.version = parts[1];
    at = 2;
  } else if (parts.size() > 3 && parts[0] == "apis") {
    out.group = parts[1];
    out.version = parts[2];
    at = 3;
  } else {
    return std::nullopt;
  }
  // "namespaces/x" is the namespace itself, "namespaces/x/status" its status; anything longer or
  // another word there is a resource within it.
  bool inside = parts[at] == "namespaces" && parts.size() > at + 2;
  if (inside && parts.size() == at + 3 &&
      (parts[at + 2] == "status" || parts[at + 2] == "finalize")) {
    inside = false;
  }
  if (inside) {
    out.ns = parts[at + 1];
    at += 2;
  }
  out.resource = parts[at];
  if (parts.size() > at + 1) out.name = parts[at + 1];
  if (parts.size() > at + 2) out.subresource = parts[at + 2];
  for (size_t i = at + 3; i < parts.size(); ++i) out.subresource += "/" + parts[i];
  return out;
}

std::string verb_of(const http::Request& request, const ResourcePath& path) {
  bool one = !path.name.empty();
  if (request.method == "GET" || request.method == "HEAD") {
    if (query_flag(request, "watch")) return "watch";
    return one ? "get" : "list";
  }
  if (request.method == "POST") return one && path.subresource.empty() ? "" : "create";
  if (request.method == "PUT") return one ? "update" : "";
  if (request.method == "PATCH") return one ? "patch" : "";
  if (request.method == "DELETE") return one ? "delete" : "deletecollection";
  return "";
}

bool query_flag(const http::Request& request, std::string_view name) {
  auto value = request.query(name);
  return value && (*value == "true" || *value == "1");
}

kube::WriteOptions write_options(const http::Request& request, const ResourcePath& path) {
  kube::WriteOptions out;
  out.subresource = path.subresource;
  out.dry_run = request.query("dryRun").value_or("") == "All";
  out.force = query_flag(request, "force");
  out.field_manager = request.query("fieldManager").value_or("");
  bool applies = media_type(request).starts_with("application/apply-patch");
  if (out.field_manager.empty() && !applies) {
    std::string_view agent = request.headers.get_or("User-Agent", "unknown");
    out.field_manager = std::string(agent.substr(0, agent.find('/')));
  }
  return out;
}

ApiResult<json> parse_body(const http::Request& request) {
  if (request.body.empty()) return json();
  std::string type = media_type(request);
  if (type == "application/cbor") {
    return refuse(unsupported_media(
        type, "application/json, application/yaml, application/vnd.kubernetes.protobuf"));
  }
  if (type == kube::kProtobufMedia) {
    auto decoded = kube::decode_protobuf(request.body);
    if (!decoded) return refuse(ApiError::bad_request(decoded.error().message));
    return std::move(*decoded);
  }
  std::string text;
  bool yaml = type.find("yaml") != std::string::npos && request.body.front() != '{';
  if (yaml) {
    auto converted = config::yaml_to_json(request.body);
    if (!converted) return refuse(ApiError::bad_request(converted.error().message));
    text = std::move(*converted);
  }
  auto parsed = kube::parse_json(yaml ? text : request.body);
  if (!parsed) {
    return refuse(
        ApiError::bad_request("the body of the request is not valid: " + parsed.error().message));
  }
  return std::move(*parsed);
}

ApiResult<kube::PatchKind> patch_kind(const http::Request& request) {
  std::string type = media_type(request);
  if (type == "application/merge-patch+json") return kube::PatchKind::kMerge;
  if (type == "application/strategic-merge-patch+json") return kube::PatchKind::kStrategic;
  if (type == "application/json-patch+json") return kube::PatchKind::kJson;
  if (type == "application/apply-patch+yaml") return kube::PatchKind::kApply;
  return refuse(
      unsupported_media(type,
                        "application/json-patch+json, application/merge-patch+json, "
                        "application/strategic-merge-patch+json, application/apply-patch+yaml"));
}

ApiResult<uint64_t> version_option(const http::Request& request) {
  std::string text = request.query("resourceVersion").value_or("");
  if (text.empty()) return uint64_t{0};
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return refuse(ApiError::bad_request(
        fmt::format("resourceVersion: Invalid value: \"{}\": want a number", text)));
  }
  return value;
}

}  // namespace edgemesh::cloud
