// RuntimeWatch: keeps asking the runtime what it has, and tells of all pods each time: every second
// while something is on the move, every ten seconds else. CRI has no events that all runtimes send
// (containerd 1.6 has none); that a container's process ended is seen at once all the same
// (ExitWatch). Where that cannot be, it asks every two seconds. What list calls do not tell is
// asked once for each new state. Threads: the loop given.
#pragma once

#include <functional>
#include <memory>
#include <unordered_map>

#include "agent/cri/runtime_client.h"
#include "agent/edged/exit_watch.h"
#include "agent/edged/runtime_view.h"

namespace edgemesh::edged {

class RuntimeWatch {
 public:
  static constexpr Duration kBusyEvery = std::chrono::seconds(1);
  static constexpr Duration kBlindEvery = std::chrono::seconds(2);
  static constexpr Duration kIdleEvery = std::chrono::seconds(10);

  // `asked`: when the runtime was asked. What was done to a pod since is not in its view, maybe.
  using OnViews = std::function<void(PodViews views, TimePoint asked)>;
  using OnState = std::function<void(const Result<>& reachable)>;
  RuntimeWatch(io::Loop& loop, cri::RuntimeClient& runtime, OnViews on_views, OnState on_state);
  ~RuntimeWatch();

  void start() { ask(); }
  // Something changed: asks soon; several in a short time ask once.
  void refresh();
  void set_busy(bool busy);
  bool reachable() const { return reachable_; }

 private:
  struct Round {
    TimePoint asked;
    cri::pb::ListPodSandboxResponse sandboxes;
    cri::pb::ListContainersResponse containers;
    PodViews views;
    size_t open = 0;
    bool failed = false;
  };
  using RoundPtr = std::shared_ptr<Round>;

  void ask();
  void on_listed(const RoundPtr& round);
  void ask_details(const RoundPtr& round);
  void close_one(const RoundPtr& round);
  void finish(const RoundPtr& round);
  void on_failed(const Error& error);
  void ask_later();
  void ask_within(Duration wait);
  void on_status(ContainerView& view, const cri::pb::ContainerStatusResponse& answer);
  void follow_processes(const PodViews& views);

  io::Loop& loop_;
  cri::RuntimeClient& runtime_;
  OnViews on_views_;
  OnState on_state_;
  io::Timer timer_;
  ExitWatch exits_;
  bool asking_ = false, again_ = false, busy_ = true, reachable_ = false;
  bool blind_ = false;  // some process cannot be watched
  // Processes that ended, and how often the runtime was asked since without having noticed.
  std::unordered_map<std::string, int> ended_;
  // As told last, by id: details that hold on.
  std::unordered_map<std::string, ContainerView> containers_;
  std::unordered_map<std::string, SandboxView> sandboxes_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
