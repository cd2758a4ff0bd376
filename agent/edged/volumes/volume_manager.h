// VolumeManager: what pods find in their folders: emptyDir, hostPath, configMap, secret,
// downwardAPI, projected, and /etc/hosts; on disk under <root>/<uid>, secrets in memory.
//
// - Contents of config maps, secrets and the downward API follow their source while the pod runs:
//   all files of a volume change at once. What is mounted by subPath does not, as in Kubernetes.
// - What a volume needs and is not there yet: kNotFound (`configmap "x" not found`), unless it is
//   optional. What a pod must not do (a path out of its volume): kInvalidArgument.
// - Where the runtime cannot see this process's mounts, secrets and memory volumes are on disk, in
//   folders that only root reaches; the log says so once.
// - Volume types that are not known are refused: a pod must not run without its data.
// Blocking, local files alone. Threads: one.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/edged/spec/fields.h"
#include "agent/edged/spec/object_source.h"
#include "agent/edged/spec/pod_spec.h"
#include "agent/edged/spec/translate.h"
#include "agent/edged/volumes/atomic_dir.h"
#include "agent/edged/volumes/mounter.h"

namespace edgemesh::edged {

// Tokens of service accounts for projected volumes.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  // The token as it is now. kUnavailable: asked for, not here yet; other errors: it was refused.
  virtual Result<std::string> token(const Pod& pod, const std::string& audience,
                                    int64_t expiration_s) = 0;
  // The pod's tokens are wanted no more.
  virtual void forget(const std::string& uid) = 0;
  // Of all pods but these.
  virtual void forget_others(const std::set<std::string>& uids) = 0;
};

class VolumeManager {
 public:
  struct Options {
    std::string root;     // <root>/<uid> is a pod's
    FieldContext fields;  // without pod_ips
    std::string cluster_domain = "cluster.local";
  };

  // All borrowed; `tokens` may be null: pods run without the token then, and the log says so.
  VolumeManager(Options options, ObjectSource& objects, TokenSource* tokens, Mounter& mounter)
      : options_(std::move(options)), objects_(objects), tokens_(tokens), mounter_(mounter) {}

  // Makes and fills all volumes of the pod. Again: fills them with what is so now.
  Result<> set_up(const Pod& pod);
  // A pod that an earlier run set up, or a newer version of one: its volumes are followed.
  void follow(const Pod& pod);
  // The mounts of a container, as the runtime is asked for. `env` for subPathExpr, `pod_ip` for the
  // hosts file; `attempt` names the file of the termination message.
  Result<std::vector<pb::Mount>> mounts(const Pod& pod, const Container& container, const Env& env,
                                        const std::string& pod_ip, uint32_t attempt);
  std::string last_words_file(const Pod& pod, const std::string& container, uint32_t attempt) const;
  // Of volumes that hold this object, in pods that were set up. Volumes that cannot be filled keep
  // what they had.
  void refresh(const std::string& kind, const std::string& ns, const std::string& name);
  // Of volumes of the pod that hold a token.
  void refresh_tokens(const std::string& uid);
  // Unmounts and removes all of it.
  Result<> tear_down(const std::string& uid);
  // Removes what earlier runs left of pods that are not among these.
  void remove_strangers(const std::set<std::string>& uids);

 private:
  using Json = nlohmann::json;
  std::string folder_of(const std::string& uid) const { return options_.root + "/" + uid; }
  std::string volume_folder(const Pod& pod, const std::string& volume) const;
  Result<> mount_memory(const std::string& folder, int64_t bytes);
  void refill(const Pod& pod, const Json& volume);
  Result<> set_up_empty(const Pod& pod, const Json& spec, const std::string& folder);
  Result<> set_up_volume(const Pod& pod, const Json& volume);
  Result<> fill(const Pod& pod, const Json& volume, const std::string& folder);
  Result<pb::Mount> mount(const Pod& pod, const Container& container, const Json& wanted,
                          const Env& env);
  Result<> write_hosts(const Pod& pod, const std::string& pod_ip, const std::string& path);

  Options options_;
  ObjectSource& objects_;
  TokenSource* tokens_;
  Mounter& mounter_;
  bool warned_ = false;
  std::map<std::string, Pod> pods_;  // that were set up, by uid
};

}  // namespace edgemesh::edged
