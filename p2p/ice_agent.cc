#include "p2p/ice_agent.h"

#include <nice/agent.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>

#include "core/base/log.h"
#include "p2p/packet_queue.h"
#include "p2p/shared_socket.h"

namespace edgemesh::p2p {

namespace {

constexpr guint kComponent = 1;
constexpr guint kPacingMs = 5;  // the least that RFC 8445 allows; the default of 20 costs 40 ms
constexpr size_t kMaxQueuedPackets = 4096;

std::string type_text(NiceCandidateType type) {
  switch (type) {
    case NICE_CANDIDATE_TYPE_HOST: return "host";
    case NICE_CANDIDATE_TYPE_SERVER_REFLEXIVE: return "reflexive";
    case NICE_CANDIDATE_TYPE_PEER_REFLEXIVE: return "peer-reflexive";
    case NICE_CANDIDATE_TYPE_RELAYED: return "relay";
  }
  return "unknown";
}

// libnice writes the whole SDP line ("a=candidate:..."); signals carry the attribute.
std::string_view without_prefix(std::string_view sdp) {
  return sdp.starts_with("a=") ? sdp.substr(2) : sdp;
}

SockAddr to_sock_addr(const NiceAddress& address) {
  sockaddr_storage storage{};
  auto* sa = reinterpret_cast<sockaddr*>(&storage);  // NOLINT
  nice_address_copy_to_sockaddr(&address, sa);
  auto parsed = SockAddr::from_sockaddr(sa, sizeof storage);
  return parsed ? *parsed : SockAddr{};
}

// Shared by the two threads. `handler` belongs to the worker loop, the part below to the ice thread;
// `agent` is written by the ice thread before anything of it reaches the worker.
struct IceCore : std::enable_shared_from_this<IceCore> {
  IceCore(io::Loop& w, IceThread& t) : worker(w), thread(t) {}

  io::Loop& worker;
  IceThread& thread;
  IceAgent::Handler* handler = nullptr;

  NiceAgent* agent = nullptr;
  guint stream = 0;
  bool local_told = false;
  bool closed = false;
  std::vector<std::string> early;  // candidates found before the credentials were told
  std::set<uint16_t> split_ports;

  std::mutex mutex;  // guards `packets`
  PacketQueue packets;
  PacketQueue draining;  // worker loop

  template <class F>
  void tell(F f) {
    worker.post([self = shared_from_this(), f = std::move(f)]() mutable {
      if (self->handler != nullptr) f(*self->handler);
    });
  }

