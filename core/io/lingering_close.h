// Closes a stream whose last bytes must still reach the peer. Destroying a TCP stream that has not
// seen the peer's end resets the connection, and a reset can overtake what was written: here the
// stream is kept, its input thrown away, until the peer ends too or the time is up; then it is closed,
// and the system sends what is left. The same when the loop ends before.
#pragma once

#include <memory>

#include "core/io/loop.h"
#include "core/io/stream.h"

namespace edgemesh::io {

// Takes over `stream` (shutdown_write is called). At most `limit` and 1 MiB of input.
void lingering_close(Loop& loop, std::unique_ptr<Stream> stream,
                     Duration limit = std::chrono::seconds(2));

}  // namespace edgemesh::io
