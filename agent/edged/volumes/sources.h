// The files of a volume of kind configMap, secret, downwardAPI or projected, from its sources.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "agent/edged/volumes/volume_manager.h"

namespace edgemesh::edged {

struct FileSources {
  const Pod& pod;
  const FieldContext& fields;
  ObjectSource& objects;
  TokenSource* tokens;
};

// None: the volume is of another kind.
std::optional<Result<Files>> files_of(const FileSources& from, const nlohmann::json& volume);
bool follows_source(const nlohmann::json& volume);  // of one of these kinds
bool holds_secrets(const nlohmann::json& volume);
bool holds_token(const nlohmann::json& volume);
bool refers_to(const nlohmann::json& volume, const std::string& kind, const std::string& name);

}  // namespace edgemesh::edged
