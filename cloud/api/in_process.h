// A request to the embedded API's HTTP face from within the process: for callers that want its
// rules (who may do what, validation, the words of its errors) and not a connection.
#pragma once

#include <string>

#include "cloud/api/server.h"
#include "core/base/function.h"

namespace edgemesh::cloud {

// `done` runs once, maybe from within the call. Not for watches: an answer comes whole.
void call_in_process(ApiServer& server, http::Request request,
                     UniqueFunction<void(http::Response)> done);

}  // namespace edgemesh::cloud
