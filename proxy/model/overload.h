// What a process takes on at most. 0: no limit of its own.
#pragma once

#include <cstdint>

namespace edgemesh::proxy::model {

struct Overload {
  uint32_t max_connections = 0;  // to all listeners
  uint32_t max_requests = 0;     // open at a time
  uint64_t max_memory = 0;       // resident, in bytes
  friend bool operator==(const Overload&, const Overload&) = default;
};

}  // namespace edgemesh::proxy::model
