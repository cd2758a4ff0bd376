#include "cloud/api/service_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/tls/x509.h"
#include "kube/json_util.h"
#include "kube/objects.h"
#include "kube/time.h"

namespace edgemesh::cloud {

using kube::find;
using kube::text_at;
using nlohmann::json;

namespace {

constexpr int64_t kUsualSeconds = 3600;
constexpr int64_t kLeastSeconds = 600;
constexpr int64_t kMostSeconds = int64_t{1} << 32;
constexpr int64_t kSkewSeconds = 60;  // a clock that is behind may see a token too early
constexpr size_t kMaxToken = 16 << 10;
constexpr size_t kMaxAudiences = 100;
constexpr size_t kMaxKnown = 4096;
constexpr const char* kClaim = "kubernetes.io";

const ResourceInfo& find_resource(const ResourceRegistry& registry, const char* storage) {
  return *registry.find_storage(storage);
}

// Of the request's own type: it is about no object that is stored.
ApiError invalid(const std::string& field, const std::string& value, std::string_view detail) {
  ResourceInfo request;
  request.type = {"authentication.k8s.io", "v1", "tokenrequests", "TokenRequest", true};
  return ApiError::invalid(request, "", {FieldError::invalid(field, value, detail)});
}

std::vector<std::string> texts(const json* list) {
  std::vector<std::string> out;
  for (const json& item : list != nullptr && list->is_array() ? *list : json::array()) {
    if (item.is_string()) out.push_back(item.get<std::string>());
  }
  return out;
}

int64_t number(const json& claims, const char* name) {
  const json* value = find(claims, name);
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
}

std::optional<json> decoded(std::string_view part) {
  auto text = tls::base64url_decode(part);
  if (!text) return std::nullopt;
  auto parsed = kube::parse_json(*text);
  if (!parsed || !parsed->is_object()) return std::nullopt;
  return std::move(*parsed);
}

}  // namespace

Result<std::unique_ptr<ServiceTokens>> ServiceTokens::create(const ApiStore& store,
                                                             const ResourceRegistry& registry,
                                                             const Clock& clock, Options options) {
  if (options.key_pem.empty()) {
    EM_TRY(options.key_pem, tls::generate_key_pem());
  }
  EM_TRY(tls::JwsSigner signer, tls::JwsSigner::p256(options.key_pem));
  EM_TRY(tls::JwsKey key, tls::JwsKey::p256(signer.x(), signer.y()));
  return std::unique_ptr<ServiceTokens>(new ServiceTokens(
      store, registry, clock, std::move(options), std::move(signer), std::move(key)));
}

ServiceTokens::ServiceTokens(const ApiStore& store, const ResourceRegistry& registry,
                             const Clock& clock, Options options, tls::JwsSigner signer,
                             tls::JwsKey key)
    : store_(store),
      accounts_(find_resource(registry, "serviceaccounts")),
      pods_(find_resource(registry, "pods")),
      nodes_(find_resource(registry, "nodes")),
      secrets_(find_resource(registry, "secrets")),
      clock_(clock),
      options_(std::move(options)),
      signer_(std::move(signer)),
      key_(std::move(key)),
      key_id_(tls::base64url_encode(tls::sha256(signer_.public_der()))) {}

int64_t ServiceTokens::now() const {
  return std::chrono::duration_cast<std::chrono::seconds>(clock_.wall_now().time_since_epoch())
      .count();
}

ApiResult<void> ServiceTokens::bind(const StoredObject& account, const json& reference,
                                    Claims* claims) const {
  const std::string kind = text_at(reference, "kind"), name = text_at(reference, "name");
  const ResourceInfo* resource = kind == "Pod"      ? &pods_
                                 : kind == "Node"   ? &nodes_
                                 : kind == "Secret" ? &secrets_
                                                    : nullptr;
  if (resource == nullptr) {
    return refuse(invalid("spec.boundObjectRef", json(kind).dump(),
                          "cannot bind token to object of this kind: want Pod, Secret or Node"));
  }
  ObjectPtr object = store_.get(*resource, kind == "Node" ? "" : account.ns, name);
  if (object == nullptr) return refuse(ApiError::not_found(*resource, name));
  const std::string uid = text_at(reference, "uid");
  if (!uid.empty() && uid != object->uid) {
    return refuse(ApiError::conflict(
        *resource, name,
        fmt::format("the UID in the bound object reference ({}) does not match the UID in record. "
                    "The object might have been deleted and then recreated",
                    uid)));
  }
  Bound& bound = kind == "Pod" ? claims->pod : kind == "Node" ? claims->node : claims->secret;
  bound = {name, object->uid};
  if (kind != "Pod") return {};
  auto pod = kube::parse_json(object->text);
  if (!pod || text_at(*pod, "spec", "serviceAccountName") != account.name) {
    return refuse(ApiError::bad_request(
        fmt::format("cannot bind token for serviceaccount \"{}\" to pod running with different "
                    "serviceaccount name",
                    account.name)));
  }
  // Of the node it is only said where the pod runs: the token ends with the pod anyway.
  const std::string node = text_at(*pod, "spec", "nodeName");
  if (node.empty()) return {};
  ObjectPtr stored = store_.get(nodes_, "", node);
  claims->node = {node, stored != nullptr ? stored->uid : ""};
  return {};
}

ApiResult<json> ServiceTokens::issue(const StoredObject& account, json request) const {
  if (!request.is_object()) return refuse(ApiError::bad_request("want a TokenRequest"));
  json& spec = request["spec"];
  if (!spec.is_object()) spec = json::object();
  Claims claims;
  claims.ns = account.ns;
  claims.account = {account.name, account.uid};
  claims.audiences = texts(find(spec, "audiences"));
  if (claims.audiences.empty()) claims.audiences = {options_.issuer};
  if (claims.audiences.size() > kMaxAudiences) {
    return refuse(invalid("spec.audiences", "[]", "too many"));
  }
  int64_t seconds =
      find(spec, "expirationSeconds") ? number(spec, "expirationSeconds") : kUsualSeconds;
  if (seconds < kLeastSeconds || seconds > kMostSeconds) {
    return refuse(invalid("spec.expirationSeconds", std::to_string(seconds),
                          seconds < kLeastSeconds
                              ? "may not specify a duration less than 10 minutes"
                              : "may not specify a duration larger than 2^32 seconds"));
  }
  if (const json* reference = find(spec, "boundObjectRef")) {
    if (auto good = bind(account, *reference, &claims); !good) return refuse(good.error());
  }
  const int64_t at = now();
  claims.id = new_uid();
  claims.expires = at + seconds;
  std::string token = sign(claims, at);
  if (token.empty()) return refuse(ApiError::simple(500, "InternalError", "cannot sign a token"));
  spec["audiences"] = claims.audiences;
  spec["expirationSeconds"] = seconds;
  using Wall = std::chrono::system_clock;
  return json{{"kind", "TokenRequest"},
              {"apiVersion", "authentication.k8s.io/v1"},
              {"metadata",
               {{"name", account.name},
                {"namespace", account.ns},
                {"creationTimestamp", kube::rfc3339(clock_.wall_now())}}},
              {"spec", std::move(spec)},
              {"status",
               {{"token", std::move(token)},
                {"expirationTimestamp",
                 kube::rfc3339(Wall::time_point(std::chrono::seconds(claims.expires)))}}}};
}

std::string ServiceTokens::sign(const Claims& claims, int64_t now) const {
  json about = {{"namespace", claims.ns},
                {"serviceaccount", {{"name", claims.account.name}, {"uid", claims.account.uid}}}};
  const auto add = [&about](const char* name, const Bound& object) {
    if (object.name.empty()) return;
    about[name] = {{"name", object.name}};
    if (!object.uid.empty()) about[name]["uid"] = object.uid;
  };
  add("pod", claims.pod);
  add("node", claims.node);
  add("secret", claims.secret);
  const json body = {{"iss", options_.issuer},
                     {"sub", service_account_user(claims.ns, claims.account.name)},
                     {"aud", claims.audiences},
                     {"iat", now},
                     {"nbf", now},
                     {"exp", claims.expires},
                     {"jti", claims.id},
                     {kClaim, std::move(about)}};
  const json head = {{"alg", "ES256"}, {"kid", key_id_}};
  const std::string text =
      tls::base64url_encode(head.dump()) + "." + tls::base64url_encode(kube::to_text(body));
  auto signature = signer_.sign(text);
  return signature ? text + "." + tls::base64url_encode(*signature) : std::string();
}

std::optional<ServiceTokens::Claims> ServiceTokens::verify(std::string_view token) const {
  const size_t first = token.find('.'), last = token.rfind('.');
  if (first == std::string_view::npos || first == last) return std::nullopt;
  auto signature = tls::base64url_decode(token.substr(last + 1));
  if (!signature || !key_.verify(token.substr(0, last), *signature)) return std::nullopt;
  auto head = decoded(token.substr(0, first));
  auto body = decoded(token.substr(first + 1, last - first - 1));
  if (!head || text_at(*head, "alg") != "ES256") return std::nullopt;
  if (!body || text_at(*body, "iss") != options_.issuer) return std::nullopt;
  const json* about = find(*body, kClaim);
  if (about == nullptr) return std::nullopt;
  const auto bound = [about](const char* name) {
    return Bound{text_at(*about, name, "name"), text_at(*about, name, "uid")};
  };
  Claims out;
  out.ns = text_at(*about, "namespace");
  out.id = text_at(*body, "jti");
  out.account = bound("serviceaccount");
  out.pod = bound("pod");
  out.node = bound("node");
  out.secret = bound("secret");
  out.audiences = texts(find(*body, "aud"));
  out.not_before = number(*body, "nbf");
  out.expires = number(*body, "exp");
  return out;
}

bool ServiceTokens::is_there(const ResourceInfo& resource, std::string_view ns,
                             const Bound& object) const {
  ObjectPtr stored = store_.get(resource, ns, object.name);
  return stored != nullptr && stored->uid == object.uid;
}

bool ServiceTokens::counts(const Claims& claims) const {
  const int64_t at = now();
  if (at >= claims.expires || at + kSkewSeconds < claims.not_before) return false;
  if (!is_there(accounts_, claims.ns, claims.account)) return false;
  if (!claims.pod.name.empty()) return is_there(pods_, claims.ns, claims.pod);
  if (!claims.secret.name.empty()) return is_there(secrets_, claims.ns, claims.secret);
  return claims.node.name.empty() || is_there(nodes_, "", claims.node);
}

std::optional<ApiUser> ServiceTokens::authenticate(std::string_view token,
                                                   const std::vector<std::string>& audiences,
                                                   std::vector<std::string>* fitting) {
  if (token.size() > kMaxToken || std::count(token.begin(), token.end(), '.') != 2) {
    return std::nullopt;
  }
  std::string hash = tls::sha256(token);
  auto it = known_.find(hash);
  if (it == known_.end()) {
    auto claims = verify(token);
    if (!claims) return std::nullopt;
    // Each was signed by us: how many there are is not in the hands of who sends them alone.
    if (known_.size() >= kMaxKnown) known_.clear();
    it = known_.emplace(std::move(hash), std::move(*claims)).first;
  }
  const Claims& claims = it->second;
  if (!counts(claims)) {
    known_.erase(it);
    return std::nullopt;
  }
  const std::vector<std::string> own{options_.issuer};
  bool fits = false;
  for (const std::string& audience : audiences.empty() ? own : audiences) {
    const auto& list = claims.audiences;
    if (std::find(list.begin(), list.end(), audience) == list.end()) continue;
    fits = true;
    if (fitting != nullptr) fitting->push_back(audience);
  }
  if (!fits) return std::nullopt;
  ApiUser user;
  user.name = service_account_user(claims.ns, claims.account.name);
  user.uid = claims.account.uid;
  user.groups = service_account_groups(claims.ns);
  user.groups.emplace_back(kAuthenticatedGroup);
  const auto add = [&user](const char* key, const std::string& value) {
    if (!value.empty()) user.extra[fmt::format("authentication.kubernetes.io/{}", key)] = {value};
  };
  add("credential-id", "JTI=" + claims.id);
  add("pod-name", claims.pod.name);
  add("pod-uid", claims.pod.uid);
  add("node-name", claims.node.name);
  add("node-uid", claims.node.uid);
  return user;
}

json ServiceTokens::jwks() const {
  return {{"keys",
           {{{"use", "sig"},
             {"kty", "EC"},
             {"kid", key_id_},
             {"crv", "P-256"},
             {"alg", "ES256"},
             {"x", tls::base64url_encode(signer_.x())},
             {"y", tls::base64url_encode(signer_.y())}}}}};
}

json ServiceTokens::openid_configuration(const std::string& jwks_uri) const {
  return {{"issuer", options_.issuer},
          {"jwks_uri", jwks_uri},
          {"response_types_supported", {"id_token"}},
          {"subject_types_supported", {"public"}},
          {"id_token_signing_alg_values_supported", {"ES256"}}};
}

}  // namespace edgemesh::cloud
