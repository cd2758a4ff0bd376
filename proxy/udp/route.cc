#include "proxy/udp/route.h"

#include <algorithm>
#include <vector>

namespace edgemesh::proxy {

class ServiceDirectory::Route final : public UdpRoute {
 public:
  Route(ServiceDirectory& owner, const SockAddr& client, const SockAddr& destination,
        const discovery::Snapshot::Target& target, uint64_t version)
      : owner_(owner), client_(client), destination_(destination), version_(version) {
    adopt(target);
  }
  ~Route() override { release(); }

  bool choose() override {
    release();
    if (gone_) return false;
    endpoint_ = owner_.picker_.pick({service_.get(), port_}, client_.ip, tried_);
    if (endpoint_ == nullptr && !tried_.empty()) {
      tried_.clear();
      endpoint_ = owner_.picker_.pick({service_.get(), port_}, client_.ip);
    }
    if (endpoint_ == nullptr) return false;
    owner_.picker_.on_start(*endpoint_);
    return true;
  }

  bool resume(const SockAddr& endpoint) override {
    release();
    const auto& all = port_->endpoints;
    const auto same =
        std::find_if(all.begin(), all.end(), [&](const auto& e) { return e.addr == endpoint; });
    if (gone_ || same == all.end()) return false;
    endpoint_ = &*same;
    owner_.picker_.on_start(*endpoint_);
    return true;
  }

  const SockAddr& endpoint() const override { return endpoint_->addr; }
  std::string_view node() const override {
    const std::string& node = endpoint_->node;
    return node;
  }
  bool remote() const override {
    const std::string& node = endpoint_->node;
    return !node.empty() && !owner_.node_.empty() && node != owner_.node_;
  }

  bool current() override {
    if (owner_.fixed_ != nullptr) return true;
    const auto& snapshot = owner_.snapshot_;
    if (snapshot == nullptr || snapshot->version() == version_) return true;
    auto target = snapshot->find(destination_.ip, destination_.port, "UDP");
    gone_ = !target;
    if (gone_) return false;
    version_ = snapshot->version();
    if (target->service == service_.get()) return true;
    const auto before =
        endpoint_ != nullptr ? discovery::key_of(*endpoint_) : discovery::EndpointKey{};
    release();
    adopt(*target);
    auto same = std::find_if(port_->endpoints.begin(), port_->endpoints.end(),
                             [&](const auto& e) { return discovery::has_key(e, before); });
    if (same == port_->endpoints.end()) return false;
    endpoint_ = &*same;
    owner_.picker_.on_start(*endpoint_);
    return true;
  }

  void answered() override {
    tried_.clear();
    if (endpoint_ != nullptr) owner_.picker_.on_success(*endpoint_);
  }

  void failed() override {
    if (endpoint_ == nullptr) return;
    owner_.picker_.on_failure(*endpoint_);
    tried_.push_back(endpoint_);
  }

  std::string name() const override {
    return fmt::format("{}/{}{}{}", service_->ns, service_->name, port_->name.empty() ? "" : ":",
                       port_->name);
  }

 private:
  void adopt(const discovery::Snapshot::Target& target) {
    service_ = target.service->shared_from_this();
    port_ = target.port;
    tried_.clear();
  }
  void release() {
    if (endpoint_ != nullptr) owner_.picker_.on_end(*endpoint_);
    endpoint_ = nullptr;
  }

  ServiceDirectory& owner_;
  SockAddr client_;
  SockAddr destination_;
  uint64_t version_;  // of the snapshot that service_ is of
  // The service as it was then; the pointers point into it.
  std::shared_ptr<const discovery::ServiceEntry> service_;
  const discovery::Port* port_ = nullptr;
  const discovery::Endpoint* endpoint_ = nullptr;
  std::vector<const discovery::Endpoint*> tried_;
  bool gone_ = false;  // the service
};

ServiceDirectory::ServiceDirectory(std::string node, std::string zone, const SnapshotPtr& snapshot,
                                   std::shared_ptr<const discovery::ServiceEntry> fixed,
                                   Clock& clock)
    : node_(node),
      snapshot_(snapshot),
      fixed_(std::move(fixed)),
      picker_(std::move(node), std::move(zone), clock) {}

std::unique_ptr<UdpRoute> ServiceDirectory::find(const SockAddr& client,
                                                 const SockAddr& destination) {
  if (fixed_ != nullptr)
    return std::make_unique<Route>(
        *this, client, destination,
        discovery::Snapshot::Target{fixed_.get(), &fixed_->ports.front()}, 0);
  if (snapshot_ == nullptr) return nullptr;
  auto target = snapshot_->find(destination.ip, destination.port, "UDP");
  if (!target) return nullptr;
  return std::make_unique<Route>(*this, client, destination, *target, snapshot_->version());
}

}  // namespace edgemesh::proxy
