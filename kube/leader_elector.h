// LeaderElector: of several processes on one Kubernetes API one leads, by a Lease
// (coordination.k8s.io/v1) as client-go's leaderelection and all of Kubernetes' controllers keep
// it: holderIdentity, leaseDurationSeconds, acquireTime, renewTime, leaseTransitions.
//
// - Who does not lead looks at the lease every retry period (with jitter), and takes it when it was
// not renewed for
//   its duration, measured here from the last change that was seen: clocks of other machines do not
//   matter.
// - Who leads renews it every retry period; when that fails for renew_deadline, it leads no more.
// The deadline is
//   shorter than the duration, so that two never lead at a time.
// - stop() gives the lease back, so that another leads at once.
// Threads: the loop given. Callbacks never run from within a call.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <random>
#include <string>

#include "core/base/function.h"
#include "core/io/loop.h"
#include "kube/client.h"

namespace edgemesh::kube {

class LeaderElector {
 public:
  struct Options {
    std::string ns = "kube-system";
    std::string name;
    std::string identity;  // of this process; unique
    std::chrono::seconds lease_duration{15};
    Duration renew_deadline = std::chrono::seconds(10);
    Duration retry_period = std::chrono::seconds(2);
    uint64_t seed = 0;  // of the jitter; 0: random
  };
  struct Handlers {
    UniqueFunction<void()> on_leads;
    UniqueFunction<void()> on_follows;  // after on_leads only
    UniqueFunction<void(const std::string& identity)> on_new_leader;
  };
  LeaderElector(io::Loop& loop, Client& client, Options options, Handlers handlers);
  ~LeaderElector();  // without giving the lease back

  void start();
  // `done`: the lease was given back, or that failed.
  void stop(UniqueFunction<void()> done);
  bool leads() const { return leads_; }
  const std::string& leader() const { return leader_; }  // empty: not known

 private:
  void turn();
  void on_lease(Result<std::string> object);
  void take(const nlohmann::json* lease);
  void on_written(Result<std::string> object);
  void observe(const nlohmann::json& lease);
  void again();
  void note_error(const Error& error);
  void lose(const std::string& why);
  nlohmann::json spec(const nlohmann::json* before) const;
  Client::Callback guarded(UniqueFunction<void(Result<std::string>)> then);

  io::Loop& loop_;
  Client& client_;
  Options options_;
  Handlers handlers_;
  std::mt19937_64 random_;
  bool running_ = false;
  bool leads_ = false;
  bool asking_ = false;  // an answer is due
  std::string leader_;
  std::string lease_;       // as last seen; empty: none
  TimePoint seen_at_{};     // when it last changed
  TimePoint renewed_at_{};  // our last write that was taken: the moment it was sent
  TimePoint asked_at_{};
  std::string last_error_;
  io::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::kube
