// Cluster: the objects of the Kubernetes API that the controllers look at, in memory, and the door
// by which they write. What a controller wrote is seen at once by all of them, not only when the
// watch brings it: so none acts twice on what it has just done.
//
// Objects are immutable and shared; pointers are valid until the next turn of the loop. Threads:
// the loop given.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kube/client.h"
#include "kube/informer.h"

namespace edgemesh::cloud::controllers {

struct ClusterObject {
  const kube::ResourceType* type;
  std::string ns, name, uid, version;
  std::string controller;           // uid of the owner that controls it, or empty
  std::vector<std::string> owners;  // uids of all owners
  std::shared_ptr<const nlohmann::json> value;

  const nlohmann::json& json() const { return *value; }
  bool deleting() const;
  std::string key() const { return kube::object_key(ns, name); }
};
using SharedObject = std::shared_ptr<const ClusterObject>;

class Cluster {
 public:
  using Json = nlohmann::json;
  using Done = UniqueFunction<void(Result<SharedObject>)>;
  // What has to be kept of a type's objects; the most that anyone asked for is.
  enum class Keep { kMetadata, kWhole };
  // One of both is null: made, changed, gone.
  using OnChange = std::function<void(const SharedObject& before, const SharedObject& after)>;

  Cluster(io::Loop& loop, kube::Client& client);
  ~Cluster();

  // Before start(). `type` must outlive the cluster.
  void follow(const kube::ResourceType& type, Keep keep = Keep::kWhole);
  bool follows(std::string_view api_version, std::string_view kind) const;
  void on_change(const kube::ResourceType& type, OnChange callback, Keep keep = Keep::kWhole);
  // `on_synced` once, when everything that is followed was listed.
  void start(UniqueFunction<void()> on_synced);
  bool synced() const { return missing_ == 0 && started_; }

  SharedObject find(const kube::ResourceType& type, std::string_view ns,
                    std::string_view name) const;
  SharedObject find(const kube::ResourceType& type, std::string_view key) const;
  SharedObject by_uid(const std::string& uid) const;
  // In the order of the keys; ns empty: all.
  void each(const kube::ResourceType& type, std::string_view ns,
            const std::function<void(const SharedObject&)>& fn) const;
  // Of any followed type, that name `uid` among their owners.
  std::vector<SharedObject> owned_by(const std::string& uid) const;
  // Of one type, that `uid` controls.
  std::vector<SharedObject> controlled_by(const std::string& uid,
                                          const kube::ResourceType& type) const;

  void create(const kube::ResourceType& type, std::string_view ns, const Json& body, Done done,
              const std::string& subresource = {});
  void patch(const SharedObject& object, const Json& merge, Done done,
             const std::string& subresource = {});
  void remove(const SharedObject& object, Done done, const kube::DeleteOptions& options = {});

  // Takes the object for what it will be, until the watch brings something newer: for writes whose
  // answer is not the object.
  void assume(const SharedObject& object, Json json);

  io::Loop& loop() { return loop_; }

 private:
  struct Kind {
    const kube::ResourceType* type;
    std::map<std::string, SharedObject, std::less<>> objects;
    std::vector<OnChange> callbacks;
    std::unique_ptr<kube::Informer> informer;
    Keep keep = Keep::kMetadata;
    bool listed = false;
  };

  static SharedObject make_object(const Kind& kind, nlohmann::json json);
  Kind* kind(const kube::ResourceType& type) const;
  void apply(const kube::ResourceType& type, Json json);
  void replace(Kind& kind, const SharedObject& before, const SharedObject& after);
  void erase(Kind& kind, std::string_view key, std::string_view version);
  void index(const SharedObject& object, bool add);
  void tell(Kind& kind, const SharedObject& before, const SharedObject& after);
  kube::Client::Callback taken(const kube::ResourceType& type, Done done);

  io::Loop& loop_;
  kube::Client& client_;
  std::vector<std::unique_ptr<Kind>> kinds_;
  std::unordered_map<std::string, SharedObject> by_uid_;
  std::unordered_map<std::string, std::set<std::string>> owned_;  // owner's uid -> uids
  size_t missing_ = 0;
  bool started_ = false;
  UniqueFunction<void()> on_synced_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// --- small readers of objects ---

// An integer at a path; `otherwise` when it is absent.
int64_t int_at(const nlohmann::json& object, std::initializer_list<const char*> path,
               int64_t otherwise);
// The status of a condition: "True", "False", "Unknown" or "".
std::string condition(const nlohmann::json& object, std::string_view type);
// Sets a condition; its lastTransitionTime changes with its status only. True when something
// changed.
bool set_condition(nlohmann::json& conditions, const std::string& type, const std::string& status,
                   const std::string& reason, const std::string& message, const std::string& now);
// Does a LabelSelector object (matchLabels, matchExpressions) select these labels? An empty or
// absent one selects nothing here.
bool selects(const nlohmann::json* selector, const nlohmann::json* labels);
// {"apiVersion","kind","name","uid","controller":true,"blockOwnerDeletion":true}
nlohmann::json controller_reference(const ClusterObject& owner);

}  // namespace edgemesh::cloud::controllers
