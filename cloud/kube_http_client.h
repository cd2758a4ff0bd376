// kube::Client over HTTP, to any kube-apiserver.
#pragma once

#include <memory>

#include "cloud/dynamic_controller.h"
#include "cloud/kube_config.h"
#include "core/io/loop.h"
#include "kube/client.h"

namespace edgemesh::cloud {

Result<std::unique_ptr<kube::Client>> make_http_client(io::Loop& loop, const KubeConfig& config);

// Calls through a client that make_http_client() made, which must outlive them. They impersonate the
// node (group system:nodes): the kube-apiserver's own rules decide, and its log names the node. The
// cloud's user needs the right to impersonate users and groups.
CallAsNode calls_as_node(kube::Client& http_client);

}  // namespace edgemesh::cloud
