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
};

// "default/configmap/settings", "null/node/edge-1" (KubeEdge's reference, section 2.6).
std::string wire_resource(const ObjectRef& ref);

// The type of the word in a wire resource ("pod", "configmap", ...); null: none that goes to nodes.
const kube::ResourceType* type_of_word(std::string_view word);
const kube::ResourceType* type_of_kind(std::string_view kind);

// Kubernetes' versions are opaque, but KubeEdge and we compare them as numbers where they are
// numbers. True when `a` is not older than `b`; two that are not numbers only when they are the
// same.
bool at_least(std::string_view a, std::string_view b);

}  // namespace edgemesh::cloud
