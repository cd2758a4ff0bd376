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

edged::NodePartsOptions parts_options(const Pods::Parts& from) {
  const agent::AgentConfig& config = from.config;
  edged::NodePartsOptions out;
  out.node = config.node_name;
  out.host_ip = node_ip(config);
  out.log_root = config.edged.log_dir;
  out.cgroup_parent = config.edged.cgroup_parent;
  out.volume_root =
      config.edged.root_dir.empty() ? config.state_dir + "/pods" : config.edged.root_dir;
  if (config.dns.enable)
    for (const IpAddr& address : config.dns.addresses())
      out.cluster_dns.push_back(address.to_string());
  if (!config.dns.cluster_domain.empty()) out.cluster_domain = config.dns.cluster_domain;
  out.api_service = from.api_service;
  return out;
}

}  // namespace

Result<std::unique_ptr<Pods>> Pods::create(const Parts& from) {
  if (!from.config.module_enabled(edged::kEdgedModule)) return std::unique_ptr<Pods>();
  std::unique_ptr<Pods> pods(new Pods);
  cri::RuntimeOptions runtime;
  runtime.endpoint = from.config.edged.runtime;
  EM_TRY(pods->runtime_, cri::connect_runtime(from.loop, runtime));
  const edged::NodePartsOptions parts = parts_options(from);
  pods->tokens_ = std::make_unique<edged::PodTokens>(
      from.bus, from.store, [&hub = from.hub] { return hub.connected(); },
      [raw = pods.get()](const std::string& uid) {
        raw->parts_->on_new_token(uid);
        raw->module_->retry(uid);
      });
  pods->parts_ = std::make_unique<edged::NodeParts>(from.meta, parts, pods->tokens_.get());
  pods->outbox_ = std::make_unique<agent::Outbox>(from.loop, from.store, from.metrics);
  edged::EdgedModule::Options options;
  options.node = from.config.node_name;
  options.host_ip = parts.host_ip;
  pods->module_ = std::make_unique<edged::EdgedModule>(
      from.loop, *pods->runtime_, *pods->parts_, *pods->outbox_, from.store, options, from.metrics);
  from.meta.add_sink(pods->parts_.get());  // first: volumes are current when the module looks again
  from.meta.add_sink(pods->module_.get());
  EM_TRY_VOID(from.bus.add(*pods->module_));
  pods->open_node(from);
  EM_TRY_VOID(pods->open_streams(from));
  return pods;
}

// What the node says of itself, and what it clears away.
void Pods::open_node(const Parts& from) {
  node_ = std::make_unique<edged::NodeReporter>(
      from.loop, *runtime_, *outbox_, from.config.node_name,
      [disk = from.config.state_dir] { return edged::read_facts(disk); },
      [parts = parts_.get()](const auto& images) { parts->set_images(images); });
  from.meta.add_sink(node_.get());
  edged::LogRotation::Options logs;
  logs.log_root = from.config.edged.log_dir;
  logs_ = std::make_unique<edged::LogRotation>(from.loop, *runtime_, logs);
  logs_->start();
  images_ = std::make_unique<edged::ImageCollector>(from.loop, *runtime_,
                                                    edged::ImageCollector::Options());
  images_->start();
  sweeper_ = std::make_unique<edged::Sweeper>(from.loop, *runtime_, from.meta, *parts_);
}

// What kubectl asks of pods: logs, exec, attach, port-forward, top.
Result<> Pods::open_streams(const Parts& from) {
  streams::NodeApiOptions api;
  api.node = from.config.node_name;
  api_ = streams::NodeApi::create(from.loop, *runtime_, std::move(api));
  streams::StreamClientOptions options;
  options.hub = from.config.cloud.hub;
  options.tls = [&hub = from.hub] { return hub.tls(); };
  options.mark = kOwnMark;
  EM_TRY(streams_,
         streams::StreamClient::create(from.loop, *api_, std::move(options), from.metrics));
  return from.bus.add(*streams_);
}

}  // namespace edgemesh::cmd
