// Exchange: one request on its way: from the client's stream through routes and policies to an
// endpoint's stream, and the answer back. Kept in the worker's free list; in the steady state a
// request allocates nothing.
//
// The course of it
//   begin          what is known of the client goes into the head; a route is looked for
//   policies       rate limit, RBAC, fault, CORS, JWT, external authorization; each may answer or
//                  wait
//   tries          an endpoint is picked and a stream to it taken from the pool; a try that fails
//                  may be followed by another (retry) or run beside one (hedge)
//   answer         the first try whose answer is taken: the others are dropped, its answer goes to
//                  the client while the request may still be coming
//   finish         counted, logged, given back
// A request's body is not kept unless a retry, a hedge, a mirror or an authorization may need it,
// and then at most L7WorkerOptions::replay_bytes of it: a longer one is sent once. Without any of
// these a few kilobytes are kept until an answer comes, where the endpoint may turn out never to
// have looked at the request (HTTP/2, kept connections); it is then sent again at once, twice at
// most.
// Back-pressure: whoever does not take stops the other side from being read; nothing is held beyond
// what one read gave.
// Threads: the worker's loop.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/compress/encoder.h"
#include "proxy/exchange/remote_keys.h"
#include "proxy/exchange/runtime.h"
#include "proxy/exchange/sub_request.h"
#include "proxy/exchange/upstream_try.h"
#include "proxy/http/stream.h"
#include "proxy/route/facts.h"
#include "proxy/route/retry.h"
#include "proxy/telemetry/response_flags.h"
#include "proxy/telemetry/telemetry.h"
#include "proxy/telemetry/tracing.h"
#include "proxy/upstream/list.h"

namespace edgemesh::proxy {

class HttpConnection;
class L7Worker;

class Exchange final : public HttpStream::Handler, public ListNode<Exchange> {
 public:
  explicit Exchange(L7Worker& worker);
  ~Exchange() override;

  // On a fresh one, or one that was given back.
  void begin(HttpConnection& connection, StreamPtr stream, HeadPtr head, bool end);
  // The client's connection goes away: everything is dropped.
  void abort();
  // The codec answers with `status`, and a reset follows: an HTTP/1 body that cannot be read.
  // False: it is not this request's answer.
  bool codec_answers(int status);

  static constexpr size_t kMaxTries = 4;            // at a time
  static constexpr size_t kRepeatBytes = 8 * 1024;  // of a body that is kept without a policy

 private:
  friend class UpstreamTry;
  enum class State : uint8_t {
    kFree,
    kPolicies,  // one of them waits
    kForwarding,
    kAnswering,  // an answer's head was sent
    kLingering,  // the answer is complete, the request is not
  };

  // The client's stream.
  void on_head(HeadPtr, bool) override {}
  void on_data(std::span<const uint8_t> data, bool end) override;
  void on_trailers(HeadPtr trailers) override;
  void on_reset(ResetReason reason, std::string_view detail) override;
  void on_writable() override;
  void take_body(std::span<const uint8_t> data, bool end);
  void note_request_end();
  void update_reading();

  // exchange_request.cc: what a proxy adds to a request's head. False: it was answered.
  bool check_request();
  const char* overloaded();
  bool clean_path();
  void find_client();
  void note_client_cert();
  void add_request_fields();
  void begin_request_id();
  bool find_route();

  // exchange_policies.cc
  enum class Verdict : uint8_t { kGoOn, kStop };  // kStop: it was answered, or is waited for
  void run_policies();
  void resume_policies();
  Verdict check_policy(uint32_t step);
  Verdict check_cors();
  Verdict check_jwt();
  Verdict check_authz();
  void on_body_for_authz();
  void ask_authz();
  void on_authz(Result<SubAnswer> answer);
  Verdict check_rbac();
  Verdict check_rate();
  Verdict check_fault();
  void act_on_fault();

  // exchange_mirror.cc
  void begin_mirrors();
  void send_mirrors();

  // exchange_forward.cc
  void act();
  void redirect();
  void direct_response();
  void forward();
  bool choose_cluster();
  void start_first_tries();
  void start_try();
  UpstreamTry* free_try();
  Host* pick_host();
  void prepare_try(const Host& host);
  void take_expectation();  // 100-continue is ours to answer
  void send_continue();
  void on_try_ready(UpstreamTry& ready);
  void on_try_unconnected(UpstreamTry& failed);
  void on_try_reset(UpstreamTry& failed, ResetReason reason, std::string_view detail);
  void keep_or_drop_body(UpstreamTry& ready);
  void repeat(UpstreamTry& failed);
  bool may_repeat(const UpstreamTry& failed, ResetReason reason, std::string_view detail) const;
  void on_try_timeout(UpstreamTry& late);
  void on_try_failed(UpstreamTry& failed, TryResult result, uint32_t flags,
                     std::string_view detail);
  bool may_retry(TryResult result, const Head* answer, bool sent);
  void retry_later();
  void on_route_timeout();
  bool any_try_open() const;
  bool tunnel_wanted() const;
  void drop_tries();
  void close_tries();
  void end_try(UpstreamTry& which);

