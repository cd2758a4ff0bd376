// NodeClaims: which node names are taken. A name is taken once a certificate was issued for it: a join token
// is shared by many machines, and must not give one of them the identity of another.
//
// The Node object of the Kubernetes API remembers it, in the annotation edgemesh.io/certificate
// {"key": hex SHA-256 of the public key, "issued": RFC 3339, "notBefore": that of the certificate, Unix seconds}: several clouds of one mesh agree, and
// `kubectl delete node X` frees the name. A Node that no certificate was issued for (a kubelet's) may be
// claimed, and is made when there is none. Who asks again with the same key gets a certificate again: its
// first answer was lost. Two claims at the same time: one wins.
// Threads: the client's loop.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "cloud/node_link.h"
#include "core/base/clock.h"
#include "kube/client.h"

namespace edgemesh::cloud {

inline constexpr const char* kCertificateAnnotation = "edgemesh.io/certificate";

struct NodeClaim {
  std::string node;
  std::string key_hash;
  bool replace = false;    // whoever has the name now loses it
  int64_t not_before = 0;  // of the certificate; earlier ones of this node count no more
};

class NodeClaims {
 public:
  using Done = UniqueFunction<void(Result<>)>;

  NodeClaims(kube::Client& client, const NodeLink& link, const Clock& clock = system_clock());
  ~NodeClaims();
  // kAlreadyExists: the name is another's; the message says what to do and may be shown to the peer. Other
  // errors are the API's. `done` may run from within the call, and does not after this object is gone.
  void claim(NodeClaim claim, Done done);

 private:
  struct Attempt;
  void look(std::shared_ptr<Attempt> attempt);
  void on_node(std::shared_ptr<Attempt> attempt, Result<std::string> object);
  void on_written(std::shared_ptr<Attempt> attempt, Result<std::string> result);
  std::string annotation(const NodeClaim& claim) const;

  kube::Client& client_;
  const NodeLink& link_;
  const Clock& clock_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::cloud
