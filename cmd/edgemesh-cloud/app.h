// App: wires the cloud together and runs it. Life: create() opens everything and reports the first
// thing that is wrong; run() returns after SIGTERM or SIGINT.
// Threads: one, the loop given.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cloud/bootstrap.h"
#include "cloud/ca.h"
#include "cloud/cloud_config.h"
#include "cloud/dispatcher.h"
#include "cloud/files.h"
#include "cloud/hub.h"
#include "cloud/mesh_controller.h"
#include "cloud/node_claims.h"
#include "cloud/node_controller.h"
#include "cloud/rendezvous.h"
#include "cloud/revocations.h"
#include "cloud/siblings.h"
#include "cloud/streams/node_streams.h"
#include "cloud/streams/pod_streams.h"
#include "cloud/streams/usage_metrics.h"
#include "cloud/upstream.h"
#include "cmd/admin/admin_server.h"
#include "cmd/edgemesh-cloud/backend.h"
#include "kube/leader_elector.h"

namespace edgemesh::cmd {

class App {
 public:
  static Result<std::unique_ptr<App>> create(io::Loop& loop, cloud::CloudConfig config);
  Result<> run();
  // A new join token of the configured life.
  std::string new_token() const { return ca_->new_token(config_.token_lifetime); }

 private:
  App(io::Loop& loop, cloud::CloudConfig config);
  Result<> open();
  Result<> open_controllers();
  void open_elector();
  Result<> open_siblings();
  Result<> open_hub(const tls::KeyAndCert& server);
  void open_streams();
  Result<> open_bootstrap(const tls::KeyAndCert& server);
  Result<> open_admin();
  Result<> write_kubeconfig() const;
  Result<> write_join_token() const;
  void stop();
  std::string not_ready() const;

  io::Loop& loop_;
  cloud::CloudConfig config_;
  std::optional<cloud::FileLock> lock_;  // of the state directory
  obs::Registry registry_;
  std::unique_ptr<cloud::Ca> ca_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<kube::LeaderElector> elector_;  // null: the only cloud of its API
  std::unique_ptr<cloud::Revocations> revocations_;
  std::unique_ptr<cloud::Hub> hub_;
  std::unique_ptr<cloud::NodeStreams> node_streams_;
  std::unique_ptr<cloud::PodStreams> pod_streams_;
  std::unique_ptr<cloud::UsageMetrics> usage_;
  std::unique_ptr<cloud::MeshController> mesh_;
  std::unique_ptr<cloud::NodeController> nodes_;
  std::unique_ptr<cloud::Rendezvous> rendezvous_;
  std::unique_ptr<cloud::Siblings> siblings_;  // null: the only cloud of its API
  std::unique_ptr<cloud::Upstream> upstream_;
  std::unique_ptr<cloud::EdgeController> edge_;
  std::unique_ptr<cloud::DynamicController> dynamic_;
  std::unique_ptr<cloud::Dispatcher> dispatcher_;
  std::unique_ptr<cloud::controllers::Controllers> controllers_;  // null: the API has its own
  std::unique_ptr<cloud::NodeClaims> claims_;
  std::unique_ptr<cloud::Bootstrap> bootstrap_;
  std::unique_ptr<AdminServer> admin_;
  io::Timer token_timer_;
  io::Timer stop_timer_;
  bool stopping_ = false;
};

}  // namespace edgemesh::cmd
