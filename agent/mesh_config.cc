#include <nlohmann/json.hpp>

#include "agent/mesh_module.h"

namespace edgemesh::agent {

namespace {

using Json = nlohmann::json;

constexpr size_t kMaxListed = 64;
constexpr size_t kMaxRevoked = 4096;  // what a cloud keeps at most

tl::unexpected<Error> wrong(const char* key, const char* want) {
  return fail(ErrorCode::kInvalidArgument, "mesh configuration: '{}' is not {}", key, want);
}

Result<> take_text(const Json& object, const char* key, std::string* out) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return {};
  if (!it->is_string()) return wrong(key, "a string");
  *out = it->get<std::string>();
  return {};
}

Result<> take_texts(const Json& object, const char* key, std::vector<std::string>* out) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return {};
  if (!it->is_array() || it->size() > kMaxListed) return wrong(key, "a short list");
  for (const Json& item : *it) {
    if (!item.is_string()) return wrong(key, "a list of strings");
    out->push_back(item.get<std::string>());
  }
  return {};
}

Result<> take_turn(const Json& object, MeshConfig::Turn* out) {
  const auto it = object.find("turn");
  if (it == object.end() || it->is_null()) return {};
  if (!it->is_object()) return wrong("turn", "an object");
  EM_TRY_VOID(take_text(*it, "host", &out->host));
  EM_TRY_VOID(take_text(*it, "username", &out->username));
  EM_TRY_VOID(take_text(*it, "password", &out->password));
  if (const auto port = it->find("port"); port != it->end()) {
    if (!port->is_number_unsigned() || port->get<uint64_t>() == 0 || port->get<uint64_t>() > 65'535)
      return wrong("turn.port", "a port");
    out->port = port->get<uint16_t>();
  }
  if (const auto expires = it->find("expires"); expires != it->end()) {
    if (!expires->is_number_integer()) return wrong("turn.expires", "a time");
    out->expires = expires->get<int64_t>();
  }
  return {};
}

Result<> take_revoked(const Json& object, std::vector<MeshConfig::Revoked>* out) {
  const auto it = object.find("revoked");
  if (it == object.end() || it->is_null()) return {};
  if (!it->is_array() || it->size() > kMaxRevoked) return wrong("revoked", "a list of at most 4096");
  for (const Json& item : *it) {
    MeshConfig::Revoked entry;
    if (!item.is_object()) return wrong("revoked", "a list of objects");
    EM_TRY_VOID(take_text(item, "node", &entry.node));
    const auto before = item.find("before");
    if (entry.node.empty() || before == item.end() || !before->is_number_integer())
      return wrong("revoked", "a list of nodes and times");
    entry.before = before->get<int64_t>();
    out->push_back(std::move(entry));
  }
  return {};
}

}  // namespace

Result<MeshConfig> parse_mesh_config(std::string_view text) {
  EM_TRY(const Json json, kube::parse_json(text));
  if (!json.is_object())
    return fail(ErrorCode::kInvalidArgument, "mesh configuration: not an object");
  MeshConfig out;
  EM_TRY_VOID(take_text(json, "trustDomain", &out.trust_domain));
  EM_TRY_VOID(take_text(json, "clusterDomain", &out.cluster_domain));
  std::vector<std::string> cidrs;
  EM_TRY_VOID(take_texts(json, "serviceCidrs", &cidrs));
  for (const std::string& cidr : cidrs) {
    EM_TRY(Cidr parsed, Cidr::parse(cidr));
    if (parsed.bits < kMinServiceCidrBits) return wrong("serviceCidrs", "blocks of /8 or longer");
    out.service_cidrs.push_back(parsed);
  }
  if (!is_domain_name(out.trust_domain)) return wrong("trustDomain", "a domain name");
  if (!is_domain_name(out.cluster_domain)) return wrong("clusterDomain", "a domain name");
  EM_TRY_VOID(take_texts(json, "stun", &out.stun));
  EM_TRY_VOID(take_turn(json, &out.turn));
  EM_TRY_VOID(take_revoked(json, &out.revoked));
  return out;
}

}  // namespace edgemesh::agent
