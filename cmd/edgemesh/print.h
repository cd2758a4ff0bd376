// Text forms of the agent's answers, for people. The JSON forms are the answers themselves.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace edgemesh::cli {

// Columns padded to their widest cell, two spaces apart; the first row is the heading.
std::string table(const std::vector<std::vector<std::string>>& rows);

std::string status_text(const nlohmann::json& status);
std::string netcheck_text(const nlohmann::json& result);
std::string path_text(const nlohmann::json& path);

}  // namespace edgemesh::cli
