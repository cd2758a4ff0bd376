// A peer's signals; see signal.h for the rules.
#include <algorithm>

#include "core/base/log.h"
#include "p2p/peer.h"

namespace edgemesh::p2p {

void Peer::session_signal(Signal signal) {
  signal.instance = shared_.instance;
  if (signal.kind == Signal::Kind::kOffer || signal.kind == Signal::Kind::kAnswer) {
    signal.direct = shared_.direct;
    signal.nat = shared_.nat;
  }
  shared_.send_signal(node_, encode_signal(signal));
}

// Another instance: the peer's process was started anew and knows nothing of what we had.
void Peer::check_instance(const Signal& signal) {
  if (instance_ == signal.instance) return;
  bool anew = !instance_.empty();
  instance_ = signal.instance;
  if (!anew) return;
  EM_LOG(kInfo, "p2p", "node {} was restarted", node_);
  endpoint_.close({ErrorCode::kConnectionReset, "the node was restarted", 0});
  destroy(std::move(current_));
  if (pending_ != nullptr && pending_->remote_known()) destroy(std::move(pending_));
  note_kind();
}

void Peer::on_signal(const Signal& signal) {
  touch();
  bool describes = signal.kind == Signal::Kind::kOffer || signal.kind == Signal::Kind::kAnswer;
  if (describes) {
    check_instance(signal);
    if (!signal.nat.empty()) nat_ = signal.nat;
    set_direct(signal.direct);
  } else if (signal.instance != instance_) {
    return;
  }
  switch (signal.kind) {
    case Signal::Kind::kOffer: on_offer(signal); break;
    case Signal::Kind::kAnswer: on_answer(signal); break;
    case Signal::Kind::kBye: on_bye(signal); break;
    case Signal::Kind::kCandidate:
      for (PeerSession* session : {pending_.get(), current_.get()})
        if (session != nullptr && session->id() == signal.session) session->remote_candidates(signal);
      break;
  }
  // Its direct addresses may be news.
  if (describes && !waiting_.empty()) ensure_connecting();
}

void Peer::on_offer(const Signal& offer) {
  if (shared_.ice == nullptr) return;
  for (PeerSession* session : {pending_.get(), current_.get()}) {
    if (session == nullptr || session->id() != offer.session) continue;
    session->remote_candidates(offer);
    return session->resend();  // our answer was lost
  }
  if (pending_ != nullptr && pending_->offered()) {
    // Both offer. The controlling node's offer stands; the other's agent changes over to it.
    if (controlling_) return pending_->resend();
    pending_->remote_offer(offer);
    return;
  }
  destroy(std::move(pending_));
  PeerSession::Context context{loop_, *shared_.ice, endpoint_};
  pending_ = std::make_unique<PeerSession>(context, static_cast<PeerSession::Owner&>(*this), offer.session, false, ice_options());
  pending_->remote_offer(offer);
  last_used_ = loop_.now();  // the peer has a use for it
  wake(Duration::zero());
}

void Peer::on_answer(const Signal& answer) {
  if (pending_ != nullptr && pending_->id() == answer.session) pending_->remote_answer(answer);
}

void Peer::on_bye(const Signal& bye) {
  auto meant = [&](const std::unique_ptr<PeerSession>& session) {
    return session != nullptr && (bye.session.empty() || session->id() == bye.session);
  };
  if (meant(pending_)) destroy(std::move(pending_));
  if (meant(current_)) {
    destroy(std::move(current_));
    endpoint_.close({ErrorCode::kConnectionReset, "the node closed the tunnel", 0});
  }
  last_reason_ = "the node closed the tunnel";
  note_kind();
}

void Peer::on_signal_error(const std::string& reason) {
  touch();
  last_reason_ = reason;
  if (pending_ == nullptr || !pending_->offered()) return;
  // Streams need not wait for what cannot come; the offer is repeated all the same, since the node may
  // only just be coming back to its cloud.
  if (!direct_.dialing()) fail_waiting({ErrorCode::kUnavailable, reason, 0});
  if (endpoint_.streams() == 0 && waiting_.empty()) destroy(std::move(pending_));
}

void Peer::say_bye() {
  if (current_ != nullptr || pending_ != nullptr) {
    Signal bye;
    bye.kind = Signal::Kind::kBye;
    session_signal(std::move(bye));
  }
  endpoint_.close({ErrorCode::kCancelled, "the tunnel was idle", 0});
  direct_.close();
  destroy(std::move(pending_));
  destroy(std::move(current_));
  for (auto& [end, session] : retired_) destroy(std::move(session));
  retired_.clear();
  note_kind();
}

}  // namespace edgemesh::p2p
