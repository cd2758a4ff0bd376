// Revocations: which node certificates count no more though they have not run out. A node loses its
// certificates when its Node object is deleted, and when a token with --replace gives its name to another
// machine.
//
// Certificates are revoked by age: those of node X whose notBefore lies before a moment. Who joins as X
// later gets one that begins at that moment at the earliest (not_before_floor), so one entry a node is
// enough, however often its certificate was renewed. The annotation edgemesh.io/certificate of the Node says
// from when on its certificates count ("notBefore"): several clouds of one mesh agree.
//
// Kept in a file of the state directory, with the names of the nodes that have certificates: who was deleted
// while the cloud was down is found when it is back. With another API than before (an empty store, another cluster:
// told by the uid of the namespace kube-system) all nodes would seem deleted: those names are forgotten instead, what
// is revoked stays so. An entry goes when the last certificate that it could be
// about has run out and can no longer be renewed; agents need not know it for that long.
// Written by the pool's threads: a busy disk does not hold up the loop. What was told before it was written is
// told again after a crash, from the Node objects.
// Threads: one loop.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/io/loop.h"
#include "core/obs/metrics.h"
#include "kube/informer.h"

namespace edgemesh::cloud {

struct RevocationOptions {
  std::string path;  // the file
  std::chrono::seconds lifetime = std::chrono::hours(24 * 365);     // of node certificates
  std::chrono::seconds renew_grace = std::chrono::hours(24 * 365);  // as BootstrapOptions
  size_t max_entries = 4096;  // beyond it those go first that run out first
};

struct RevokedNode {
  std::string node;
  int64_t before = 0;  // Unix seconds: certificates with an earlier notBefore
};

class Revocations {
 public:
  // An error: the file is there and cannot be read. To go on without it would let in who was put out.
  static Result<std::unique_ptr<Revocations>> open(io::Loop& loop, kube::Client& client,
                                                   RevocationOptions options, obs::Registry& registry);
  ~Revocations();
  // Entries were made or changed. Never from within a call to this object.
  void set_on_change(std::function<void()> on_change) { on_change_ = std::move(on_change); }
  void start();

  // kPermissionDenied: revoked. The message may be shown to the peer.
  Result<> check(const std::string& node, int64_t not_before) const;
  // What a new certificate's notBefore must be at least. `replaces`: those issued so far shall end.
  int64_t not_before_floor(const std::string& node, bool replaces) const;
  // Whether a Node that is absent may be made for a node that is connected by a certificate with this notBefore.
  // False while the nodes were not listed yet, and for one that is thought to be there, or whose certificate ended
  // with its Node: to make it would undo the deletion.
  bool may_create(const std::string& node, int64_t not_before) const;
  // What agents must know, by name.
  std::vector<RevokedNode> list() const;

 private:
  struct Entry {
    int64_t before = 0;
    int64_t until = 0;  // when the last of them runs out, Unix seconds
  };
  Revocations(io::Loop& loop, kube::Client& client, RevocationOptions options, obs::Registry& registry);
  // The file, for the threads that write it: an older state never comes after a newer one.
  struct File;
  Result<> load();
  void save();
  void on_saved(const Result<>& done);
  std::string text() const;
  void ask_cluster();
  void on_cluster(const Result<std::string>& object);
  void on_node(const kube::Informer::Object& object);
  void on_deleted(const std::string& node);
  void on_synced();
  void revoke(const std::string& node, int64_t before);
  void drop_old();
  void changed();
  int64_t now() const;

  io::Loop& loop_;
  kube::Client& client_;
  RevocationOptions options_;
  std::string cluster_;  // which API it is; empty: not known
  std::unordered_map<std::string, int64_t> known_;  // nodes with certificates; from when on they count, 0: unknown
  std::unordered_map<std::string, Entry> revoked_;
  std::function<void()> on_change_;
  bool synced_ = false;
  std::shared_ptr<File> file_;
  uint64_t state_ = 0;  // counts what was handed to the file
  bool saving_ = false;
  bool save_again_ = false;  // it changed since
  io::Timer save_timer_;
  io::Timer tell_timer_;
  io::Timer clean_timer_;
  io::Timer ask_timer_;
  obs::Gauge& entries_;
  std::unique_ptr<kube::Informer> nodes_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
