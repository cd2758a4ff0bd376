#include "cloud/kube_config.h"

#include <nlohmann/json.hpp>

#include "cloud/files.h"
#include "core/config/yaml_json.h"
#include "core/http/message.h"
#include "core/tls/x509.h"
#include "kube/json_util.h"
#include "kube/objects.h"

namespace edgemesh::cloud {

using kube::text_at;
using nlohmann::json;

namespace {

// The entry called `name` of a list like clusters or users; its member `inner`.
const json* entry(const json& root, const char* list, const std::string& name, const char* inner) {
  const json* all = kube::find(root, list);
  if (all == nullptr || !all->is_array()) return nullptr;
  for (const json& item : *all) {
    if (text_at(item, "name") == name) return kube::find(item, inner);
  }
  return nullptr;
}

std::string beside(const std::string& folder, const std::string& path) {
  return path.empty() || path[0] == '/' || folder.empty() ? path : folder + "/" + path;
}

// `<name>-data` (base64) goes before `<name>` (a file).
Result<std::string> inline_or_file(const json& from, const char* name, const std::string& folder) {
  std::string data = text_at(from, std::string(name) + "-data");
  if (!data.empty()) {
    auto decoded = tls::base64_decode(data);
    if (!decoded) return fail(decoded.error().with_context(std::string(name) + "-data"));
    return std::move(*decoded);
  }
  std::string path = text_at(from, name);
  if (path.empty()) return std::string();
  auto text = read_file(beside(folder, path));
  if (!text) return fail(text.error().with_context(name));
  return std::move(*text);
}

Result<> read_user(const json& user, const std::string& folder, KubeConfig* out) {
  for (const char* plugin : {"exec", "auth-provider"}) {
    if (kube::find(user, plugin) != nullptr) {
      return fail(ErrorCode::kInvalidArgument,
                  "the user logs in by '{}', which is not supported: use a token or a client "
                  "certificate",
                  plugin);
    }
  }
  EM_TRY(out->cert_pem, inline_or_file(user, "client-certificate", folder));
  EM_TRY(out->key_pem, inline_or_file(user, "client-key", folder));
  out->token = text_at(user, "token");
  out->token_file = beside(folder, text_at(user, "tokenFile"));
  if (out->cert_pem.empty() != out->key_pem.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "client-certificate and client-key must both be there, or neither");
  }
  return {};
}

}  // namespace

Result<KubeConfig> parse_kubeconfig(std::string_view text, const std::string& folder) {
  EM_TRY(std::string converted, config::yaml_to_json(text));
  EM_TRY(json root, kube::parse_json(converted));
  std::string context_name = text_at(root, "current-context");
  if (context_name.empty()) {
    return fail(ErrorCode::kInvalidArgument, "kubeconfig: current-context is not set");
  }
  const json* context = entry(root, "contexts", context_name, "context");
  if (context == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "kubeconfig: there is no context '{}'", context_name);
  }
  const json* cluster = entry(root, "clusters", text_at(*context, "cluster"), "cluster");
  if (cluster == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "kubeconfig: there is no cluster '{}'",
                text_at(*context, "cluster"));
  }
  KubeConfig out;
  out.server = text_at(*cluster, "server");
  while (out.server.ends_with("/")) out.server.pop_back();
  auto url = http::Url::parse(out.server);
  if (!url) return fail(url.error().with_context("kubeconfig: server"));
  out.tls_server_name = text_at(*cluster, "tls-server-name");
  if (const json* skip = kube::find(*cluster, "insecure-skip-tls-verify")) {
    out.insecure_skip_tls_verify = *skip == json(true);
  }
  EM_TRY(out.ca_pem, inline_or_file(*cluster, "certificate-authority", folder));
  const json* user = entry(root, "users", text_at(*context, "user"), "user");
  if (user != nullptr) EM_TRY_VOID(read_user(*user, folder, &out));
  return out;
}

Result<KubeConfig> load_kubeconfig(const std::string& path) {
  EM_TRY(std::string text, read_file(path));
  size_t slash = path.rfind('/');
  std::string folder = slash == std::string::npos ? "." : path.substr(0, slash);
  auto parsed = parse_kubeconfig(text, folder);
  if (!parsed) return fail(parsed.error().with_context(path));
  return parsed;
}

Result<KubeConfig> in_cluster_config(const std::string& host, const std::string& port) {
  const std::string folder = "/var/run/secrets/kubernetes.io/serviceaccount";
  KubeConfig out;
  out.server = fmt::format("https://{}:{}",
                           host.find(':') != std::string::npos ? "[" + host + "]" : host, port);
  out.token_file = folder + "/token";
  EM_TRY(out.ca_pem, read_file(folder + "/ca.crt"));
  EM_TRY(out.token, read_file(out.token_file));
  return out;
}

}  // namespace edgemesh::cloud
