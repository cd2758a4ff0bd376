// Pods: the part of the agent that runs pods (modules.edged), wired. Nothing of it exists when the
// module is off: the mesh alone needs no container runtime.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "agent/config.h"
#include "agent/edged/edged_module.h"
#include "agent/edged/node/image_collector.h"
#include "agent/edged/node/log_rotation.h"
#include "agent/edged/node/node_reporter.h"
#include "agent/edged/node_parts.h"
#include "agent/edged/pod_tokens.h"
#include "agent/edged/sweeper.h"
#include "agent/hub_client.h"
#include "agent/streams/node_api.h"
#include "agent/streams/stream_client.h"

namespace edgemesh::cmd {

class Pods {
 public:
  // Borrowed: all of it outlives what create() returns.
  struct Parts {
    io::Loop& loop;
    const agent::AgentConfig& config;
    agent::Metastore& store;
    agent::MetaModule& meta;
    const agent::HubClient& hub;
    bus::Bus& bus;
    obs::Registry& metrics;
    // Of the Service default/kubernetes; none: not known, or there is none.
    std::function<std::optional<SockAddr>()> api_service;
  };
  // Null when edged is switched off. `meta` gets the module as a sink, `bus` the module; both must
  // not have been started.
  static Result<std::unique_ptr<Pods>> create(const Parts& from);

  edged::EdgedModule::Status status() const { return module_->status(); }

 private:
  Pods() = default;
  void open_node(const Parts& from);
  Result<> open_streams(const Parts& from);
  std::unique_ptr<cri::RuntimeClient> runtime_;
  std::unique_ptr<edged::PodTokens> tokens_;
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
