#include <nlohmann/json.hpp>

#include "proxy/route/jwt.h"

namespace edgemesh::proxy {

namespace {

using nlohmann::json;

bool fits_value(const json& value, bool words, const std::function<bool(std::string_view)>& fits) {
  if (value.is_array()) {
    for (const json& item : value)
      if (!item.is_structured() && fits_value(item, false, fits)) return true;
    return false;
  }
  if (!value.is_string())
    return !value.is_structured() &&
           fits(value.dump(-1, ' ', false, json::error_handler_t::replace));
  std::string_view text = value.get_ref<const std::string&>();
  if (fits(text)) return true;
  while (words && !text.empty()) {
    const size_t end = text.find(' ');
    if (fits(text.substr(0, end))) return true;
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return false;
}

}  // namespace

bool JwtClaims::any(std::string_view provider, const std::vector<std::string>& path,
                    const std::function<bool(std::string_view)>& fits) const {
  for (const Token& token : tokens_) {
    if (!provider.empty() && provider != token.provider) continue;
    const json payload = json::parse(token.payload, nullptr, false);
    const json* at = &payload;
    for (const auto& name : path) {
      const auto it = at->is_object() ? at->find(name) : at->end();
      at = at->is_object() && it != at->end() ? &*it : nullptr;
      if (at == nullptr) break;
    }
    if (at == nullptr || path.empty()) continue;
    if (fits_value(*at, path.size() == 1 && path[0] == "scope", fits)) return true;
  }
  return false;
}

void JwtClaims::add(std::string provider, std::string payload) {
  tokens_.push_back({std::move(provider), std::move(payload)});
}

}  // namespace edgemesh::proxy
