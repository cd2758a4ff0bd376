// ObjectSource: where the config maps and secrets that pods name come from. Threads: its owner's.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "core/base/result.h"

namespace edgemesh::edged {

class ObjectSource {
 public:
  virtual ~ObjectSource() = default;
  // `kind` is "configmap" or "secret". kNotFound: it is not (yet) on this node.
  virtual Result<nlohmann::json> get(const std::string& kind, const std::string& ns,
                                     const std::string& name) = 0;
};

}  // namespace edgemesh::edged
