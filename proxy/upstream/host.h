// Host: one endpoint as one worker sees it. Lives while its cluster lists it or a HostRef points to
// it (a request, a connection). Threads: the worker's loop.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "proxy/upstream/host_set.h"
#include "proxy/upstream/shared.h"

namespace edgemesh::proxy {

class ClusterState;

// Counted pointers for objects of one thread.
template <class T>
class LocalRef {
 public:
  LocalRef() = default;
  explicit LocalRef(T* object) : object_(object) {
    if (object_ != nullptr) object_->ref();
  }
  LocalRef(const LocalRef& other) : LocalRef(other.object_) {}
  LocalRef(LocalRef&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  LocalRef& operator=(LocalRef other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~LocalRef() {
    if (object_ != nullptr) object_->unref();
  }
  T* get() const { return object_; }
  T& operator*() const { return *object_; }
  T* operator->() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }
  void reset() { *this = LocalRef(); }

 private:
  T* object_ = nullptr;
};

// What the connection pool hangs on a host.
class HostAttachment {
 public:
  virtual ~HostAttachment() = default;
  virtual void on_host_removed() = 0;    // the cluster does not list it any more
  virtual void on_host_unhealthy() = 0;  // an active check failed
};

class Host {
 public:
  Host(ClusterState& cluster, std::shared_ptr<const HostSet> set, uint32_t index);
  // A host that no set lists (original destination).
  Host(ClusterState& cluster, const SockAddr& addr);
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  const model::Endpoint& endpoint() const { return *endpoint_; }
  const SockAddr& addr() const { return endpoint_->addr; }
  SharedHost& shared() const { return *shared_; }
  HostStats& stats() const { return stats_; }
  ClusterState& cluster() const { return *cluster_; }
  uint32_t active() const { return stats_.active_requests.value(); }
  bool removed() const { return removed_; }

  // A number that telemetry gives to the host; 0: none yet.
  uint32_t label() const { return label_; }
  void set_label(uint32_t label) { label_ = label; }

  // Owned; made by the pool.
  HostAttachment* attachment() const { return attachment_.get(); }
  void attach(std::unique_ptr<HostAttachment> attachment) { attachment_ = std::move(attachment); }

 private:
  friend class ClusterState;
  friend class LocalRef<Host>;
  void ref() { ++refs_; }
  void unref() {
    if (--refs_ == 0) delete this;
  }

  uint32_t refs_ = 0;
  uint32_t label_ = 0;
  bool removed_ = false;
  bool check_failed_ = false;  // when it was last looked at
  LocalRef<ClusterState> cluster_;
  std::shared_ptr<const model::Endpoint> endpoint_;  // keeps its set alive
  std::shared_ptr<SharedHost> shared_;
  HostStats& stats_;
  TimePoint last_used_{};  // original destination
  std::unique_ptr<HostAttachment> attachment_;
};

using HostRef = LocalRef<Host>;
using ClusterRef = LocalRef<ClusterState>;

}  // namespace edgemesh::proxy
