// The client's pool and one exchange. For core/http only.
//
// An exchange owns its connection while it runs and gives it to the pool when both messages were
// whole and the connection stays open. The pool owns running exchanges; a Call refers to one
// weakly.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/http/client.h"
#include "core/http/h1_parser.h"
#include "core/http/upgrade.h"
#include "core/io/stream.h"

namespace edgemesh::http {

class Exchange;

struct Client::Impl : std::enable_shared_from_this<Client::Impl> {
  Impl(io::Loop& l, ClientOptions o) : loop(l), options(std::move(o)) {}

  // A connection that nobody uses. Any event on it means that the server ended it.
  class Idle final : public io::Stream::Handler {
   public:
    Idle(Impl& owner, std::string key, std::unique_ptr<io::Stream> stream);
    ~Idle() override { *alive_ = false; }
    std::unique_ptr<io::Stream> take();
    const std::string& key() const { return key_; }

   private:
    void on_readable() override { drop(); }
    void on_writable() override {}
    void on_error(const Error&) override { drop(); }
    void drop();
    Impl& owner_;
    std::string key_;
    std::unique_ptr<io::Stream> stream_;
    io::Timer timer_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  };
  struct Pool {
    std::deque<std::unique_ptr<Idle>> idle;  // the most recent last
    std::deque<std::weak_ptr<Exchange>> waiting;
    size_t active = 0;
  };

  std::shared_ptr<Exchange> begin(ClientRequest request);
  void forget(Exchange* exchange);  // destroyed in a deferred task
  void shut_down();
  std::unique_ptr<io::Stream> take_idle(const std::string& key);
  void give_back(const std::string& key, std::unique_ptr<io::Stream> stream);
  void drop_idle(Idle* idle);
  void release(const std::string& key);  // one exchange less: a waiting one may go on
  Result<std::shared_ptr<tls::Context>> tls_context();

  io::Loop& loop;
  ClientOptions options;
  std::map<std::string, Pool> pools;
  std::unordered_map<Exchange*, std::shared_ptr<Exchange>> exchanges;
  std::array<FieldView, 256> fields;
  std::shared_ptr<tls::Context> system_tls;
};

class Exchange final : public std::enable_shared_from_this<Exchange>, private io::Stream::Handler {
 public:
  enum class Mode : uint8_t { kWhole, kStream, kUpgrade };
  Exchange(Client::Impl& owner, ClientRequest request);
  ~Exchange() override;

  void start();   // from a deferred task
  void go_on();   // a place in the pool became free
  void cancel();  // no callback any more
  void pause() { paused_ = true; }
  void resume();

  Mode mode = Mode::kWhole;
  UniqueFunction<void(Result<Response>)> on_whole;
  StreamHandler on_stream;
  OnUpgraded on_upgraded;

 private:
  enum class Phase : uint8_t { kWaiting, kConnecting, kHead, kBody, kDone };

  void on_connected() override;
  void on_readable() override;
  void on_writable() override { send(); }
  void on_error(const Error& error) override;

  Result<> prepare();
  void resolve();
  void connect_next();
  Result<std::unique_ptr<io::Stream>> open(const SockAddr& to);
  void use(std::unique_ptr<io::Stream> stream, bool pooled);
  void send();
  void process();
  bool process_head();
  bool process_body();
  void take_head(const H1Head& head);
  void end_of_input();
  void connection_failed(const Error& error);
  void complete();
  void finish(Result<> result);
  void deliver_upgrade();
  std::string where() const;
  std::string_view input() const { return std::string_view(in_).substr(in_at_); }
  void consume(size_t n);

  Client::Impl& owner_;
  ClientRequest request_;
  Url url_;
  std::string key_;
  std::string out_;
  size_t out_at_ = 0;
  std::string in_;
  size_t in_at_ = 0;
  std::vector<SockAddr> addresses_;
  size_t next_address_ = 0;
  Error last_error_;
  std::unique_ptr<io::Stream> stream_;
  H1HeadParser parser_;
  H1BodyDecoder body_;
  Response response_;
  bool keep_alive_ = false;
  io::Timer deadline_;
  io::Timer connect_timer_;
  Phase phase_ = Phase::kWaiting;
  bool pooled_connection_ = false;  // it was used before
  bool any_input_ = false;
  bool retried_ = false;
  bool counted_ = false;  // in the pool's active
  bool connected_ = false;
  bool eof_ = false;
  bool paused_ = false;
  bool processing_ = false;
};

// The handle a caller holds.
class ExchangeCall final : public Call {
 public:
  ExchangeCall(std::shared_ptr<Client::Impl> client, const std::shared_ptr<Exchange>& exchange)
      : client_(std::move(client)), exchange_(exchange) {}
  ~ExchangeCall() override {
    if (auto e = exchange_.lock()) e->cancel();
    // An exchange that is on the stack still refers to the client.
    io::Loop& loop = client_->loop;
    loop.defer([client = std::move(client_)] {});
  }
  void pause() override {
    if (auto e = exchange_.lock()) e->pause();
  }
  void resume() override {
    if (auto e = exchange_.lock()) e->resume();
  }

 private:
  std::shared_ptr<Client::Impl> client_;
  std::weak_ptr<Exchange> exchange_;
};

}  // namespace edgemesh::http
