// PodTokens: tokens of service accounts for the pods of this node, asked for at the cloud and
// renewed while the pod runs.
//
//   node > cloud  query <ns>/serviceaccounttoken/<account>  TokenRequest (authentication.k8s.io/v1)
//                 bound to the pod; the answer is the same with its status (KubeEdge's message)
//
// - Renewed after 80 % of its life, or 24 hours (kubelet's rule), counted from when it came by this
//   node's wall clock, which may differ from the cloud's; a request that failed is made again after
//   1 s to 60 s. Without a connection nothing is asked.
// - The last token of a pod is on disk too, with what else the node knows: a pod starts again with
//   no cloud. It is given out after its end as well, when there is no newer one: who checks it
//   decides, and the pod runs.
// - Limits: kMaxTokens; kMaxAsking on their way at a time.
// Threads: the loop of the bus.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "agent/edged/volumes/volume_manager.h"
#include "agent/metastore.h"
#include "core/bus/bus.h"

namespace edgemesh::edged {

class PodTokens final : public TokenSource {
 public:
  static constexpr size_t kMaxTokens = 4096;
  static constexpr size_t kMaxAsking = 16;
  static constexpr Duration kLookEvery = std::chrono::seconds(10);

  // The pod has another token than before.
  using OnNew = std::function<void(const std::string& uid)>;
  // All borrowed. `connected`: whether there is a way to the cloud now. Reads what is on disk:
  // blocking.
  PodTokens(bus::Bus& bus, agent::Metastore& store, std::function<bool()> connected, OnNew on_new);
  ~PodTokens() override;

  Result<std::string> token(const Pod& pod, const std::string& audience,
                            int64_t expiration_s) override;
  void forget(const std::string& uid) override;
  void forget_others(const std::set<std::string>& uids) override;
  size_t size() const { return tokens_.size(); }

 private:
  struct Token {
    std::string text;    // empty: none yet
    int64_t came_s = 0;  // Unix seconds of this node
    int64_t life_s = 0;
    std::string resource, request;  // to ask for it; empty: its pod was not seen in this run
    bool asking = false;
    int failures = 0;
    TimePoint ask_after{};
    Error refusal;  // of the last request that failed
  };
  using Tokens = std::map<std::string, Token>;  // by <uid>/<seconds>/<audience>

  void load();
  bool due(const Token& token) const;
  void ask(const std::string& key, Token& token);
  void on_answer(const std::string& key, Result<bus::Message> answer);
  Result<> take(Token& token, const bus::Message& answer) const;
  void erase(Tokens::iterator first, Tokens::iterator last);
  void look();

  bus::Bus& bus_;
  agent::Metastore& store_;
  std::function<bool()> connected_;
  OnNew on_new_;
  Tokens tokens_;
  size_t asking_ = 0;
  io::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::edged
