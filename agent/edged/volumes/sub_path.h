// A path below a folder that containers may write to: found without ever following a link out of
// it, since a link may be changed while one looks. Blocking.
#pragma once

#include <string>

#include "core/base/result.h"
#include "core/io/fd.h"

namespace edgemesh::edged {

// Opens `inner` (an inner_path()) below `base`, links refused; what is missing becomes folders.
// O_PATH: good for a bind mount.
Result<io::Fd> open_below(const std::string& base, const std::string& inner, bool* is_folder);

}  // namespace edgemesh::edged
