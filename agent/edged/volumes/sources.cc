#include "agent/edged/volumes/sources.h"

#include <algorithm>
#include <array>

#include "agent/edged/spec/security.h"
#include "core/base/log.h"
#include "core/tls/x509.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;

constexpr std::array kKinds{"configMap", "secret", "downwardAPI", "projected"};
constexpr size_t kMostBytes = 16 << 20;  // of all files of a volume
constexpr int64_t kTokenSeconds = 3600;

mode_t mode_at(const Json& object, const char* key, mode_t otherwise) {
  const Json* value = kube::find(object, key);
  return value != nullptr && value->is_number_integer()
             ? static_cast<mode_t>(value->get<int64_t>() & 0777)
             : otherwise;
}

int64_t seconds_at(const Json& object, const char* key, int64_t otherwise) {
  const Json* value = kube::find(object, key);
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : otherwise;
}

Result<> add(Files& files, const std::string& path, std::string bytes, mode_t mode) {
  if (!inner_path(path))
    return fail(ErrorCode::kInvalidArgument, "\"{}\" is no path inside of a volume", path);
  files[path] = {std::move(bytes), mode};
  size_t all = 0;
  for (const auto& [name, file] : files) all += file.bytes.size();
  if (all > kMostBytes)
    return fail(ErrorCode::kResourceExhausted, "a volume of more than {} bytes", kMostBytes);
  return {};
}

// All keys of a config map or secret, decoded.
Result<std::map<std::string, std::string>> keys_of(const Json& object, bool secret) {
  std::map<std::string, std::string> out;
  for (const char* part : {"data", "binaryData"}) {
    const Json* data = kube::find(object, part);
    if (data == nullptr || !data->is_object()) continue;
    const bool encoded = secret || std::string_view(part) == "binaryData";
    for (const auto& [key, value] : data->items()) {
      if (!value.is_string()) continue;
      const auto& text = value.get_ref<const std::string&>();
      if (!encoded) {
        out[key] = text;
        continue;
      }
      auto bytes = tls::base64_decode(text);
      if (!bytes) return fail(ErrorCode::kInvalidArgument, "key {} is no base64", key);
      out[key] = std::move(*bytes);
    }
  }
  return out;
}

Result<> add_object(const FileSources& from, const Json& ref, bool secret, mode_t mode,
                    Files& files) {
  std::string name = kube::text_at(ref, "name");
  if (name.empty()) name = kube::text_at(ref, "secretName");
  const bool optional = flag_of(kube::find(ref, "optional"));
  const char* kind = secret ? "secret" : "configmap";
  auto object = from.objects.get(kind, from.pod.ns, name);
  if (!object) {
    if (object.error().code != ErrorCode::kNotFound) return fail(object.error());
    if (optional) return {};
    return fail(ErrorCode::kNotFound, "{} \"{}\" not found", kind, name);
  }
  EM_TRY(auto keys, keys_of(*object, secret));
  const Json* items = kube::find(ref, "items");
  if (items == nullptr || !items->is_array()) {
    for (auto& [key, bytes] : keys) EM_TRY_VOID(add(files, key, std::move(bytes), mode));
    return {};
  }
  for (const Json& item : *items) {
    const std::string key = kube::text_at(item, "key");
    const auto it = keys.find(key);
    if (it == keys.end()) {
      if (optional) continue;
      return fail(ErrorCode::kNotFound, "{} \"{}\" has no key {}", kind, name, key);
    }
    EM_TRY_VOID(add(files, kube::text_at(item, "path"), it->second, mode_at(item, "mode", mode)));
  }
  return {};
}

Result<> add_fields(const FileSources& from, const Json& ref, mode_t mode, Files& files) {
  const Json* items = kube::find(ref, "items");
  if (items == nullptr || !items->is_array()) return {};
  for (const Json& item : *items) {
    std::string text;
    if (const Json* field = kube::find(item, "fieldRef")) {
      EM_TRY(text, field_value(from.pod, kube::text_at(*field, "fieldPath"), from.fields));
    } else if (const Json* resource = kube::find(item, "resourceFieldRef")) {
      EM_TRY(text, resource_value(from.pod, *resource, nullptr, from.fields));
    }
    EM_TRY_VOID(
        add(files, kube::text_at(item, "path"), std::move(text), mode_at(item, "mode", mode)));
  }
  return {};
}

Result<> add_token(const FileSources& from, const Json& ref, mode_t mode, Files& files) {
  if (from.tokens == nullptr) {
    EM_LOG(kWarn, "edged", "pod {}/{} runs without the token of its service account", from.pod.ns,
           from.pod.name);
    return {};
  }
  EM_TRY(auto token, from.tokens->token(from.pod, kube::text_at(ref, "audience"),
                                        seconds_at(ref, "expirationSeconds", kTokenSeconds)));
  return add(files, kube::text_at(ref, "path"), std::move(token), mode);
}

Result<> add_source(const FileSources& from, const Json& source, mode_t mode, Files& files) {
  if (const Json* ref = kube::find(source, "configMap"))
    return add_object(from, *ref, false, mode, files);
  if (const Json* ref = kube::find(source, "secret"))
    return add_object(from, *ref, true, mode, files);
  if (const Json* ref = kube::find(source, "downwardAPI"))
    return add_fields(from, *ref, mode, files);
  if (const Json* ref = kube::find(source, "serviceAccountToken"))
    return add_token(from, *ref, mode, files);
  return fail(ErrorCode::kInvalidArgument, "projected: a source of a kind that is not known");
}

Result<Files> collect(const FileSources& from, const Json& volume, const char* kind) {
  const Json& own = *kube::find(volume, kind);
  const mode_t mode = mode_at(own, "defaultMode", 0644);
  Files files;
  if (std::string_view(kind) != "projected") {
    EM_TRY_VOID(add_source(from, volume, mode, files));
    return files;
  }
  const Json* sources = kube::find(own, "sources");
  if (sources == nullptr || !sources->is_array()) return files;
  for (const Json& source : *sources) EM_TRY_VOID(add_source(from, source, mode, files));
  return files;
}

template <class Fn>
bool any_source(const Json& volume, Fn fn) {
  if (fn(volume)) return true;
  const Json* sources = kube::find(volume, "projected", "sources");
  if (sources == nullptr || !sources->is_array()) return false;
  for (const Json& source : *sources) {
    if (fn(source)) return true;
  }
  return false;
}

}  // namespace

bool follows_source(const Json& volume) {
  return std::any_of(kKinds.begin(), kKinds.end(),
                     [&](const char* kind) { return kube::find(volume, kind) != nullptr; });
}

std::optional<Result<Files>> files_of(const FileSources& from, const Json& volume) {
  for (const char* kind : kKinds) {
    if (kube::find(volume, kind) != nullptr) return collect(from, volume, kind);
  }
  return std::nullopt;
}

bool holds_secrets(const Json& volume) {
  return any_source(volume, [](const Json& source) {
    return kube::find(source, "secret") != nullptr ||
           kube::find(source, "serviceAccountToken") != nullptr;
  });
}

bool holds_token(const Json& volume) {
  return any_source(volume, [](const Json& source) {
    return kube::find(source, "serviceAccountToken") != nullptr;
  });
}

bool refers_to(const Json& volume, const std::string& kind, const std::string& name) {
  return any_source(volume, [&](const Json& source) {
    const Json* ref = kube::find(source, kind == "secret" ? "secret" : "configMap");
    return ref != nullptr &&
           (kube::text_at(*ref, "name") == name || kube::text_at(*ref, "secretName") == name);
  });
}

}  // namespace edgemesh::edged
