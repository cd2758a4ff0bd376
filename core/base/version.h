// The release, as --version and the status reports say it.
#pragma once

namespace edgemesh {
inline constexpr const char* kVersion = "0.1.0";
}
