// The Kubernetes API behind the controllers: the embedded one with its server on :6443, or a client
// of a real kube-apiserver. Threads: the loop given.
#pragma once

#include <memory>
#include <string>

#include "cloud/api/auth.h"
#include "cloud/api/server.h"
#include "cloud/ca.h"
#include "cloud/cloud_config.h"
#include "cloud/dynamic_controller.h"
#include "core/io/loop.h"
#include "kube/client.h"

namespace edgemesh::cmd {

using StreamHandler = decltype(cloud::ApiServerOptions::on_subresource);
using ComputedHandler = decltype(cloud::ApiServerOptions::on_computed);

class Backend {
 public:
  virtual ~Backend() = default;
  virtual kube::Client& client() = 0;
  virtual std::string ca_pem() const = 0;  // of the API, for the nodes (k8s/ca.crt)
  virtual std::string description() const = 0;
  virtual bool embedded() const = 0;
  virtual cloud::CallAsNode calls_as_node() = 0;  // must not outlive this
  virtual void drain() = 0;
  // The embedded API asks it about the certificates of nodes; a real kube-apiserver does not know our CA.
  virtual void check_certificates(cloud::NodeCertificateCheck check) = 0;
  virtual cloud::EmbeddedApi* api() { return nullptr; }  // null: a real kube-apiserver
  // Of the embedded API: its ApiServerOptions::on_subresource and on_computed.
  virtual void serve_from_nodes(StreamHandler streams, ComputedHandler computed) {
    static_cast<void>(streams);
    static_cast<void>(computed);
  }
  virtual void end_refused() = 0;  // as ApiServer::end_refused, when the check answers otherwise than before

  // `server` is the API's certificate.
  static Result<std::unique_ptr<Backend>> create(io::Loop& loop, const cloud::CloudConfig& config,
                                                 const cloud::Ca& ca,
                                                 const tls::KeyAndCert& server);
};

}  // namespace edgemesh::cmd
