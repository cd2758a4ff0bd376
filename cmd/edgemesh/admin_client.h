// The agent's admin endpoint as a blocking call: what every sub-command but join and reset stands on.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "core/base/clock.h"
#include "core/base/result.h"

namespace edgemesh::cli {

// GET (or POST) http://<admin><target>; the answer's JSON. Errors say what to do when no agent runs.
Result<nlohmann::json> call_admin(const std::string& admin, const std::string& method,
                                  const std::string& target,
                                  Duration limit = std::chrono::seconds(20));

}  // namespace edgemesh::cli
