// A client's request on a connection of its own that asks the server for another protocol
// (RFC 9110 7.8). Threads: the loop given.
#pragma once

#include <memory>

#include "core/http/client.h"
#include "core/io/stream.h"

namespace edgemesh::http {

struct Upgraded {
  Response head;  // of the 101
  std::unique_ptr<io::Stream> stream;
  std::shared_ptr<const tls::PeerIdentity> peer;  // null: no TLS
};
using OnUpgraded = UniqueFunction<void(Result<Upgraded>)>;

// `request.headers` say what is asked for (Connection, Upgrade). `done` runs once, never from
// within the call; an answer other than 101 is an error that names status and reason. Destroying
// the handle cancels.
[[nodiscard]] std::unique_ptr<Call> start_upgrade(io::Loop& loop, ClientOptions options,
                                                  ClientRequest request, OnUpgraded done);

}  // namespace edgemesh::http
