// Siblings: the other clouds on the same Kubernetes API. Each says where its hub is by a Lease of
// its own (kube-system/edgemesh-cloud-<host>-<port>, label edgemesh.io/cloud=replica, annotation
// edgemesh.io/hub=HOST:PORT), renewed while it lives. What a node signals to a node that is
// connected to another cloud goes there:
//
//   POST https://HUB/edgemesh/signals/<destination>   field X-Edgemesh-From: <sender>, body: the
//   content 204 delivered; 404 the node is not connected there; 429 it gets too many
//
// over mutual TLS: only who has a certificate of the mesh's CA with the subject kCloudUser may ask.
// Signals to one node are passed one after the other, so that they keep their order.
// Threads: the loop given. Callbacks never run from within a call, nor after this object is gone.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/function.h"
#include "core/http/client.h"
#include "core/io/loop.h"
#include "core/obs/metrics.h"
#include "kube/client.h"
#include "kube/informer.h"

namespace edgemesh::cloud {

inline constexpr std::string_view kSignalPath = "/edgemesh/signals/";
inline constexpr const char* kSignalSender = "X-Edgemesh-From";

class Siblings {
 public:
  struct Options {
    std::string host;                   // of this machine, as others may know it
    std::string hub;                    // HOST:PORT that other clouds reach this one's hub by
    std::string identity;               // of this process
    std::shared_ptr<tls::Context> tls;  // shows that this is a cloud
    Duration lifetime = std::chrono::seconds(30);
    Duration renew_every = std::chrono::seconds(10);
    Duration patience = std::chrono::seconds(5);  // with a sibling's answer
    size_t max_waiting = 1000;                    // signals, of all nodes
    size_t max_waiting_a_node = 100;
  };
  Siblings(io::Loop& loop, kube::Client& client, Options options, obs::Registry& registry);
  ~Siblings();

  void start();
  // Takes the lease back, so that nobody asks here any more.
  void stop(UniqueFunction<void()> done);

  using Done = UniqueFunction<void(Result<>)>;
  // kNotFound: the node is connected to none of them. kResourceExhausted: too much waits.
  void pass(const std::string& from, const std::string& to, std::string content, Done done);
  // Hubs that are asked.
  std::vector<std::string> hubs() const;

 private:
  struct Sibling {
    std::string hub;
    std::string renewed;
    TimePoint seen{};  // when its lease last changed
  };
  struct Signal {
    std::string from, content;
    Done done;
  };
  struct Round;  // one signal, asked of all
  void renew();
  void on_lease(const kube::Informer::Object& object);
  void next(const std::string& to);
  void ask(const std::shared_ptr<Round>& round, const std::vector<std::string>& hubs);
  void on_answer(const std::shared_ptr<Round>& round, const std::string& hub,
                 const Result<http::Response>& answer);
  void finish(const std::shared_ptr<Round>& round, Result<> result);

  io::Loop& loop_;
  kube::Client& client_;
  Options options_;
  const std::string name_;  // of our lease
  http::Client http_;
  kube::Informer informer_;
  std::unordered_map<std::string, Sibling> siblings_;  // by the lease's name
  std::unordered_map<std::string, std::deque<Signal>>
      waiting_;  // by destination; the first is asked
  size_t waiting_count_ = 0;
  std::unordered_map<std::string, std::string> places_;  // the hub that had a node lately
  io::Timer renew_timer_;
  obs::Counter& passed_;
  obs::Counter& failed_;
  std::string last_error_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
