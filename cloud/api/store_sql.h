// Private to ApiStore: what runs on the store thread, and how an object is taken apart.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cloud/api/store.h"

namespace edgemesh::cloud {

// Sets metadata.resourceVersion and makes the stored form.
ObjectPtr make_object(const ResourceInfo& resource, nlohmann::json& object, uint64_t version,
                      uint64_t created_version);
// The same for text that was read from the file. `resource` may be null (a kind of another
// release).
Result<ObjectPtr> load_object(const ResourceInfo* resource, std::string_view text, uint64_t version,
                              uint64_t created_version);

// Prepared statements. Made on the loop, used on the store thread only.
struct ApiStore::Statements {
  store::Database* db = nullptr;
  store::Statement insert, update, erase, meta;

  // Compares the version of what it replaces, so that a write whose base failed fails too.
  Result<> write(const std::string& storage, const Change& change);
  Result<> prune(uint64_t floor);

 private:
  Result<> prepare();
};

}  // namespace edgemesh::cloud
