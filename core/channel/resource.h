// ResourceName: which object a message is about, as `resource` spells it:
// "<namespace>/<kind>/<name>", with "null" for the namespace of cluster-wide objects (KubeEdge's
// reference, section 2.6). Values, thread-safe.
#pragma once

#include <compare>
#include <string>
#include <string_view>

namespace edgemesh::channel {

struct ResourceName {
  std::string kind;  // "pod", "configmap", ...
  std::string ns;    // empty: cluster-wide
  std::string name;

  friend auto operator<=>(const ResourceName&, const ResourceName&) = default;
  std::string text() const;
  // False: it is not of this form.
  static bool parse(std::string_view resource, ResourceName* out);
};

}  // namespace edgemesh::channel
