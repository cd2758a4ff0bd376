// Addresses of a socket's ends. Private to core/io.
#pragma once

#include "core/base/net_addr.h"

namespace edgemesh::io {

Result<SockAddr> local_name(int fd);
Result<SockAddr> peer_name(int fd);

}  // namespace edgemesh::io
