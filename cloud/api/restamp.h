// What a store that comes out of a backup needs before it is served: every version that it gives
// out from then on is higher than any that was given out before, also those after the backup was
// made. Objects get new versions in their old order, so that nodes and watchers take them for news;
// watches from before are told to list again.
#pragma once

#include "core/store/database.h"

namespace edgemesh::cloud {

// More writes than any cloud makes between a backup and its loss.
inline constexpr uint64_t kRestoreJump = 1'000'000'000'000;

// In one transaction. Returns the newest version; 0: the file holds no objects.
Result<uint64_t> restamp_objects(store::Database& db);

}  // namespace edgemesh::cloud
