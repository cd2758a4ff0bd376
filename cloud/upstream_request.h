// One message that Upstream works on; for its own sources.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cloud/upstream.h"

namespace edgemesh::cloud {

struct Upstream::Request {
  Upstream* owner;
  std::shared_ptr<bool> alive;
  std::string node;
  channel::Message message;
  nlohmann::json content;
  std::string ns, kind, name;              // of the resource
  kube::ResourceType type = kube::kNodes;  // for error texts

  ~Request() {
    if (*alive) owner->release(node);
  }
  const std::string& operation() const { return message.operation; }
};

}  // namespace edgemesh::cloud
