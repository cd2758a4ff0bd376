// Carried: a stream that knows what carries it. What lies above a stream asks by carrier_of() once
// it is connected; streams over another one pass the question on.
#pragma once

#include <cstdint>

#include "core/io/stream.h"

namespace edgemesh::io {

class Carried {
 public:
  // A number that the maker of the stream gives a meaning (p2p::PathKind). 0: nothing that has a
  // name.
  virtual uint8_t carrier() const = 0;

 protected:
  ~Carried() = default;
};

// 0 also for null. Not for hot paths.
inline uint8_t carrier_of(const Stream* stream) {
  const auto* carried = dynamic_cast<const Carried*>(stream);
  return carried == nullptr ? 0 : carried->carrier();
}

}  // namespace edgemesh::io
