#include "proxy/udp/cluster_directory.h"

#include <vector>

#include "proxy/upstream/hash.h"
#include "proxy/upstream/outlier.h"

namespace edgemesh::proxy {

namespace {

class ClusterRoute final : public UdpRoute {
 public:
  ClusterRoute(ClusterState& cluster, const SockAddr& client, const SockAddr& destination,
               const std::string& node)
      : cluster_(&cluster), client_(client), destination_(destination), node_(node) {}
  ~ClusterRoute() override { release(); }

  bool choose() override {
    release();
    if (cluster_->retired()) return false;
    std::vector<const Host*> tried;
    for (const HostRef& host : tried_) tried.push_back(host.get());
    PickContext context;
    context.has_hash = true;  // clusters that choose by it keep a client at its endpoint
    context.hash = hash64(client_.ip);
    context.client = &client_.ip;
    context.destination = &destination_;
    context.tried = tried;
    host_ = HostRef(cluster_->pick(context));
    if (!host_) return false;
    if (tried_.size() >= cluster_->hosts().size()) tried_.clear();
    cluster_->stats().requests.add();
    host_->stats().requests.add();
    host_->stats().active_requests.up();
    return true;
  }

  bool resume(const SockAddr& endpoint) override {
    release();
    if (cluster_->retired()) return false;
    for (const HostRef& host : cluster_->hosts())
      if (host->addr() == endpoint) host_ = host;
    if (host_) host_->stats().active_requests.up();
    return static_cast<bool>(host_);
  }

  const SockAddr& endpoint() const override { return host_->addr(); }
  std::string_view node() const override { return host_->endpoint().node; }
  bool remote() const override {
    const std::string& node = host_->endpoint().node;
    return !node.empty() && !node_.empty() && node != node_;
  }
  bool current() override { return !host_ || !host_->removed(); }
  void answered() override {
    tried_.clear();
    if (host_) report_outcome(*host_, Outcome::kSuccess);
  }
  void failed() override {
    if (!host_) return;
    report_outcome(*host_, Outcome::kLocalFailure);
    tried_.push_back(host_);
  }
  std::string name() const override { return cluster_->name(); }

 private:
  void release() {
    if (host_) host_->stats().active_requests.down();
    host_.reset();
  }

  ClusterRef cluster_;
  SockAddr client_;
  SockAddr destination_;
  std::string node_;
  HostRef host_;
  std::vector<HostRef> tried_;
};

}  // namespace

std::unique_ptr<UdpRoute> ClusterDirectory::find(const SockAddr& client,
                                                 const SockAddr& destination) {
  ClusterState* cluster = clusters_.find(cluster_);
  if (cluster == nullptr) return nullptr;
  return std::make_unique<ClusterRoute>(*cluster, client, destination, node_);
}

}  // namespace edgemesh::proxy
