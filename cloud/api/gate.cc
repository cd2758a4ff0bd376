#include "cloud/api/gate.h"

#include <fmt/format.h>

#include "kube/selector.h"

namespace edgemesh::cloud {

namespace {

constexpr std::string_view kUserField = "Impersonate-User";
constexpr std::string_view kGroupField = "Impersonate-Group";
constexpr std::string_view kUidField = "Impersonate-Uid";
constexpr std::string_view kExtraPrefix = "Impersonate-Extra-";

std::string lower(std::string_view text) {
  std::string out;
  for (char c : text) out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return out;
}

bool is_field(std::string_view name, std::string_view wanted) {
  return http::equals_ignore_case(name, wanted);
}

// Whom the fields of the request name. True: any of them is there.
bool read_impersonation(const http::Request& request, ApiUser* out) {
  bool any = false;
  for (const auto& [name, value] : request.headers) {
    if (name.size() < kUserField.size() - 4 || !is_field(name.substr(0, 12), "Impersonate-"))
      continue;
    if (is_field(name, kUserField)) {
      out->name = value;
    } else if (is_field(name, kGroupField)) {
      out->groups.push_back(value);
    } else if (is_field(name, kUidField)) {
      out->uid = value;
    } else if (is_field(name.substr(0, kExtraPrefix.size()), kExtraPrefix)) {
      const std::string key = lower(name.substr(kExtraPrefix.size()));
      out->extra[http::percent_decode(key).value_or(key)].push_back(value);
    } else {
      continue;
    }
    any = true;
  }
  return any;
}

// What everyone of that kind is in.
void add_usual_groups(ApiUser* user) {
  if (user->groups.empty()) {
    if (auto account = service_account_of(user->name)) {
      user->groups = service_account_groups(account->first);
    }
  }
  const bool anonymous = user->name == kAnonymousUser;
  const std::string_view usual = anonymous ? kUnauthenticatedGroup : kAuthenticatedGroup;
  if (!user->in_group(usual) && !user->in_group(kUnauthenticatedGroup)) {
    user->groups.emplace_back(usual);
  }
}

std::string field_value(const http::Request& request, std::string_view field) {
  auto selector = kube::FieldSelector::parse(request.query("fieldSelector").value_or(""));
  if (!selector) return {};
  for (const auto& term : selector->terms()) {
    if (term.field == field && term.equal) return term.value;
  }
  return {};
}

}  // namespace

ApiResult<Caller> Gate::identify(const http::Request& request) const {
  auto user = authenticator_->authenticate(request);
  if (!user) return refuse(ApiError::simple(401, "Unauthorized", "Unauthorized"));
  Caller out{std::move(*user), nullptr};
  ApiUser wanted;
  if (!read_impersonation(request, &wanted)) return out;
  if (wanted.name.empty()) {
    return refuse(ApiError::bad_request(
        "groups, a uid or extra fields to impersonate, but no user (Impersonate-User)"));
  }
  if (auto good = check_impersonation(out.user, wanted); !good) return refuse(good.error());
  add_usual_groups(&wanted);
  out.real = std::make_shared<const ApiUser>(std::exchange(out.user, std::move(wanted)));
  return out;
}

ApiResult<void> Gate::check_impersonation(const ApiUser& real, const ApiUser& wanted) const {
  ApiAttributes what;
  what.verb = "impersonate";
  what.version = "v1";
  what.resource = "users";
  what.name = wanted.name;
  if (auto account = service_account_of(wanted.name)) {
    what.resource = "serviceaccounts";
    what.ns = account->first;
    what.name = account->second;
  }
  if (auto good = check(real, what); !good) return good;
  what.ns.clear();
  what.resource = "groups";
  for (const std::string& group : wanted.groups) {
    what.name = group;
    if (auto good = check(real, what); !good) return good;
  }
  what.group = "authentication.k8s.io";
  if (!wanted.uid.empty()) {
    what.resource = "uids";
    what.name = wanted.uid;
    if (auto good = check(real, what); !good) return good;
  }
  what.resource = "userextras";
  for (const auto& [key, values] : wanted.extra) {
    what.subresource = key;
    for (const std::string& value : values) {
      what.name = value;
      if (auto good = check(real, what); !good) return good;
    }
  }
  return {};
}

ApiResult<void> Gate::check(const ApiUser& user, const ApiAttributes& what,
                            std::string* reason) const {
  if (authorizer_->allows(user, what, reason)) return {};
  std::string own;
  if (reason == nullptr) authorizer_->allows(user, what, reason = &own);
  return refuse(forbidden_error(user, what, *reason));
}

ApiAttributes attributes_of(const http::Request& request, const ResourcePath* path,
                            const std::string& verb) {
  ApiAttributes what;
  what.verb = verb;
  if (path == nullptr) {
    what.path = request.path();
    return what;
  }
  what.group = path->group;
  what.version = path->version;
  what.resource = path->resource;
  what.subresource = path->subresource;
  what.ns = path->ns;
  what.name = path->name;
  const bool many = verb == "list" || verb == "watch" || verb == "deletecollection";
  if (many && what.name.empty() && !request.raw_query().empty()) {
    what.name = field_value(request, "metadata.name");
    if (what.resource == "pods") what.node_name = field_value(request, "spec.nodeName");
  }
  return what;
}

ApiError forbidden_error(const ApiUser& user, const ApiAttributes& what,
                         const std::string& reason) {
  ApiError error = ApiError::simple(403, "Forbidden", "");
  const std::string why = reason.empty() ? "" : ": " + reason;
  if (what.resource.empty()) {
    error.message = fmt::format("forbidden: User \"{}\" cannot {} path \"{}\"{}", user.name,
                                what.verb, what.path, why);
    return error;
  }
  const std::string below = what.subresource.empty() ? "" : "/" + what.subresource;
  error.message = fmt::format(
      "{}{}{} is forbidden: User \"{}\" cannot {} resource \"{}{}\" in API group \"{}\"{}{}",
      what.resource, what.group.empty() ? "" : "." + what.group,
      what.name.empty() ? "" : " \"" + what.name + "\"", user.name, what.verb, what.resource, below,
      what.group,
      what.ns.empty() ? " at the cluster scope" : " in the namespace \"" + what.ns + "\"", why);
  error.name = what.name;
  error.group = what.group;
  error.kind = what.resource;
  return error;
}

}  // namespace edgemesh::cloud