  void start(const IceOptions& options);
  void close();
  void on_pair();
  void on_packet(const char* data, guint size);
  void drain();
};

// libnice emits signals in whatever thread drops its lock, so these only post.
void on_candidate(NiceAgent* agent, NiceCandidate* candidate, gpointer user) {
  auto* core = static_cast<IceCore*>(user);
  gchar* sdp = nice_agent_generate_local_candidate_sdp(agent, candidate);
  if (sdp == nullptr) return;
  core->thread.post([self = core->shared_from_this(), text = std::string(without_prefix(sdp))]() mutable {
    if (!self->local_told)
      self->early.push_back(std::move(text));
    else
      self->tell([text = std::move(text)](IceAgent::Handler& h) mutable {
        h.on_ice_candidate(std::move(text));
      });
  });
  g_free(sdp);
}

void on_gathered(NiceAgent*, guint, gpointer user) {
  static_cast<IceCore*>(user)->tell([](IceAgent::Handler& h) { h.on_ice_gathered(); });
}

void on_selected(NiceAgent*, guint, guint, NiceCandidate*, NiceCandidate*, gpointer user) {
  auto* core = static_cast<IceCore*>(user);
  core->thread.post([self = core->shared_from_this()] { self->on_pair(); });
}

void on_state(NiceAgent*, guint, guint, guint state, gpointer user) {
  auto* core = static_cast<IceCore*>(user);
  if (state == NICE_COMPONENT_STATE_FAILED)
    core->tell([](IceAgent::Handler& h) { h.on_ice_failed(); });
}

void on_receive(NiceAgent*, guint, guint, guint size, gchar* data, gpointer user) {
  static_cast<IceCore*>(user)->on_packet(data, size);
}

void IceCore::start(const IceOptions& options) {
  agent = nice_agent_new_full(
      thread.context(), NICE_COMPATIBILITY_RFC5245,
      static_cast<NiceAgentOption>(NICE_AGENT_OPTION_ICE_TRICKLE | NICE_AGENT_OPTION_CONSENT_FRESHNESS));
  // The TURN server gives the reflexive address as well: naming it as STUN server too costs 2 s.
  g_object_set(agent, "controlling-mode", static_cast<gboolean>(options.controlling), "upnp", FALSE,
               "ice-tcp", FALSE, "stun-pacing-timer", kPacingMs, "force-relay",
               static_cast<gboolean>(options.relay_only), nullptr);
  for (const IpAddr& ip : options.local) {
    NiceAddress address;
    nice_address_init(&address);
    if (nice_address_set_from_string(&address, ip.to_string().c_str()) != 0)
      nice_agent_add_local_address(agent, &address);
  }
  g_signal_connect(agent, "new-candidate-full", G_CALLBACK(on_candidate), this);
  g_signal_connect(agent, "candidate-gathering-done", G_CALLBACK(on_gathered), this);
  g_signal_connect(agent, "new-selected-pair-full", G_CALLBACK(on_selected), this);
  g_signal_connect(agent, "component-state-changed", G_CALLBACK(on_state), this);
  stream = nice_agent_add_stream(agent, 1);
  nice_agent_set_stream_name(agent, stream, "application");
  if (!options.turn.host.empty()) {
    for (NiceRelayType type : {NICE_RELAY_TYPE_TURN_UDP, NICE_RELAY_TYPE_TURN_TCP})
      nice_agent_set_relay_info(agent, stream, kComponent, options.turn.host.c_str(), options.turn.port,
                                options.turn.username.c_str(), options.turn.password.c_str(), type);
  }
  nice_agent_attach_recv(agent, stream, kComponent, thread.context(), on_receive, this);
  gchar* ufrag = nullptr;
  gchar* pwd = nullptr;
  nice_agent_get_local_credentials(agent, stream, &ufrag, &pwd);
  std::string u(ufrag != nullptr ? ufrag : "");
  std::string p(pwd != nullptr ? pwd : "");
  g_free(ufrag);
  g_free(pwd);
  if (nice_agent_gather_candidates(agent, stream) == 0) {
    tell([](IceAgent::Handler& h) { h.on_ice_failed(); });
    return;
  }
  // The candidates of this machine were found by that call; their tasks stand before this one.
  thread.post([self = shared_from_this(), u = std::move(u), p = std::move(p)] {
    self->local_told = true;
    self->tell([u, p, c = std::move(self->early)](IceAgent::Handler& h) mutable {
      h.on_ice_local(u, p, std::move(c));
    });
  });
}

void IceCore::close() {
  closed = true;
  if (agent == nullptr) return;
  g_signal_handlers_disconnect_by_data(agent, this);
  nice_agent_attach_recv(agent, stream, kComponent, thread.context(), nullptr, nullptr);
  // Gives the relay's allocation back in the background, then frees the agent.
  thread.note_closing(1);
  nice_agent_close_async(
      agent,
      [](GObject* object, GAsyncResult*, gpointer user) {
        static_cast<IceThread*>(user)->note_closing(-1);
        g_object_unref(object);
      },
      &thread);
  agent = nullptr;
}

void IceCore::on_pair() {
  if (closed) return;
  NiceCandidate* local = nullptr;
  NiceCandidate* remote = nullptr;
  if (nice_agent_get_selected_pair(agent, stream, kComponent, &local, &remote) == 0) return;
  IcePair pair;
  bool relayed = local->type == NICE_CANDIDATE_TYPE_RELAYED;
  pair.through_agent = relayed;
  pair.kind = relayed || remote->type == NICE_CANDIDATE_TYPE_RELAYED ? PathKind::kRelayed
                                                                     : PathKind::kPunched;
  pair.remote = to_sock_addr(remote->addr);
  pair.local_text = fmt::format("{} ({})", to_sock_addr(local->addr).to_string(), type_text(local->type));
  pair.remote_text = fmt::format("{} ({})", pair.remote.to_string(), type_text(remote->type));
  if (!relayed) {
    GSocket* socket = nice_agent_get_selected_socket(agent, stream, kComponent);
    uint16_t port = to_sock_addr(local->base_addr).port;
    if (socket == nullptr) {
      pair.through_agent = true;
    } else if (split_ports.insert(port).second) {
      auto fd = split_socket(g_socket_get_fd(socket));
      if (fd) {
        pair.data = std::make_shared<io::Fd>(std::move(*fd));
      } else {
        EM_LOG(kWarn, "p2p", "data goes through libnice, slowly: {}", fd.error().message);
        split_ports.erase(port);
        pair.through_agent = true;
      }
    }
    pair.data_port = port;
  }
  tell([pair = std::move(pair)](IceAgent::Handler& h) mutable { h.on_ice_pair(std::move(pair)); });
}

void IceCore::on_packet(const char* data, guint size) {
  bool first;
  {
    std::lock_guard lock(mutex);
    if (packets.size() >= kMaxQueuedPackets) return;  // the worker is behind: as in a full socket
    first = packets.empty();
    packets.push({reinterpret_cast<const uint8_t*>(data), size});  // NOLINT
  }
  if (first) worker.post([self = shared_from_this()] { self->drain(); });
}

void IceCore::drain() {
  {
    std::lock_guard lock(mutex);
    draining.swap(packets);
  }
  draining.each_train([this](std::span<const uint8_t> train, size_t segment) {
    if (handler != nullptr) handler->on_ice_datagrams(train, segment);
    return handler != nullptr;
  });
  draining.clear();
}

class NiceIceAgent final : public IceAgent {
 public:
  NiceIceAgent(io::Loop& worker, IceThread& thread, Handler& handler, IceOptions options)
      : core_(std::make_shared<IceCore>(worker, thread)) {
    core_->handler = &handler;
    thread.post([core = core_, options = std::move(options)] { core->start(options); });
  }
  ~NiceIceAgent() override {
    core_->handler = nullptr;
    core_->thread.post([core = core_] { core->close(); });
  }

