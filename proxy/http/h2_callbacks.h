// The functions that nghttp2 calls. For proxy/http/h2_* only.
#pragma once

#include <nghttp2/nghttp2.h>

#include <vector>

#include "proxy/http/h2_conn.h"

namespace edgemesh::proxy::h2 {

nghttp2_session* make_session(Conn* conn, SessionMemory& memory, const H2Limits& limits,
                              bool server);
nghttp2_data_provider data_provider(Stream& s);
// Frames made within one send_frames(); the connections of a thread share it. `busy`: while nghttp2
// fills it, when users may be called.
struct OutFrames {
  std::vector<uint8_t> bytes;
  bool busy = false;
};
OutFrames& out_frames();

}  // namespace edgemesh::proxy::h2
