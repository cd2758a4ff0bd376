// PeerSession: one attempt at a path to a peer by ICE, and then that path: the agent, its signalling
// and its heartbeats. A peer has one in use and, while a new one is set up, another.
//
//   offerer:   kGathering -> kOffered (again every second) -> kNegotiated -> connected()
//   answerer:  kGathering -> kNegotiated -> connected()
// Heartbeats: 27 bytes, 0x90 | type | role | 8 bytes time | 16 bytes MAC, under a key made of both ICE
// passwords. Threads: the worker loop.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "p2p/ice_path.h"
#include "p2p/signal.h"

namespace edgemesh::p2p {

class PeerSession final : private IceAgent::Handler {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void session_signal(Signal signal) = 0;  // instance, direct and nat are added
    virtual void session_path(PeerSession& session) = 0;  // connected, or the pair changed
    virtual void session_failed(PeerSession& session, const std::string& reason) = 0;
  };
  struct Context {
    io::Loop& loop;
    IceThread& thread;
    DatagramPath::Receiver& receiver;
  };

  PeerSession(const Context& context, Owner& owner, std::string id, bool offerer, IceOptions options);
  ~PeerSession() override;

  // From the peer.
  void remote_offer(const Signal& offer);  // answerer, or an offerer that gives way: takes the id over
  void remote_answer(const Signal& answer);
  void remote_candidates(const Signal& signal);
  void resend();  // the offer or the answer, once more

  // Every 250 ms, or rarely when nothing goes on.
  void tick(bool active);
  void on_heartbeat(std::span<const uint8_t> datagram);
  void note_data() { last_heard_ = loop_.now(); }

  const std::string& id() const { return id_; }
  bool offered() const { return offerer_ && !remote_known_; }  // our offer is not answered
  bool remote_known() const { return remote_known_; }
  bool connected() const { return path_.kind() != PathKind::kNone; }
  bool suspect() const { return suspect_; }  // three heartbeats were not answered
  bool probing() const { return unanswered_ > 0; }
  Duration rtt() const { return rtt_; }
  TimePoint created() const { return created_; }
  TimePoint last_heard() const { return last_heard_; }
  IcePath& path() { return path_; }
  // From our candidates: "none", "cone", "udp blocked"; empty: not known.
  std::string nat_guess() const;

  static constexpr Duration kHeartbeat = std::chrono::milliseconds(250);
  static constexpr Duration kIdleHeartbeat = std::chrono::seconds(5);
  static constexpr int kMisses = 3;

 private:
  void on_ice_local(std::string ufrag, std::string pwd, std::vector<std::string> candidates) override;
  void on_ice_candidate(std::string candidate) override;
  void on_ice_gathered() override;
  void on_ice_pair(IcePair pair) override;
  void on_ice_failed() override;
  void on_ice_datagrams(std::span<const uint8_t> train, size_t segment) override;
  void send_description();
  void take_remote(const Signal& signal);
  void send_heartbeat(uint8_t type, uint64_t time);
  std::array<uint8_t, 16> mac(const uint8_t* data, size_t n) const;

  io::Loop& loop_;
  Owner& owner_;
  std::string id_;
  bool offerer_;
  const bool controlling_;
  IcePath path_;
  std::unique_ptr<IceAgent> agent_;
  std::string ufrag_, pwd_, remote_pwd_, key_;
  std::vector<std::string> candidates_;
  bool described_ = false;  // the offer or answer went out
  bool gathered_ = false;
  bool remote_known_ = false;
  std::vector<std::string> unsent_;  // candidates found since, sent together
  io::Timer trickle_;
  io::Timer again_;  // offers get lost: while the cloud is away, while the peer is
  TimePoint created_;
  TimePoint last_heard_{};
  TimePoint last_ping_{};
  int unanswered_ = 0;
  bool suspect_ = false;
  Duration rtt_{};
};

}  // namespace edgemesh::p2p
