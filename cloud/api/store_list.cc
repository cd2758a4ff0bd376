// Lists of ApiStore: pages of one version, rebuilt from the history when the store has moved on.
#include <charconv>

#include "cloud/api/store.h"

namespace edgemesh::cloud {

namespace {

// "<version>/<key of the last item>"; opaque to clients.
std::string make_token(uint64_t version, std::string_view key) {
  return fmt::format("{}/{}", version, key);
}

Result<> parse_token(std::string_view token, uint64_t* version, std::string* key) {
  size_t slash = token.find('/');
  auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), *version);
  if (slash == std::string_view::npos || error != std::errc() || end != token.data() + slash ||
      *version == 0) {
    return fail(ErrorCode::kInvalidArgument, "continue key is not valid: '{}'",
                token.substr(0, 80));
  }
  *key = token.substr(slash + 1);
  return {};
}

}  // namespace

Result<std::map<std::string, ObjectPtr, std::less<>>> ApiStore::changed_since(
    const Table& of, uint64_t version) const {
  if (version < of.floor) {
    return fail(ErrorCode::kGone,
                "The provided continue parameter is too old to display a consistent list result. "
                "Start a new list without the continue parameter.");
  }
  std::map<std::string, ObjectPtr, std::less<>> then;
  for (auto it = of.history.rbegin(); it != of.history.rend(); ++it) {
    if (it->version <= version) break;
    if (it->collapsed) {
      return fail(ErrorCode::kGone, "version {} is not held any more: start a new list", version);
    }
    then[kube::object_key(it->object->ns, it->object->name)] = it->previous;
  }
  return then;
}

Result<ListResult> ApiStore::list(const ResourceInfo& resource, const Filter& filter, int64_t limit,
                                  std::string_view token, uint64_t at) const {
  ListResult out;
  std::string after;
  if (!token.empty()) EM_TRY_VOID(parse_token(token, &at, &after));
  out.version = at == 0 ? version_ : at;
  if (out.version > version_) {
    return fail(ErrorCode::kTimeout, "Too large resource version: {}, current: {}", out.version,
                version_);
  }
  const Table* of = find_table(resource);
  if (of == nullptr) return out;

  std::map<std::string, ObjectPtr, std::less<>> then;
  if (out.version < version_) {
    EM_TRY(then, changed_since(*of, out.version));
  }

  // The keys of one namespace are together: "ns/...".
  std::string prefix = filter.ns.empty() ? std::string() : filter.ns + "/";
  bool counted = filter.labels.empty() && filter.fields.empty();
  std::string last;
  int64_t remaining = 0;
  auto take = [&](const std::string& key, const ObjectPtr& object) {
    if (object == nullptr || !filter.matches(*object)) return true;
    if (limit > 0 && static_cast<int64_t>(out.items.size()) == limit) {
      if (remaining++ == 0) out.continue_token = make_token(out.version, last);
      return counted;  // go on only for counting
    }
    out.items.push_back(object);
    last = key;
    return true;
  };
  auto now = after.empty() ? of->objects.lower_bound(prefix) : of->objects.upper_bound(after);
  auto old = after.empty() ? then.lower_bound(prefix) : then.upper_bound(after);
  while (now != of->objects.end() || old != then.end()) {
    bool take_old = old != then.end() && (now == of->objects.end() || old->first <= now->first);
    const std::string& key = take_old ? old->first : now->first;
    if (!prefix.empty() && !key.starts_with(prefix)) break;
    if (!take(key, take_old ? old->second : now->second)) break;
    if (take_old && now != of->objects.end() && now->first == key) ++now;
    if (take_old) {
      ++old;
    } else {
      ++now;
    }
  }
  if (remaining > 0 && counted) out.remaining = remaining;
  return out;
}

}  // namespace edgemesh::cloud
