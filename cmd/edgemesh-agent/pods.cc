#include "cmd/edgemesh-agent/pods.h"

#include "cmd/edgemesh-agent/app.h"
#include "p2p/netlink_watch.h"

namespace edgemesh::cmd {

namespace {

std::string node_ip(const agent::AgentConfig& config) {
  if (config.edged.node_ip) return config.edged.node_ip->to_string();
  const auto all = p2p::local_addresses();
  for (const IpAddr& ip : all)
    if (!ip.is_v6()) return ip.to_string();
  return all.empty() ? "" : all.front().to_string();
}

}  // namespace

Result<std::unique_ptr<Pods>> Pods::create(io::Loop& loop, const agent::AgentConfig& config,
                                           agent::Metastore& store, agent::MetaModule& meta,
                                           const agent::HubClient& hub, bus::Bus& bus,
                                           obs::Registry& metrics) {
  if (!config.module_enabled(edged::kEdgedModule)) return std::unique_ptr<Pods>();
  std::unique_ptr<Pods> pods(new Pods);
  cri::RuntimeOptions runtime;
  runtime.endpoint = config.edged.runtime;
  EM_TRY(pods->runtime_, cri::connect_runtime(loop, runtime));
  edged::NodePartsOptions parts;
  parts.node = config.node_name;
  parts.host_ip = node_ip(config);
  parts.log_root = config.edged.log_dir;
  parts.cgroup_parent = config.edged.cgroup_parent;
  parts.volume_root =
      config.edged.root_dir.empty() ? config.state_dir + "/pods" : config.edged.root_dir;
  if (config.dns.enable)
    for (const IpAddr& address : config.dns.addresses())
      parts.cluster_dns.push_back(address.to_string());
  if (!config.dns.cluster_domain.empty()) parts.cluster_domain = config.dns.cluster_domain;
  pods->parts_ = std::make_unique<edged::NodeParts>(meta, parts);
  pods->outbox_ = std::make_unique<agent::Outbox>(loop, store, metrics);
  edged::EdgedModule::Options options;
  options.node = config.node_name;
  options.host_ip = parts.host_ip;
  pods->module_ = std::make_unique<edged::EdgedModule>(loop, *pods->runtime_, *pods->parts_,
                                                       *pods->outbox_, store, options, metrics);
  meta.add_sink(pods->parts_.get());  // first: volumes are current when the module looks again
  meta.add_sink(pods->module_.get());
  EM_TRY_VOID(bus.add(*pods->module_));
  const std::string disk = config.state_dir;
  pods->node_ = std::make_unique<edged::NodeReporter>(
      loop, *pods->runtime_, *pods->outbox_, config.node_name,
      [disk] { return edged::read_facts(disk); },
      [parts = pods->parts_.get()](const auto& images) { parts->set_images(images); });
  meta.add_sink(pods->node_.get());
  edged::LogRotation::Options logs;
  logs.log_root = config.edged.log_dir;
  pods->logs_ = std::make_unique<edged::LogRotation>(loop, *pods->runtime_, logs);
  pods->logs_->start();
  pods->images_ = std::make_unique<edged::ImageCollector>(loop, *pods->runtime_,
                                                          edged::ImageCollector::Options());
  pods->images_->start();
  pods->sweeper_ = std::make_unique<edged::Sweeper>(loop, *pods->runtime_, meta, *pods->parts_);
  EM_TRY_VOID(pods->open_streams(loop, config, hub, bus, metrics));
  return pods;
}

// What kubectl asks of pods: logs, exec, attach, port-forward, top.
Result<> Pods::open_streams(io::Loop& loop, const agent::AgentConfig& config,
                            const agent::HubClient& hub, bus::Bus& bus, obs::Registry& metrics) {
  streams::NodeApiOptions api;
  api.node = config.node_name;
  api_ = streams::NodeApi::create(loop, *runtime_, std::move(api));
  streams::StreamClientOptions options;
  options.hub = config.cloud.hub;
  options.tls = [&hub] { return hub.tls(); };
  options.mark = kOwnMark;
  EM_TRY(streams_, streams::StreamClient::create(loop, *api_, std::move(options), metrics));
  return bus.add(*streams_);
}

}  // namespace edgemesh::cmd
