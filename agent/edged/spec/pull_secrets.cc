#include "agent/edged/spec/pull_secrets.h"

#include <nlohmann/json.hpp>

#include "core/tls/x509.h"
#include "kube/json_util.h"

namespace edgemesh::edged {
namespace {

using Json = nlohmann::json;
using ::runtime::v1::AuthConfig;

// Keys are written as hosts, as URLs, and for the hub in several ways.
std::string host_of(std::string key) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (key.starts_with(scheme)) key.erase(0, scheme.size());
  }
  key = key.substr(0, key.find('/'));
  return key == "index.docker.io" || key == "registry-1.docker.io" ? "docker.io" : key;
}

AuthConfig login_of(const Json& entry) {
  AuthConfig out;
  out.set_username(kube::text_at(entry, "username"));
  out.set_password(kube::text_at(entry, "password"));
  out.set_identity_token(kube::text_at(entry, "identitytoken"));
  const std::string both = kube::text_at(entry, "auth");
  if (!out.username().empty() || both.empty()) return out;
  auto text = tls::base64_decode(both);
  const size_t colon = text ? text->find(':') : std::string::npos;
  if (colon == std::string::npos) return out;
  out.set_username(text->substr(0, colon));
  out.set_password(text->substr(colon + 1));
  return out;
}

}  // namespace

std::string registry_of(std::string_view image) {
  const size_t slash = image.find('/');
  if (slash == std::string_view::npos) return "docker.io";
  const std::string first(image.substr(0, slash));
  // A host is told from a folder of the hub by a dot or a port.
  const bool host = first.find_first_of(".:") != std::string::npos || first == "localhost";
  return host ? host_of(first) : "docker.io";
}

std::string full_image_name(std::string_view image) {
  const std::string host = registry_of(image);
  std::string rest(image);
  const size_t slash = image.find('/');
  const bool has_host = slash != std::string_view::npos && host_of(rest) == host &&
                        rest.substr(0, slash).find_first_of(".:") != std::string::npos;
  if (has_host || rest.starts_with("localhost/")) rest.erase(0, slash + 1);
  if (host == "docker.io" && rest.find('/') == std::string::npos) rest = "library/" + rest;
  const size_t name = rest.rfind('/') == std::string::npos ? 0 : rest.rfind('/');
  const bool marked =
      rest.find(':', name) != std::string::npos || rest.find('@') != std::string::npos;
  return host + "/" + rest + (marked ? "" : ":latest");
}

std::vector<AuthConfig> logins_in(const Json& secret, std::string_view image) {
  std::vector<AuthConfig> out;
  const std::string registry = registry_of(image);
  for (const char* key : {".dockerconfigjson", ".dockercfg"}) {
    const Json* data = kube::find(secret, "data", key);
    if (data == nullptr || !data->is_string()) continue;
    auto text = tls::base64_decode(data->get_ref<const std::string&>());
    if (!text) continue;
    const Json config = Json::parse(*text, nullptr, false);
    const Json* auths = kube::find(config, "auths");
    if (auths == nullptr) auths = &config;
    if (!auths->is_object()) continue;
    for (const auto& [host, entry] : auths->items()) {
      if (host_of(host) != registry) continue;
      AuthConfig login = login_of(entry);
      if (!login.username().empty() || !login.identity_token().empty())
        out.push_back(std::move(login));
    }
  }
  return out;
}

}  // namespace edgemesh::edged