  // exchange_answer.cc
  void on_try_head(UpstreamTry& from, HeadPtr head, bool end);
  void forward_informational(const Head& head);
  void answer_websocket_key();
  void commit(UpstreamTry& from, HeadPtr head, bool end);
  void add_answer_fields(Head* head);
  void begin_encoding(Head* head);
  void send_encoded(std::span<const uint8_t> data, bool end);
  void on_try_data(UpstreamTry& from, std::span<const uint8_t> data, bool end);
  void on_try_trailers(UpstreamTry& from, HeadPtr trailers);
  void on_try_lost(UpstreamTry& from, uint32_t flags, std::string_view detail);
  void answer_ended();
  void finish_or_linger();
  // An answer of our own. gRPC clients get it as a gRPC status.
  void reply(int status, std::string_view body, uint32_t flags, std::string_view detail);
  void send_reply(HeadPtr head, std::string_view body);
  static std::string percent_encode(std::string_view text);
  // The stream is cut: an answer that was begun cannot be completed.
  void cut(uint32_t flags, std::string_view detail);
  void cut_or_reply(int status, uint32_t flags, std::string_view detail);
  void finish();
  LogFacts log_facts() const;
  // For fields that are set while the request is under way: without what costs a system call.
  LogFacts log_facts_for_fields() const { return log_facts(); }

  // exchange_telemetry.cc
  void begin_trace();
  int grpc_status() const;
  void note_upstream(Host& host);
  void tell_end();
  void count_end(WorkerTelemetry& telemetry, const LogFacts& facts, bool grpc);
  void put_span(SpanLane& lane, const LogFacts& facts) const;

  // Times. One timer for all; it is not stopped when a deadline moves on, but looks again.
  void set_deadline(TimePoint* which, TimePoint when);
  void note_activity();
  void on_timer();
  void arm();

  // A policy of the route's (or its host's) own, else the listener's; null: none. It lives as long
  // as version_.
  template <class T>
  const T* policy(std::shared_ptr<const T> Policies::*member, bool Policies::*off = nullptr) const {
    const Policies* own = entry_->policies.get();
    const Policies* outer = (*version_)->policies.get();
    if (own != nullptr && off != nullptr && own->*off) return nullptr;
    if (own != nullptr && own->*member != nullptr) return (own->*member).get();
    return outer != nullptr ? (outer->*member).get() : nullptr;
  }
  const model::Compression* compression() const;
  const model::HttpChain& chain() const { return *(*version_)->spec; }

  L7Worker& worker_;
  HttpConnection* connection_ = nullptr;
  ChainVersionRef version_;
  StreamPtr down_;
  HeadPtr request_;
  HeadPtr request_trailers_;
  HeadPtr answer_, answer_trailers_;  // for the log
  Facts facts_;
  const RouteEntry* entry_ = nullptr;  // lives as long as version_
  ClusterRef cluster_;
  size_t cluster_index_ = 0;                         // of the route's weighted clusters
  std::vector<uint8_t> body_;                        // what is kept of the request's body
  std::string set_cookie_;                           // of a hash policy
  std::vector<std::unique_ptr<UpstreamTry>> tries_;  // reused; the open ones are marked
  std::vector<const Host*> tried_;
  UpstreamTry* winner_ = nullptr;
  const FaultRules* fault_ = nullptr;  // while it counts as one with a fault
  const AuthzRules* authz_ = nullptr;
  std::unique_ptr<Encoder> encoder_;  // null: the answer goes as it is
  std::unique_ptr<SubRequest> sub_;   // the authorization's
  std::unique_ptr<JwtClaims> claims_;
  KeyWait key_wait_;

  io::Timer timer_;
  TimePoint route_deadline_{}, stream_deadline_{}, wake_at_{};  // zero: none
  TimePoint last_active_{};
  Duration idle_timeout_{}, whole_timeout_{};
  TimePoint begun_{}, answer_begun_{};

  TraceContext trace_;
  SockAddr upstream_;               // of the last try; port 0: none
  std::string_view upstream_path_;  // what carries it, once it is connected
  LabelSetId stats_destination_ = kUnknownPeer;
  uint64_t received_ = 0, sent_ = 0;  // bytes of bodies
  uint64_t lingered_ = 0;
  uint64_t hash_ = 0;
  uint32_t flags_ = 0;
  std::string detail_;  // of the end
  uint32_t attempts_ = 0;
  uint32_t policy_step_ = 0;
  uint32_t mirrors_ = 0;  // bits: which of the route's mirrors this request goes to
  int status_ = 0;        // of the answer; 0: none
  int fault_abort_ = 0, fault_grpc_ = -1;
  State state_ = State::kFree;
  bool has_hash_ = false;
  bool request_ended_ = false;
  bool answer_ended_ = false;
  bool tunnel_ = false;     // after 101, or 2xx to CONNECT
  bool keep_body_ = false;  // more tries, or others who need it, may come
  bool body_lost_ = false;  // it grew too long to be kept
  bool reading_off_ = false;
  bool may_retry_ = false;      // the policy is for this request
  bool wants_body_ = false;     // the authorization does
  bool cors_ = false;           // the answer gets CORS fields
  bool owes_continue_ = false;  // "100 Continue" is ours to send
  bool retry_taken_ = false;    // of the cluster's retries, for the try that comes
  bool traced_ = false;         // trace_ is set
  bool keep_short_ = false;     // of keep_body_: no policy wants it, and a short one only
  uint8_t repeats_ = 0;         // sent again because no endpoint had looked at it
};

}  // namespace edgemesh::proxy
