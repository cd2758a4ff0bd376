#include "p2p/peer_session.h"

#include <algorithm>
#include <cstring>

#include "core/tls/x509.h"

namespace edgemesh::p2p {

namespace {

constexpr uint8_t kHeartbeatByte = 0x90;
constexpr size_t kBodyBytes = 11;
constexpr size_t kHeartbeatBytes = kBodyBytes + 16;
enum : uint8_t { kPing = 0, kPong = 1 };
constexpr Duration kOfferAgain = std::chrono::seconds(1);
constexpr Duration kTrickle = std::chrono::milliseconds(2);

// "candidate:<foundation> <component> <transport> <priority> <address> <port> typ <type> ..."
std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty() && out.size() < 32) {
    size_t end = std::min(text.find(' '), text.size());
    if (end > 0) out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

}  // namespace

PeerSession::PeerSession(const Context& context, Owner& owner, std::string id, bool offerer,
                         IceOptions options)
    : loop_(context.loop),
      owner_(owner),
      id_(std::move(id)),
      offerer_(offerer),
      controlling_(options.controlling),
      path_(context.loop,
            [&] {
              auto ip = IpAddr::parse(options.turn.host);
              return ip ? SockAddr{*ip, options.turn.port} : SockAddr{};
            }()),
      trickle_(context.loop,
               [this] {
                 if (!described_ || (unsent_.empty() && !gathered_)) return;
                 Signal s;
                 s.kind = Signal::Kind::kCandidate;
                 s.session = id_;
                 s.candidates = std::move(unsent_);
                 unsent_.clear();
                 s.done = gathered_;
                 owner_.session_signal(std::move(s));
               }),
      again_(context.loop,
             [this] {
               if (offered()) resend();
             }),
      created_(context.loop.now()) {
  path_.set_receiver(&context.receiver);
  agent_ = IceAgent::create(loop_, context.thread, *this, std::move(options));
  path_.set_agent(agent_.get());
  if (offerer_) again_.start_repeating(kOfferAgain);
}

PeerSession::~PeerSession() { path_.set_agent(nullptr); }

void PeerSession::send_description() {
  Signal s;
  s.kind = offerer_ ? Signal::Kind::kOffer : Signal::Kind::kAnswer;
  s.session = id_;
  s.ufrag = ufrag_;
  s.pwd = pwd_;
  s.candidates = candidates_;
  s.done = gathered_;
  unsent_.clear();
  described_ = true;
  owner_.session_signal(std::move(s));
}

void PeerSession::resend() {
  if (!pwd_.empty() && (offerer_ || remote_known_)) send_description();
}

void PeerSession::take_remote(const Signal& signal) {
  if (!remote_known_) {
    remote_known_ = true;
    remote_pwd_ = signal.pwd;
    agent_->set_remote(signal.ufrag, signal.pwd);
  }
  again_.stop();
  if (!pwd_.empty())
    key_ = controlling_ ? tls::hmac_sha256(pwd_, remote_pwd_) : tls::hmac_sha256(remote_pwd_, pwd_);
  remote_candidates(signal);
}

void PeerSession::remote_offer(const Signal& offer) {
  id_ = offer.session;
  offerer_ = false;
  take_remote(offer);
  if (!pwd_.empty()) send_description();
}

void PeerSession::remote_answer(const Signal& answer) {
  if (offerer_ && !pwd_.empty()) take_remote(answer);
}

void PeerSession::remote_candidates(const Signal& signal) {
  if (!remote_known_) return;
  for (const auto& candidate : signal.candidates) {
    auto parts = words(candidate);
    if (parts.size() < 6) continue;
    if (auto ip = IpAddr::parse(parts[4]); ip) path_.allow(*ip);
  }
  if (!signal.candidates.empty()) agent_->add_candidates(signal.candidates);
  if (signal.done) agent_->remote_done();
}

void PeerSession::on_ice_local(std::string ufrag, std::string pwd, std::vector<std::string> candidates) {
  ufrag_ = std::move(ufrag);
  pwd_ = std::move(pwd);
  candidates_.insert(candidates_.begin(), candidates.begin(), candidates.end());
  if (remote_known_)
    key_ = controlling_ ? tls::hmac_sha256(pwd_, remote_pwd_) : tls::hmac_sha256(remote_pwd_, pwd_);
  if (offerer_ || remote_known_) send_description();
}

void PeerSession::on_ice_candidate(std::string candidate) {
  if (candidates_.size() >= kMaxSignalCandidates) return;
  candidates_.push_back(candidate);
  if (!described_) return;
  unsent_.push_back(std::move(candidate));
  if (!trickle_.active()) trickle_.start(kTrickle);
}

void PeerSession::on_ice_gathered() {
  gathered_ = true;
  if (described_ && !trickle_.active()) trickle_.start(kTrickle);
}

void PeerSession::on_ice_pair(IcePair pair) {
  bool first = !connected();
  if (!path_.set_pair(pair)) return;
  if (first) {
    last_heard_ = loop_.now();
    unanswered_ = 0;
  }
  owner_.session_path(*this);
}

void PeerSession::on_ice_failed() {
  owner_.session_failed(*this, connected() ? "ICE lost the pair" : "ICE found no pair that works");
}

void PeerSession::on_ice_datagrams(std::span<const uint8_t> train, size_t segment) {
  path_.on_agent_datagrams(train, segment);
}

std::array<uint8_t, 16> PeerSession::mac(const uint8_t* data, size_t n) const {
  std::string full =
      tls::hmac_sha256(key_, std::string_view(reinterpret_cast<const char*>(data), n));  // NOLINT
  std::array<uint8_t, 16> out;
  std::memcpy(out.data(), full.data(), out.size());
  return out;
}

void PeerSession::send_heartbeat(uint8_t type, uint64_t time) {
  uint8_t packet[kHeartbeatBytes];
  packet[0] = kHeartbeatByte;
  packet[1] = type;
  packet[2] = controlling_ ? 1 : 0;
  for (size_t i = 0; i < 8; ++i) packet[3 + i] = static_cast<uint8_t>(time >> (56 - 8 * i));
  auto tag = mac(packet, kBodyBytes);
  std::memcpy(packet + kBodyBytes, tag.data(), tag.size());
  path_.send({packet, sizeof packet}, sizeof packet);
}

void PeerSession::tick(bool active) {
  if (!connected() || key_.empty()) return;
  TimePoint now = loop_.now();
  if (!active && unanswered_ == 0 && now - last_ping_ < kIdleHeartbeat) return;
  // A long way needs more patience than three intervals.
  int allowed = kMisses + static_cast<int>(2 * rtt_ / kHeartbeat);
  if (unanswered_ >= allowed && now - last_heard_ > kHeartbeat * allowed) suspect_ = true;
  ++unanswered_;
  last_ping_ = now;
  send_heartbeat(kPing, static_cast<uint64_t>(loop_.clock().now().time_since_epoch().count()));
}

void PeerSession::on_heartbeat(std::span<const uint8_t> packet) {
  if (packet.size() != kHeartbeatBytes || packet[0] != kHeartbeatByte || key_.empty()) return;
  if (packet[2] == (controlling_ ? 1 : 0)) return;  // our own, sent back
  auto tag = mac(packet.data(), kBodyBytes);
  if (!tls::constant_time_equal(
          io::as_text(tag), io::as_text(packet.subspan(kBodyBytes))))
    return;
  uint64_t time = 0;
  for (size_t i = 0; i < 8; ++i) time = time << 8 | packet[3 + i];
  last_heard_ = loop_.now();
  if (packet[1] == kPing) return send_heartbeat(kPong, time);
  auto rtt = loop_.clock().now().time_since_epoch() - Duration(static_cast<int64_t>(time));
  if (rtt >= Duration::zero() && rtt < std::chrono::seconds(30))
    rtt_ = rtt_ == Duration::zero() ? Duration(rtt) : (7 * rtt_ + rtt) / 8;
  unanswered_ = 0;
  suspect_ = false;
}

std::string PeerSession::nat_guess() const {
  bool relay = false;
  std::vector<std::string_view> hosts, reflexive;
  bool same_port = true;
  for (const auto& candidate : candidates_) {
    auto parts = words(candidate);
    if (parts.size() < 8 || parts[4].find(':') != std::string_view::npos) continue;
    if (parts[7] == "host") hosts.push_back(parts[4]);
    if (parts[7] == "relay") relay = true;
    if (parts[7] != "srflx") continue;
    reflexive.push_back(parts[4]);
    // "... raddr <address> rport <port>"
    for (size_t i = 8; i + 1 < parts.size(); ++i)
      if (parts[i] == "rport") same_port = same_port && parts[i + 1] == parts[5];
  }
  if (!reflexive.empty()) {
    bool own = std::find(hosts.begin(), hosts.end(), reflexive[0]) != hosts.end();
    return own ? "none" : same_port ? "port preserving" : "port changing";
  }
  // libnice leaves a reflexive candidate out when it equals the host's.
  if (relay) return "none";
  return {};
}

}  // namespace edgemesh::p2p
