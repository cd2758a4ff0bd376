// kube::Client over HTTP, to any kube-apiserver.
#pragma once

#include <memory>

#include "cloud/kube_config.h"
#include "core/io/loop.h"
#include "kube/client.h"

namespace edgemesh::cloud {

Result<std::unique_ptr<kube::Client>> make_http_client(io::Loop& loop, const KubeConfig& config);

}  // namespace edgemesh::cloud
