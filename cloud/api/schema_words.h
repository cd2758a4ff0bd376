// Private to schema.cc: descriptions of fields, in our own words.
#pragma once

#include <string_view>

namespace edgemesh::cloud {

// Empty: none.
std::string_view words_for(std::string_view type, std::string_view field);

}  // namespace edgemesh::cloud
