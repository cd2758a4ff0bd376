// EdgedModule (bus module "edged", group "edged"): runs this node's pods on a container runtime,
// from what the metastore holds, with or without a cloud, and tells the cloud how they are.
//
//   node > cloud  update <ns>/podstatus/<name>  {"UID","Name","Status"}: on disk until it is
//   confirmed node > cloud  delete <ns>/pod/<name>        metav1.DeleteOptions: a pod whose
//   deletion was asked for
//                 has ended, and nothing of it is left; its object may go
//   node > cloud  insert <ns>/event/<name>      as long as there is a connection
//
// - What runs already is adopted by the uid on its labels; a new run of the agent restarts nothing.
// - Pods of the runtime that nobody wants (their uid is not in the metastore) are ended, but only
//   when this is sure. A metastore that is new, or was begun anew because the old one was damaged,
//   knows nothing: what runs goes on until the cloud has said which pods are this node's
//   (MetaSink::on_pod_list), or an object came for all that runs. From then on the metastore is
//   trusted, over restarts too. KubeEdge's cloud never says it: there, what runs beside a new
//   metastore is for an administrator to end.
// Threads: the loop given.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/edged/pod_worker.h"
#include "agent/edged/runtime_watch.h"
#include "agent/meta/meta_module.h"
#include "agent/meta/outbox.h"

namespace edgemesh::edged {

inline constexpr const char* kEdgedModule = "edged";

class EdgedModule final : public bus::Module, public agent::MetaSink {
 public:
  struct Options {
    std::string node;
    std::string host_ip;
    // A pod without an object is ended after this time, counted from when it was first seen.
    Duration orphan_after = std::chrono::seconds(30);
  };
  struct Status {
    bool runtime = false;  // it answers
    size_t pods = 0, running = 0;
  };

  // All borrowed. `store` keeps whether its pods are all there are.
  EdgedModule(io::Loop& loop, cri::RuntimeClient& runtime, PodParts& parts, agent::Outbox& outbox,
              agent::Metastore& store, Options options, obs::Registry& registry);
  ~EdgedModule() override;

  std::string_view name() const override { return kEdgedModule; }
  std::string_view group() const override { return "edged"; }
  Result<> start(bus::Bus& bus) override;
  void stop() override;
  void on_message(bus::Message message) override;

  void on_object(const agent::MetaKey& key, std::string_view json) override;
  void on_object_gone(const agent::MetaKey& key, const std::string& uid) override;
  void on_objects_loaded() override { loaded_ = true; }
  void on_pod_list(const std::vector<std::string>& uids) override;

  // What the pod waits for may be here now.
  void retry(const std::string& uid);

  Status status() const;

 private:
  struct Entry {
    std::unique_ptr<PodWorker> worker;
    bool gone = false;       // no object wants it
    bool silent = false;     // never had an object here: the cloud is told nothing
    bool confirmed = false;  // its end was told
    std::string sent;        // the status as told last
  };

  struct Stranger {
    TimePoint seen;
    bool told = false;  // the log knows of it
  };

  void on_views(PodViews views, TimePoint asked);
  void on_runtime(const Result<>& reachable);
  void on_pod_change(const std::string& uid);
  void advance(const std::string& uid);
  void adopt_orphans(PodViews& views);
  void end_orphan(const PodView& view);
  bool may_be_wanted(const std::string& uid) const;
  void send_status(Entry& entry, bool again);
  void send_end(Entry& entry);
  void send_event(const Pod& pod, const PodEvent& event);
  void retry_all();
  void update_pace();
  Entry& entry_for(Pod pod);

  io::Loop& loop_;
  Options options_;
  PodParts& parts_;
  agent::Outbox& outbox_;
  agent::Metastore& store_;
  bus::Bus* bus_ = nullptr;
  bool loaded_ = false, connected_ = false;
  bool trusted_ = false;                       // the metastore has all pods of this node
  std::optional<std::set<std::string>> list_;  // the cloud's, by uid
  Backoff backoff_;
  Images images_;
  HandlerRunner handlers_;
  Prober prober_;
  WorkerShared shared_;
  std::map<std::string, Entry> pods_;  // by uid
  std::map<std::string, Stranger> strangers_;
  std::set<std::string> changed_;
  RuntimeWatch watch_;
  uint64_t events_ = 0;
  obs::Gauge& pods_gauge_;
  obs::Counter& restarts_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
