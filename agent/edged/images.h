// Images: brings the images that containers need onto the node, by their pull policy.
//
// - One pull at a time for an image, a few in all; who needs the same image shares it.
// - A pull that failed is tried again after 10 s, doubled up to 5 min (kubelet's ErrImagePull and
//   ImagePullBackOff).
// - Policy Always and the registry cannot be reached: what is on the node is used, and the log says
//   so. A node that is cut off must be able to start its pods again; kubelet leaves them down.
// Threads: the loop given.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/cri/runtime_client.h"
#include "agent/edged/backoff.h"
#include "agent/edged/spec/pod_spec.h"

namespace edgemesh::edged {

struct ImageNeed {
  std::string pod_uid;
  std::string container;
  uint32_t attempt = 0;  // Always pulls once for each
  std::string image;
  PullPolicy policy = PullPolicy::kIfNotPresent;
  std::vector<cri::pb::AuthConfig> auths;  // tried in this order; none: without a login
};

struct ImageState {
  enum class Kind { kBusy, kReady, kFailed };
  Kind kind = Kind::kBusy;
  std::string reason, message;  // of a failure, as a container's waiting state says it
  TimePoint retry_at{};         // of a failure
};

class Images {
 public:
  using OnChange = std::function<void(const std::string& pod_uid)>;
  Images(io::Loop& loop, cri::RuntimeClient& runtime, OnChange on_change);
  ~Images();

  // What is known; starts what is missing. on_change is called, later, when that changes.
  ImageState need(const ImageNeed& need);
  // The container was made, or is not wanted any more.
  void done(const std::string& pod_uid, const std::string& container);
  void forget_pod(const std::string& pod_uid);

 private:
  struct Entry {
    ImageNeed need;
    ImageState state;
    bool present = false;  // on the node, before a pull
    size_t auth = 0;
  };
  using Key = std::pair<std::string, std::string>;  // pod, container
  struct Pull {
    std::set<Key> waiting;
    cri::pb::PullImageRequest request;
    bool running = false;
  };

  void look(const Key& key);
  void on_status(const Key& key, const std::string& image, Result<bool> present);
  void pull(const Key& key);
  void pump();
  void on_pulled(const std::string& id, Result<std::string> result);
  void settle(const Key& key, const std::string& image, const Result<std::string>& result);
  void fail_entry(Entry& entry, std::string reason, std::string message, TimePoint retry_at);

  io::Loop& loop_;
  cri::RuntimeClient& runtime_;
  OnChange on_change_;
  std::map<Key, Entry> entries_;
  std::map<std::string, Pull> pulls_;  // by image and login
  std::deque<std::string> queue_;
  size_t running_ = 0;
  Backoff backoff_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
