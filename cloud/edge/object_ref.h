// ObjectRef: which object of the Kubernetes API a message is about, and how the channel spells it.
// Values, thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "kube/types.h"

namespace edgemesh::cloud {

struct ObjectRef {
  const kube::ResourceType* type = nullptr;  // one of kube/types.h: outlives everything
  std::string ns;                            // empty: cluster-wide
  std::string name;
  std::string uid;

  friend bool operator==(const ObjectRef&, const ObjectRef&) = default;
  // On the wire: "default/configmap/settings", "null/node/edge-1".
  std::string resource() const;
};

// The type of the word in a wire resource ("pod", "configmap", ...); null: none that goes to nodes.
const kube::ResourceType* type_of_word(std::string_view word);
const kube::ResourceType* type_of_kind(std::string_view kind);

}  // namespace edgemesh::cloud
