#include "cloud/api/list_options.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cloud/api/list.h"
#include "kube/json_util.h"

namespace edgemesh::cloud {

using nlohmann::json;

namespace {

tl::unexpected<ApiError> bad_options(std::string_view why) {
  return refuse(ApiError::simple(422, "Invalid",
                                 fmt::format("ListOptions.meta.k8s.io \"\" is invalid: {}", why)));
}

ApiResult<void> check_match(const std::string& match, const std::string& version,
                            const std::string& token) {
  if (match.empty()) return {};
  if (match != "Exact" && match != "NotOlderThan") {
    return bad_options(
        fmt::format("resourceVersionMatch: Unsupported value: {}: supported values: \"Exact\", "
                    "\"NotOlderThan\"",
                    json(match).dump()));
  }
  if (version.empty()) {
    return bad_options(
        "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless "
        "resourceVersion is provided");
  }
  if (!token.empty()) {
    return bad_options(
        "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue "
        "is provided");
  }
  if (match == "Exact" && version == "0") {
    return bad_options(
        "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for "
        "resourceVersion \"0\"");
  }
  return {};
}

ApiError too_large(const ResourceInfo& resource, uint64_t wanted, uint64_t newest) {
  Error error{ErrorCode::kTimeout,
              fmt::format("Too large resource version: {}, current: {}", wanted, newest)};
  return ApiError::from_error(error, resource, "");
}

}  // namespace

ApiResult<Filter> filter_of(const http::Request& request, const ResourcePath& path,
                            const ResourceInfo& resource) {
  auto filter = make_filter(path.ns, request.query("labelSelector").value_or(""),
                            request.query("fieldSelector").value_or(""));
  if (!filter) return refuse(ApiError::bad_request(filter.error().message));
  for (const auto& term : filter->fields.terms()) {
    const auto& known = resource.fields;
    bool good = term.field == "metadata.name" ||
                (resource.type.namespaced && term.field == "metadata.namespace") ||
                std::find(known.begin(), known.end(), term.field) != known.end();
    if (good) continue;
    return refuse(ApiError::bad_request(
        fmt::format("field label not supported: {} (of {})", term.field, resource.type.plural)));
  }
  return std::move(*filter);
}

ApiResult<ListQuery> list_query(const http::Request& request, const ResourcePath& path,
                                const ResourceInfo& resource, uint64_t newest) {
  ListQuery out;
  auto filter = filter_of(request, path, resource);
  if (!filter) return refuse(filter.error());
  out.filter = std::move(*filter);
  auto version = version_option(request);
  if (!version) return refuse(version.error());
  std::string text = request.query("resourceVersion").value_or("");
  std::string match = request.query("resourceVersionMatch").value_or("");
  out.token = request.query("continue").value_or("");
  out.limit = std::max(0LL, std::atoll(request.query("limit").value_or("0").c_str()));
  if (request.query("sendInitialEvents")) {
    return bad_options("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list");
  }
  if (auto good = check_match(match, text, out.token); !good) return refuse(good.error());
  if (!out.token.empty() && *version != 0) {
    return refuse(
        ApiError::bad_request("specifying resource version is not allowed when using continue"));
  }
  if (*version > newest) return refuse(too_large(resource, *version, newest));
  // With a limit and without a word on it, a version is meant exactly.
  bool exact = match == "Exact" || (match.empty() && out.limit > 0 && *version > 0);
  if (exact) out.at = *version;
  return out;
}

ApiResult<WatchQuery> watch_query(const http::Request& request, const ResourcePath& path,
                                  const ResourceInfo& resource, uint64_t newest) {
  WatchQuery out;
  auto filter = filter_of(request, path, resource);
  if (!filter) return refuse(filter.error());
  out.filter = std::move(*filter);
  if (!path.name.empty()) {
    auto one = kube::FieldSelector::parse("metadata.name=" + path.name);
    if (one) out.filter.fields = std::move(*one);
  }
  auto version = version_option(request);
  if (!version) return refuse(version.error());
  out.from = *version;
  std::string match = request.query("resourceVersionMatch").value_or("");
  auto initial = request.query("sendInitialEvents");
  if (initial && match != "NotOlderThan") {
    return bad_options(
        "resourceVersionMatch: Forbidden: sendInitialEvents requires setting "
        "resourceVersionMatch to NotOlderThan");
  }
  if (!initial && !match.empty()) {
    return bad_options(
        "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch "
        "unless sendInitialEvents is provided");
  }
  if (out.from > newest) return refuse(too_large(resource, out.from, newest));
  out.initial_events = query_flag(request, "sendInitialEvents");
  if (out.initial_events) out.from = 0;
  if (initial && !out.initial_events && out.from == 0) out.from = newest;
  out.bookmarks = query_flag(request, "allowWatchBookmarks");
  constexpr int64_t kMaxSeconds = 24 * 3600;
  out.timeout_s = std::clamp<int64_t>(
      std::atoll(request.query("timeoutSeconds").value_or("0").c_str()), 0, kMaxSeconds);
  return out;
}

ApiResult<ApiCore::Deletion> deletion_options(const http::Request& request) {
  ApiCore::Deletion out;
  auto body = parse_body(request);
  if (!body) return refuse(body.error());
  out.propagation = request.query("propagationPolicy").value_or("");
  out.dry_run = request.query("dryRun").value_or("") == "All";
  std::string grace = request.query("gracePeriodSeconds").value_or("");
  if (!grace.empty()) out.grace_s = std::atoi(grace.c_str());
  if (body->is_object()) {
    if (auto given = kube::find(*body, "gracePeriodSeconds"); given && given->is_number_integer()) {
      out.grace_s = given->get<int>();
    }
    if (auto policy = kube::text_at(*body, "propagationPolicy"); !policy.empty()) {
      out.propagation = policy;
    }
    // The older form of the same.
    if (auto orphan = kube::find(*body, "orphanDependents"); orphan && orphan->is_boolean()) {
      out.propagation = orphan->get<bool>() ? "Orphan" : "Background";
    }
    out.uid = kube::text_at(*body, "preconditions", "uid");
    out.resource_version = kube::text_at(*body, "preconditions", "resourceVersion");
    if (auto dry = kube::find(*body, "dryRun"); dry && dry->is_array() && !dry->empty()) {
      out.dry_run = true;
    }
  }
  const std::string& policy = out.propagation;
  if (!policy.empty() && policy != "Background" && policy != "Foreground" && policy != "Orphan") {
    return refuse(ApiError::simple(
        422, "Invalid",
        fmt::format(
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported "
            "value: {}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
            json(policy).dump())));
  }
  return out;
}

}  // namespace edgemesh::cloud