  void set_remote(std::string ufrag, std::string pwd) override {
    core_->thread.post([core = core_, u = std::move(ufrag), p = std::move(pwd)] {
      if (!core->closed) nice_agent_set_remote_credentials(core->agent, core->stream, u.c_str(), p.c_str());
    });
  }

  void add_candidates(std::vector<std::string> candidates) override {
    core_->thread.post([core = core_, candidates = std::move(candidates)] {
      if (core->closed) return;
      GSList* list = nullptr;
      for (const auto& text : candidates) {
        NiceCandidate* c = nice_agent_parse_remote_candidate_sdp(core->agent, core->stream,
                                                                 ("a=" + text).c_str());
        if (c == nullptr) continue;
        if (c->component_id == kComponent && c->priority != 0)
          list = g_slist_append(list, c);
        else
          nice_candidate_free(c);
      }
      if (list != nullptr) nice_agent_set_remote_candidates(core->agent, core->stream, kComponent, list);
      g_slist_free_full(list, [](gpointer c) { nice_candidate_free(static_cast<NiceCandidate*>(c)); });
    });
  }

  void remote_done() override {
    core_->thread.post([core = core_] {
      if (!core->closed) nice_agent_peer_candidate_gathering_done(core->agent, core->stream);
    });
  }

  size_t send(std::span<const uint8_t> train, size_t segment) override;

 private:
  std::shared_ptr<IceCore> core_;
};

size_t NiceIceAgent::send(std::span<const uint8_t> train, size_t segment) {
  constexpr size_t kBatch = 64;
  GOutputVector vectors[kBatch];
  NiceOutputMessage messages[kBatch];
  size_t taken = 0;
  while (taken < train.size()) {
    size_t count = 0;
    size_t bytes = 0;
    for (; count < kBatch && taken + bytes < train.size(); ++count) {
      size_t n = std::min(segment, train.size() - taken - bytes);
      vectors[count] = {train.data() + taken + bytes, n};
      messages[count] = {&vectors[count], 1};
      bytes += n;
    }
    GError* error = nullptr;
    gint sent = nice_agent_send_messages_nonblocking(core_->agent, core_->stream, kComponent, messages,
                                                     static_cast<guint>(count), nullptr, &error);
    if (sent < 0) {
      bool again = g_error_matches(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK) != 0;
      g_clear_error(&error);
      return again ? taken : train.size();  // no pair any more: lost
    }
    for (gint i = 0; i < sent; ++i) taken += vectors[i].size;
    if (static_cast<size_t>(sent) < count) return taken;
  }
  return taken;
}

}  // namespace

std::unique_ptr<IceAgent> IceAgent::create(io::Loop& worker, IceThread& thread, Handler& handler,
                                           IceOptions options) {
  return std::make_unique<NiceIceAgent>(worker, thread, handler, std::move(options));
}

}  // namespace edgemesh::p2p
