// kube::Client on the embedded API, in the same process and on the same loop. It has all rights.
#pragma once

#include <memory>

#include "cloud/api/core.h"
#include "kube/client.h"

namespace edgemesh::cloud {

// `core` outlives the client.
std::unique_ptr<kube::Client> make_embedded_client(ApiCore& core);

}  // namespace edgemesh::cloud
