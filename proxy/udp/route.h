// UdpRoute: where the datagrams of one flow go, and where else when nobody is there. UdpDirectory:
// finds the route for a destination. Threads: the worker's loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/net_addr.h"
#include "discovery/picker.h"
#include "discovery/snapshot.h"

namespace edgemesh::proxy {

class UdpRoute {
 public:
  virtual ~UdpRoute() = default;  // gives the endpoint back
  // Chooses an endpoint: the first one, or another after failed(). When all have failed they are
  // tried again from the start. False: there is none.
  virtual bool choose() = 0;
  // Goes on with an endpoint that another process chose. False: it is none of the service's now.
  virtual bool resume(const SockAddr& endpoint) = 0;
  // Of the last choose() or resume().
  virtual const SockAddr& endpoint() const = 0;
  virtual std::string_view node() const = 0;  // of the endpoint; empty: reached from here
  virtual bool remote() const = 0;
  // False when the endpoint is not one of the service's any more. Cheap while nothing changed.
  virtual bool current() = 0;
  virtual void answered() = 0;           // the endpoint sent something
  virtual void failed() = 0;             // its port is unreachable, or its tunnel
  virtual std::string name() const = 0;  // of the service, for the access log
};

class UdpDirectory {
 public:
  virtual ~UdpDirectory() = default;
  // Null: that is no service.
  virtual std::unique_ptr<UdpRoute> find(const SockAddr& client, const SockAddr& destination) = 0;
};

// UDP services of a snapshot, or one fixed service whatever the destination.
class ServiceDirectory final : public UdpDirectory {
 public:
  using SnapshotPtr = std::shared_ptr<const discovery::Snapshot>;
  // `snapshot`: of the worker, borrowed; it may change and be null.
  ServiceDirectory(std::string node, std::string zone, const SnapshotPtr& snapshot,
                   std::shared_ptr<const discovery::ServiceEntry> fixed = nullptr,
                   Clock& clock = system_clock());
  std::unique_ptr<UdpRoute> find(const SockAddr& client, const SockAddr& destination) override;

 private:
  class Route;
  std::string node_;
  const SnapshotPtr& snapshot_;
  std::shared_ptr<const discovery::ServiceEntry> fixed_;
  discovery::Picker picker_;
};

}  // namespace edgemesh::proxy
