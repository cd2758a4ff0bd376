// kubeconfig files (YAML or JSON), as kubectl reads them: the current context's server and
// credentials.
#pragma once

#include <string>
#include <string_view>

#include "core/base/result.h"

namespace edgemesh::cloud {

struct KubeConfig {
  std::string server;  // "https://10.0.0.1:6443"
  std::string ca_pem;
  std::string cert_pem, key_pem;  // client certificate
  std::string token;
  std::string token_file;  // read again from time to time (service account tokens rotate)
  std::string tls_server_name;
  bool insecure_skip_tls_verify = false;
};

// Relative files are looked up beside the kubeconfig. Errors name the file and what is missing.
// Exec and auth-provider plugins are refused with a message that says so.
Result<KubeConfig> load_kubeconfig(const std::string& path);
Result<KubeConfig> parse_kubeconfig(std::string_view text, const std::string& folder);
// Of the pod that this process runs in: service account token and CA, KUBERNETES_SERVICE_HOST/_PORT
// given by the caller.
Result<KubeConfig> in_cluster_config(const std::string& host, const std::string& port);

}  // namespace edgemesh::cloud
