#include "cloud/streams/node_streams.h"

#include <optional>

#include "core/base/log.h"
#include "core/channel/streams.h"
#include "core/http/h2_keepalive.h"

namespace edgemesh::cloud {
namespace {

using StreamResult = Result<std::unique_ptr<io::Stream>>;

// What all streams of a node can hold fits the connection's window: none can hold up the others.
constexpr uint32_t kStreamWindow = 256 << 10;

}  // namespace

class NodeStreams::Session final : public http::H2Session::Handler {
 public:
  static Result<std::unique_ptr<Session>> create(NodeStreams& owner, std::string node,
                                                 int64_t not_before,
                                                 std::unique_ptr<io::Stream> stream) {
    std::unique_ptr<Session> self(new Session(owner, std::move(node), not_before));
    http::H2Options options;
    options.max_concurrent_streams = 0;  // the node opens none
    options.stream_window = kStreamWindow;
    options.connection_window =
        kStreamWindow * static_cast<uint32_t>(owner.options_.max_streams + 1);
    EM_TRY(self->h2_, http::H2Session::client(owner.loop_, std::move(stream), self.get(), options));
    Session* raw = self.get();
    self->keepalive_.emplace(owner.loop_, *self->h2_, owner.options_.ping_every,
                             owner.options_.ping_limit, [raw] { raw->dead(); });
    self->idle_.start(owner.options_.idle_timeout);
    return self;
  }

  StreamResult open() {
    if (h2_->active_streams() >= owner_.options_.max_streams)
      return fail(ErrorCode::kResourceExhausted, "node {} has {} streams open already", node_,
                  h2_->active_streams());
    last_used_ = owner_.loop_.now();
    return h2_->open_connect(channel::kStreamsAuthority);
  }
  bool usable() const { return h2_->accepts_streams(); }
  int64_t not_before() const { return not_before_; }

 private:
  Session(NodeStreams& owner, std::string node, int64_t not_before)
      : owner_(owner),
        node_(std::move(node)),
        not_before_(not_before),
        last_used_(owner.loop_.now()),
        idle_(owner.loop_, [this] { check_idle(); }) {}

  void on_connect(std::unique_ptr<http::H2Connect> connect) override {
    connect->reject(405, "the cloud opens the streams");
  }
  void on_close(const Error& error) override {
    EM_LOG(kDebug, "streams", "node {}: {}", node_, error.message);
    owner_.end(node_, this);
  }
  void dead() {
    EM_LOG(kInfo, "streams", "node {} does not answer on its stream connection: it is cut", node_);
    owner_.end(node_, this);
  }
  void check_idle() {
    if (h2_->active_streams() > 0) last_used_ = owner_.loop_.now();
    const Duration quiet = owner_.loop_.now() - last_used_;
    if (quiet >= owner_.options_.idle_timeout) return owner_.end(node_, this);
    idle_.start(owner_.options_.idle_timeout - quiet);
  }

  NodeStreams& owner_;
  std::string node_;
  int64_t not_before_;
  TimePoint last_used_;
  std::unique_ptr<http::H2Session> h2_;
  std::optional<http::H2Keepalive> keepalive_;
  io::Timer idle_;
};

NodeStreams::NodeStreams(io::Loop& loop, NodeLink& link, Options options, obs::Registry& registry)
    : loop_(loop),
      link_(link),
      options_(options),
      open_(registry.gauge("edgemesh_streams_connections",
                           "Stream connections of nodes that are open.")),
      streams_(registry.counter("edgemesh_streams_opened_total", "Streams opened to nodes.")),
      failed_(registry.counter("edgemesh_streams_failed_total",
                               "Streams to nodes that could not be opened.")) {}

NodeStreams::~NodeStreams() {
  *alive_ = false;
}

void NodeStreams::answer(Opened done, StreamResult result) {
  (result ? streams_ : failed_).add();
  loop_.defer([done = std::move(done), result = std::make_shared<StreamResult>(std::move(result))] {
    done(std::move(*result));
  });
}

void NodeStreams::open(const std::string& node, Opened done) {
  const auto found = sessions_.find(node);
  if (found != sessions_.end() && found->second->usable())
    return answer(std::move(done), found->second->open());
  if (!link_.connected(node))
    return answer(std::move(done), fail(ErrorCode::kUnavailable, "node {} is not connected", node));
  const auto [it, first] = waiting_.try_emplace(node);
  Waiting& waiting = it->second;
  if (waiting.opened.size() >= options_.max_waiting)
    return answer(std::move(done), fail(ErrorCode::kResourceExhausted,
                                        "too much waits for node {} to connect its streams", node));
  waiting.opened.push_back(std::move(done));
  if (!first) return;
  waiting.timer = std::make_unique<io::Timer>(loop_, [this, node] { give_up(node); });
  waiting.timer->start(options_.connect_timeout);
  link_.send(node, channel::make_message("cloudStream", channel::kStreamsGroup,
                                         channel::kStreamsOpen, channel::kStreamsResource));
}

void NodeStreams::give_up(const std::string& node) {
  auto gone = waiting_.extract(node);
  if (gone.empty()) return;
  const bool connected = link_.connected(node);
  for (Opened& done : gone.mapped().opened)
    answer(std::move(done),
           fail(ErrorCode::kUnavailable, "node {} {}", node,
                connected ? "is connected, but does not open a connection for streams: does it run "
                            "pods (modules.edged)?"
                          : "is not connected"));
  loop_.defer([timer = std::move(gone.mapped().timer)] {});
}

void NodeStreams::take(const std::string& node, int64_t not_before,
                       std::unique_ptr<io::Stream> stream) {
  auto session = Session::create(*this, node, not_before, std::move(stream));
  if (!session) {
    EM_LOG(kWarn, "streams", "node {}: {}", node, session.error().message);
    return;
  }
  end(node);
  Session& now = *(sessions_[node] = std::move(*session));
  open_.set(static_cast<int64_t>(sessions_.size()));
  auto gone = waiting_.extract(node);
  if (gone.empty()) return;
  for (Opened& done : gone.mapped().opened) answer(std::move(done), now.open());
}

void NodeStreams::end(const std::string& node, const Session* only) {
  const auto found = sessions_.find(node);
  if (found == sessions_.end() || (only != nullptr && found->second.get() != only)) return;
  auto gone = sessions_.extract(found);
  open_.set(static_cast<int64_t>(sessions_.size()));
  loop_.defer([session = std::move(gone.mapped())] {});
}

void NodeStreams::end_refused(const std::function<Result<>(const std::string&, int64_t)>& check) {
  std::vector<std::string> refused;
  for (const auto& [node, session] : sessions_)
    if (!check(node, session->not_before())) refused.push_back(node);
  for (const std::string& node : refused) end(node);
}

void NodeStreams::drain() {
  while (!sessions_.empty()) end(std::string(sessions_.begin()->first));
}

}  // namespace edgemesh::cloud
