// Pods: the part of the agent that runs pods (modules.edged), wired. Nothing of it exists when the
// module is off: the mesh alone needs no container runtime.
#pragma once

#include <memory>

#include "agent/config.h"
#include "agent/edged/edged_module.h"
#include "agent/edged/node/image_collector.h"
#include "agent/edged/node/log_rotation.h"
#include "agent/edged/node/node_reporter.h"
#include "agent/edged/node_parts.h"
#include "agent/edged/sweeper.h"
#include "agent/hub_client.h"
#include "agent/streams/node_api.h"
#include "agent/streams/stream_client.h"

namespace edgemesh::cmd {

class Pods {
 public:
  // Null when edged is switched off. `meta` gets the module as a sink, `bus` the module; both must
  // outlive what this returns, and not have been started.
  static Result<std::unique_ptr<Pods>> create(io::Loop& loop, const agent::AgentConfig& config,
                                              agent::Metastore& store, agent::MetaModule& meta,
                                              const agent::HubClient& hub, bus::Bus& bus,
                                              obs::Registry& metrics);

  edged::EdgedModule::Status status() const { return module_->status(); }

 private:
  Pods() = default;
  Result<> open_streams(io::Loop& loop, const agent::AgentConfig& config,
                        const agent::HubClient& hub, bus::Bus& bus, obs::Registry& metrics);
  std::unique_ptr<cri::RuntimeClient> runtime_;
  std::unique_ptr<edged::NodeParts> parts_;
  std::unique_ptr<agent::Outbox> outbox_;
  std::unique_ptr<edged::EdgedModule> module_;
  std::unique_ptr<edged::NodeReporter> node_;
  std::unique_ptr<edged::LogRotation> logs_;
  std::unique_ptr<edged::ImageCollector> images_;
  std::unique_ptr<edged::Sweeper> sweeper_;
  std::unique_ptr<streams::NodeApi> api_;
  std::unique_ptr<streams::StreamClient> streams_;
};

}  // namespace edgemesh::cmd
