#include "proxy/exchange/l7_worker.h"

#include <ctime>

#include "proxy/exchange/http_connection.h"
#include "proxy/http/h1_client.h"
#include "proxy/http/h2_client.h"

namespace edgemesh::proxy {

namespace {
constexpr size_t kKeepExchanges = 1024;
constexpr size_t kMaxBackground = 1024;

uint64_t seed_of(const L7WorkerOptions& options, io::Loop& loop) {
  if (options.seed != 0) return options.seed;
  const auto wall = loop.clock().wall_now().time_since_epoch().count();
  return static_cast<uint64_t>(wall) * 31 + static_cast<uint64_t>(options.index);
}

}  // namespace

MakeClient L7Worker::make_h1() {
  return [this](std::unique_ptr<io::Stream> stream, const ClientTarget& target,
                HttpClientConnection::Handler& handler) {
    H1ClientOptions options;
    options.addr = target.addr;
    options.identity = target.identity;
    return make_h1_client(loop_, batch_, std::move(stream), options, &handler);
  };
}

MakeClient L7Worker::make_h2() {
  return [this](std::unique_ptr<io::Stream> stream, const ClientTarget& target,
                HttpClientConnection::Handler& handler) {
    H2ClientOptions options;
    options.addr = target.addr;
    options.identity = target.identity;
    options.limits.max_streams = target.cluster.max_streams;
    return make_h2_client(loop_, batch_, std::move(stream), options, &handler);
  };
}

L7Worker::L7Worker(io::Loop& loop, L7WorkerOptions options, L7Stats& stats,
                   std::unique_ptr<Connector> connector)
    : loop_(loop),
      options_(std::move(options)),
      batch_(loop),
      clusters_(options_.index, loop.clock()),
      connector_(std::move(connector)),
      random_(seed_of(options_, loop)),
      stats_(stats) {
  if (connector_ == nullptr) {
    auto mesh = std::make_unique<MeshConnector>(loop, options_.connector);
    mesh_connector_ = mesh.get();
    connector_ = std::move(mesh);
  }
  pool_ = std::make_unique<UpstreamPool>(PoolOptions{loop, *connector_, make_h1(), make_h2()});
}

L7Worker::~L7Worker() {
  on_drained_ = nullptr;
  while (HttpConnection* connection = connections_.front()) connection->close();
  background_.clear();
  keys_.clear();
  free_.clear();
  // At once: what a pool closes when its clusters go lives until the turn's end, and this does not.
  pool_.reset();
  clusters_.clear();
}

bool L7Worker::send_in_background(const SubRequestOptions& options, HeadPtr head,
                                  std::vector<uint8_t> body) {
  if (background_.size() >= kMaxBackground) return false;
  const uint64_t id = next_background_++;
  auto& slot = background_[id];
  slot = SubRequest::start(*this, options, std::move(head), std::move(body),
                           [this, id](Result<SubAnswer>) {
                             const auto found = background_.find(id);
                             auto done = std::move(found->second);
                             background_.erase(found);
                             loop_.defer([done = std::move(done)] {});
                           });
  return true;
}

void L7Worker::set_dialer(p2p::Dialer* dialer) {
  if (mesh_connector_ != nullptr) mesh_connector_->set_dialer(dialer);
}

Exchange* L7Worker::take_exchange() {
  stats_.active_requests.up();
  stats_.requests.add();
  if (free_.empty()) return new Exchange(*this);
  Exchange* exchange = free_.back().release();
  free_.pop_back();
  return exchange;
}

void L7Worker::give_exchange(Exchange* exchange) {
  stats_.active_requests.down();
  if (free_.size() >= kKeepExchanges) {
    // Its own code may still be running.
    loop_.defer([dead = std::unique_ptr<Exchange>(exchange)] {});
    return;
  }
  free_.emplace_back(exchange);
}

std::string_view L7Worker::date() {
  if (loop_.now() >= date_until_) {
    const auto wall = loop_.clock().wall_now();
    const std::time_t seconds = std::chrono::system_clock::to_time_t(wall);
    std::tm parts{};
    gmtime_r(&seconds, &parts);
    date_size_ = std::strftime(date_, sizeof date_, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    const auto into = wall - std::chrono::system_clock::from_time_t(seconds);
    date_until_ = loop_.now() + std::chrono::seconds(1) - into;
  }
  return {date_, date_size_};
}

void L7Worker::drain(io::Task done) {
  on_drained_ = std::move(done);
  HttpConnection* next = nullptr;
  for (HttpConnection* c = connections_.front(); c != nullptr; c = next) {
    next = connections_.after(*c);
    c->drain();
  }
  if (connections_.empty()) note_connection_gone();
}

void L7Worker::note_connection_gone() {
  if (!connections_.empty() || !on_drained_) return;
  auto done = std::exchange(on_drained_, nullptr);
  done();
}

}  // namespace edgemesh::proxy
