#include "kube/types.h"

namespace edgemesh::kube {

std::string ResourceType::path(std::string_view ns, std::string_view name,
                               std::string_view subresource) const {
  std::string out = group.empty() ? "/api/" + version : "/apis/" + group + "/" + version;
  if (namespaced && !ns.empty()) {
    out += "/namespaces/";
    out += ns;
  }
  out += "/" + plural;
  if (!name.empty()) {
    out += "/";
    out += name;
  }
  if (!subresource.empty()) {
    out += "/";
    out += subresource;
  }
  return out;
}

std::string object_key(std::string_view ns, std::string_view name) {
  std::string key;
  key.reserve(ns.size() + name.size() + 1);
  if (!ns.empty()) {
    key += ns;
    key += '/';
  }
  key += name;
  return key;
}

}  // namespace edgemesh::kube
