#include "core/http/client.h"

#include <algorithm>

#include "core/http/client_impl.h"

namespace edgemesh::http {

Client::Impl::Idle::Idle(Impl& owner, std::string key, std::unique_ptr<io::Stream> stream)
    : owner_(owner),
      key_(std::move(key)),
      stream_(std::move(stream)),
      timer_(owner.loop, [this] { drop(); }) {
  stream_->set_handler(this);
  timer_.start(owner.options.idle_timeout);
}

std::unique_ptr<io::Stream> Client::Impl::Idle::take() {
  timer_.stop();
  stream_->set_handler(nullptr);
  return std::move(stream_);
}

void Client::Impl::Idle::drop() {
  timer_.stop();
  stream_->shutdown_write();
  owner_.drop_idle(this);
}

std::unique_ptr<io::Stream> Client::Impl::take_idle(const std::string& key) {
  auto it = pools.find(key);
  if (it == pools.end() || it->second.idle.empty()) return nullptr;
  auto idle = std::move(it->second.idle.back());
  it->second.idle.pop_back();
  auto stream = idle->take();
  loop.defer([idle = std::shared_ptr<Idle>(std::move(idle))] {});
  return stream;
}

void Client::Impl::give_back(const std::string& key, std::unique_ptr<io::Stream> stream) {
  Pool& pool = pools[key];
  if (pool.idle.size() >= options.max_idle_per_authority) {
    stream->shutdown_write();
    return;
  }
  pool.idle.push_back(std::make_unique<Idle>(*this, key, std::move(stream)));
}

void Client::Impl::drop_idle(Idle* idle) {
  auto it = pools.find(idle->key());
  if (it == pools.end()) return;
  auto& list = it->second.idle;
  auto found = std::find_if(list.begin(), list.end(), [&](auto& p) { return p.get() == idle; });
  if (found == list.end()) return;
  loop.defer([dead = std::shared_ptr<Idle>(std::move(*found))] {});
  list.erase(found);
  if (list.empty() && it->second.active == 0 && it->second.waiting.empty()) pools.erase(it);
}

void Client::Impl::release(const std::string& key) {
  auto it = pools.find(key);
  if (it == pools.end()) return;
  Pool& pool = it->second;
  --pool.active;
  while (!pool.waiting.empty()) {
    auto next = pool.waiting.front().lock();
    pool.waiting.pop_front();
    if (!next) continue;
    ++pool.active;
    loop.defer([weak = std::weak_ptr<Exchange>(next)] {
      if (auto e = weak.lock()) e->go_on();
    });
    return;
  }
  if (pool.active == 0 && pool.idle.empty()) pools.erase(it);
}

Result<std::shared_ptr<tls::Context>> Client::Impl::tls_context() {
  if (options.tls) return options.tls;
  if (!system_tls) {
    tls::ContextOptions defaults;
    defaults.alpn = {"http/1.1"};
    EM_TRY(system_tls, tls::Context::client(defaults));
  }
  return system_tls;
}

std::shared_ptr<Exchange> Client::Impl::begin(ClientRequest request) {
  auto exchange = std::make_shared<Exchange>(*this, std::move(request));
  exchanges.emplace(exchange.get(), exchange);
  loop.defer([weak = std::weak_ptr<Exchange>(exchange)] {
    if (auto e = weak.lock()) e->start();
  });
  return exchange;
}

void Client::Impl::forget(Exchange* exchange) {
  auto it = exchanges.find(exchange);
  if (it == exchanges.end()) return;
  loop.defer([dead = std::move(it->second)] {});
  exchanges.erase(it);
}

void Client::Impl::shut_down() {
  auto running = exchanges;
  for (auto& [key, exchange] : running) exchange->cancel();
  pools.clear();
}

Client::Client(io::Loop& loop, ClientOptions options)
    : impl_(std::make_shared<Impl>(loop, std::move(options))) {}

Client::~Client() {
  impl_->shut_down();
  // Exchanges on the stack refer to it.
  io::Loop& loop = impl_->loop;
  loop.defer([impl = std::move(impl_)] {});
}

void Client::request(ClientRequest request, UniqueFunction<void(Result<Response>)> done) {
  impl_->begin(std::move(request))->on_whole = std::move(done);
}

std::unique_ptr<Call> Client::call(ClientRequest request,
                                   UniqueFunction<void(Result<Response>)> done) {
  auto exchange = impl_->begin(std::move(request));
  exchange->on_whole = std::move(done);
  return std::make_unique<ExchangeCall>(impl_, exchange);
}

std::unique_ptr<Call> Client::stream(ClientRequest request, StreamHandler handler) {
  auto exchange = impl_->begin(std::move(request));
  exchange->mode = Exchange::Mode::kStream;
  exchange->on_stream = std::move(handler);
  return std::make_unique<ExchangeCall>(impl_, exchange);
}

void Client::set_tls(std::shared_ptr<tls::Context> tls) {
  impl_->options.tls = std::move(tls);
  for (auto& [key, pool] : impl_->pools) {
    for (auto& idle : pool.idle)
      impl_->loop.defer([dead = std::shared_ptr<Impl::Idle>(std::move(idle))] {});
    pool.idle.clear();
  }
}

size_t Client::idle_connections() const {
  size_t count = 0;
  for (auto& [key, pool] : impl_->pools) count += pool.idle.size();
  return count;
}

std::unique_ptr<Call> start_upgrade(io::Loop& loop, ClientOptions options, ClientRequest request,
                                    OnUpgraded done) {
  // The call is the only owner of a client of its own.
  auto impl = std::make_shared<Client::Impl>(loop, std::move(options));
  auto exchange = impl->begin(std::move(request));
  exchange->mode = Exchange::Mode::kUpgrade;
  exchange->on_upgraded = std::move(done);
  return std::make_unique<ExchangeCall>(impl, exchange);
}

}  // namespace edgemesh::http
