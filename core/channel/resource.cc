#include "core/channel/resource.h"

#include <fmt/core.h>

namespace edgemesh::channel {

std::string ResourceName::text() const {
  return fmt::format("{}/{}/{}", ns.empty() ? "null" : ns, kind, name);
}

bool ResourceName::parse(std::string_view resource, ResourceName* out) {
  const size_t first = resource.find('/');
  const size_t second = first == std::string_view::npos ? first : resource.find('/', first + 1);
  if (second == std::string_view::npos || first == 0) return false;
  out->ns = resource.substr(0, first);
  out->kind = resource.substr(first + 1, second - first - 1);
  out->name = resource.substr(second + 1);
  if (out->ns == "null") out->ns.clear();
  return !out->kind.empty() && !out->name.empty() && out->name.find('/') == std::string::npos;
}

}  // namespace edgemesh::channel
