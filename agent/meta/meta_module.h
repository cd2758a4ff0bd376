// MetaModule (bus module "metamanager", group "meta", KubeEdge's metamanager): the Kubernetes
// objects that this node needs, kept on disk: its pods, the config maps and secrets that they name,
// its own Node.
//
//   cloud > node  insert, update, delete <ns>/<kind>/<name>, group resource; each is confirmed by a
//   response
//                 "OK" after it is on disk, never before
//   connect       node > cloud  get objects {"objects":[{resource,uid,resourceVersion}]}, group
//   mesh: what
//                 is on disk. The cloud sends what is missing, and deletes what is gone. A KubeEdge
//                 cloud does not know this message and goes by its own records.
//   cloud > node  update null/podlist/<node> {"uids":[...]}: the answer to it; not confirmed
//
// The sink hears of an object after it is on disk, so that nothing runs that a restart would not
// know of; at start it hears of all that is stored, with or without a cloud. What comes twice, or
// older than what is stored, is confirmed and else ignored. A write that failed is not confirmed:
// the cloud sends it again. Threads: the loop given.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/metastore.h"
#include "core/bus/bus.h"
#include "core/channel/resource.h"
#include "core/obs/metrics.h"

namespace edgemesh::agent {

inline constexpr const char* kMetaModule = "metamanager";

// Of a stored object; `kind` is "pod", "configmap", "secret" or "node".
using MetaKey = channel::ResourceName;

class MetaSink {
 public:
  virtual ~MetaSink() = default;
  // Stored anew or changed. `json` is valid during the call.
  virtual void on_object(const MetaKey& key, std::string_view json) = 0;
  virtual void on_object_gone(const MetaKey& key, const std::string& uid) = 0;
  // Once: all that was on disk has been told.
  virtual void on_objects_loaded() {}
  // After each connect, from a cloud of ours: the uids of all pods that are this node's by now.
  // Objects of some may still be on their way.
  virtual void on_pod_list(const std::vector<std::string>& uids) { (void)uids; }
};

class MetaModule final : public bus::Module {
 public:
  struct Status {
    size_t objects = 0;
    uint64_t received = 0, confirmed = 0, ignored = 0, failed = 0;
    bool connected = false;
  };

  MetaModule(io::Loop& loop, Metastore& store, obs::Registry& registry);
  ~MetaModule() override;
  // Before start(); borrowed.
  void add_sink(MetaSink* sink) { sinks_.push_back(sink); }

  std::string_view name() const override { return kMetaModule; }
  std::string_view group() const override { return "meta"; }
  Result<> start(bus::Bus& bus) override;
  void stop() override;
  void on_message(bus::Message message) override;

  // As on disk. Blocking for the time of one read. kNotFound.
  Result<std::string> get(const MetaKey& key);
  bool has(const MetaKey& key) const { return index_.contains(key); }
  // Every stored object of a kind, in the order of namespace and name.
  Result<> for_each(std::string_view kind,
                    const std::function<void(const MetaKey& key, std::string_view json)>& fn);
  Status status() const;

 private:
  struct Entry {
    std::string uid, version;
  };
  // Waits for the disk.
  struct Arrived {
    bus::Message message;
    MetaKey key;
    Entry entry;
    bool deletion = false;
    bool changes = false;  // else it is only confirmed
  };

  Result<> load(const char* kind);
  void on_connection(bool connected);
  void send_inventory();
  void on_change(bus::Message message, MetaKey key);
  void on_pod_list(const bus::Message& message);
  bool take(Arrived& arrived);
  void flush();
  void on_flushed(std::vector<Arrived> batch, bool stored);
  void confirm(const bus::Message& message);
  void tell(const Arrived& arrived);

  io::Loop& loop_;
  Metastore& store_;
  std::vector<MetaSink*> sinks_;
  bus::Bus* bus_ = nullptr;
  bool connected_ = false;
  std::map<MetaKey, Entry> index_;
  std::vector<Arrived> batch_;
  Status status_;
  obs::Counter& received_;
  obs::Counter& failed_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::agent
