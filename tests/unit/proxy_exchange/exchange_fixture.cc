#include "tests/unit/proxy_exchange/exchange_fixture.h"

#include <sstream>

#include "proxy/http/h1_server.h"
#include "proxy/http/h2_server.h"

namespace edgemesh::proxy {

namespace {

// Hands everything to the connector of the test, which outlives the worker.
class Borrowed final : public Connector {
 public:
  explicit Borrowed(Connector& to) : to_(to) {}
  Result<Connecting> connect(const model::Endpoint& to, const HostSet& set,
                             const ProxiedAddrs* addrs) override {
    return to_.connect(to, set, addrs);
  }

 private:
  Connector& to_;
};

std::string indented(const std::string& text, int by) {
  std::istringstream in(text);
  std::string out, line;
  while (std::getline(in, line)) out += std::string(static_cast<size_t>(by), ' ') + line + "\n";
  return out;
}

std::string cluster(const std::string& name, int n, const std::string& more) {
  return fmt::format("- name: {}\n  endpoints: [{{address: \"10.0.0.{}:80\"}}]\n{}", name, n,
                     indented(more, 2));
}

}  // namespace

std::string ProxyYaml::text() const {
  std::string out = R"(
listeners:
- name: l
  address: 127.0.0.1:1
  chains:
  - name: c
    http:
      routes: r
)" + indented(http, 6);
  if (!policies.empty()) out += "      policies:\n" + indented(policies, 8);
  out += R"(
routes:
- name: r
  responseHeaders: {set: {x-flags: "%RESPONSE_FLAGS%", x-details: "%RESPONSE_CODE_DETAILS%"}}
  hosts:
  - name: h
    domains: ["*"]
)" + indented(host, 4) +
         "    routes:\n" + indented(routes, 4) + "clusters:\n" + cluster("a", 1, a) +
         cluster("b", 2, b) + cluster("c", 3, c) + clusters + "\n";
  return out;
}

ConnectingStream::ConnectingStream(io::Loop& loop, std::unique_ptr<test::MemoryStream> below,
                                   bool works)
    : below_(std::move(below)) {
  loop.defer([this, works, alive = alive_] {
    if (!*alive || handler_ == nullptr) return;
    if (!works) return handler_->on_error(Error{ErrorCode::kConnectionRefused, "refused", 0});
    connected_ = true;
    below_->set_handler(handler_);
    handler_->on_connected();
  });
}

void answer_default(Side& side) {
  if (side.head->method == "HEAD") {
    HeadPtr head = take_head();
    head->status = 200;
    head->set_length(7);
    side.stream->send_head(*head, true);
    side.stream.reset();
    return;
  }
  h1test::answer(*side.stream, 200,
                 fmt::format("{} {}|{}|{}", side.head->method, side.head->path,
                             side.head->authority, side.body));
  side.stream.reset();
}

ExchangeTest::ExchangeTest() {
  loop_ = std::move(*io::Loop::create(clock_));
  batch_ = std::make_unique<WriteBatch>(*loop_);
  options_.seed = 12345;
  slot_ = std::make_shared<ChainSlot>();
  slot_->stats = &listener_stats_;
}

ExchangeTest::~ExchangeTest() {
  destroy_worker();
  clients_.clear();
  backends_.clear();
  settle(5);
}

void ExchangeTest::destroy_worker() {
  slot_->version = ChainVersionRef();
  worker_.reset();
  manager_.reset();
}

void ExchangeTest::tell(model::Telemetry spec) {
  TelemetryOptions options;
  options.spec = std::move(spec);
  options.node = "edge-1";
  options.flags_text = flags_text;
  auto made = Telemetry::make(*loop_, std::move(options));
  ASSERT_TRUE(made) << made.error().message;
  telemetry_ = std::move(*made);
  options_.telemetry = &telemetry_->worker(0);
}

void ExchangeTest::configure_text(const std::string& text) {
  auto config = model::parse_config(text, "test");
  ASSERT_TRUE(config) << config.error().message << text;
  apply(*config);
}

void ExchangeTest::apply(std::shared_ptr<const model::Config> config) {
  config_ = std::move(config);
  auto tables = RouteTables::build(*config_, tables_);
  ASSERT_TRUE(tables) << tables.error().message;
  tables_ = std::move(*tables);
  auto runtime = build_listener(config_->listeners.begin()->second, tables_, listener_.get(),
                                {telemetry_.get(), &config_->telemetry});
  ASSERT_TRUE(runtime) << runtime.error().message;
  listener_ = *runtime;
  slot_->version = ChainVersionRef(new ChainVersion(listener_->chains.front().http));
  if (worker_ == nullptr) {
    worker_ = std::make_unique<L7Worker>(*loop_, options_, stats_, std::make_unique<Borrowed>(*this));
    ClusterManagerOptions options{*loop_, 1, {}, {}, {}};
    options.publish = [this](ClusterUpdates updates) { worker_->clusters().apply(updates); };
    manager_ = std::make_unique<ClusterManager>(std::move(options));
  }
  std::vector<model::ClusterPtr> clusters;
  for (const auto& [name, cluster] : config_->clusters) clusters.push_back(cluster);
  auto applied = manager_->apply(clusters);
  ASSERT_TRUE(applied) << applied.error().message;
}

std::unique_ptr<io::Stream> ExchangeTest::accept(ClientInfo info, bool http2, Client& client,
                                                 test::MemoryStreamOptions options) {
  if (info.peer == SockAddr{}) info.peer = SockAddr{IpAddr::v4(0x7f000001), 5555};
  if (info.local == SockAddr{}) info.local = SockAddr{IpAddr::v4(0x7f000002), 80};
  auto [near, far] = test::MemoryStream::pair(*loop_, options);
  client.stream = near.get();
  HttpConnection::start(*worker_, slot_, std::move(far), std::move(info), http2, "",
                        [&client] { client.gone = true; });
  return std::move(near);
}

Client& ExchangeTest::connect(bool http2, ClientInfo info, test::MemoryStreamOptions options) {
  Client& client = clients_.emplace_back();
  auto stream = accept(std::move(info), http2, client, options);
  if (http2)
    client.codec.connection = make_h2_client(*loop_, *batch_, std::move(stream), {}, &client.codec);
  else
    client.codec.connection = make_h1_client(*loop_, *batch_, std::move(stream), {}, &client.codec);
  return client;
}

Client& ExchangeTest::connect_raw(ClientInfo info) {
  Client& client = clients_.emplace_back();
  client.raw = std::make_unique<test::Collector>(accept(std::move(info), false, client, {}));
  return client;
}

Side& Client::begin(std::string_view method, std::string_view path,
                    std::vector<std::pair<std::string, std::string>> fields,
                    std::string_view protocol) {
  Side& side = asked.emplace_back();
  side.stream = codec.connection->open(&side);
  EM_CHECK(side.stream != nullptr);
  HeadPtr head = take_head();
  head->method = head->keep(method);
  head->scheme = "http";
  head->path = head->keep(path);
  head->authority = "shop.example";
  head->protocol = head->keep(protocol);
  bool whole = false;
  for (const auto& [name, value] : fields) {
    if (name == ":end")
      whole = true;
    else if (name == ":length")
      head->set_length(std::stoull(value));
    else if (name == ":authority")
      head->authority = head->keep(value);
    else if (name == ":expect")
      head->expect_continue = true, head->add("expect", "100-continue");
    else
      head->add(name, value);
  }
  side.stream->send_head(*head, whole);
  return side;
}

Side& Client::send(std::string_view method, std::string_view path,
                   std::vector<std::pair<std::string, std::string>> fields, std::string_view body) {
  if (body.empty())
    fields.emplace_back(":end", "");
  else
    fields.emplace_back(":length", std::to_string(body.size()));
  Side& side = begin(method, path, std::move(fields));
  if (!body.empty()) side.stream->send_data(io::as_bytes(body), true);
  return side;
}

Side& ExchangeTest::ask(Client& client, std::string_view method, std::string_view path,
                        std::vector<std::pair<std::string, std::string>> fields,
                        std::string_view body) {
  Side& side = client.send(method, path, std::move(fields), body);
  EXPECT_TRUE(until([&] { return side.ended || !side.reset.empty(); })) << method << " " << path;
  side.stream.reset();
  return side;
}

Result<Connecting> ExchangeTest::connect(const model::Endpoint& to, const HostSet&,
                                         const ProxiedAddrs* addrs) {
  Backend& backend = backends_[to.addr.to_string()];
  ++backend.connects;
  backend.proxied.push_back(addrs != nullptr ? *addrs : ProxiedAddrs{});
  test::MemoryStreamOptions options;
  options.capacity = backend.capacity;
  auto [near, far] = test::MemoryStream::pair(*loop_, options);
  Connecting made;
  made.stream = std::make_unique<ConnectingStream>(*loop_, std::move(near), !backend.refuse);
  if (!backend.refuse) serve(backend, to, std::move(far));
  return made;
}

void ExchangeTest::serve(Backend& backend, const model::Endpoint&,
                         std::unique_ptr<test::MemoryStream> stream) {
  auto& connection = backend.connections.emplace_back();
  connection.stream = stream.get();
  if (backend.raw) {
    connection.raw = std::make_unique<test::Collector>(std::move(stream));
    return;
  }
  connection.side.hook = [&backend](Side& side) {
    backend.requests.push_back(&side);
    auto reply = [&backend, &side] {
      if (backend.silent || !side.stream || !side.reset.empty() || side.writable < 0) return;
      if (!side.ended && !backend.on_head) return;
      side.writable = -1'000'000;  // once
      backend.reply ? backend.reply(side) : answer_default(side);
    };
    side.on_any = reply;
    reply();
  };
  if (backend.http2)
    connection.side.connection =
        make_h2_server(*loop_, *batch_, std::move(stream), {}, &connection.side);
  else
    connection.side.connection =
        make_h1_server(*loop_, *batch_, std::move(stream), {}, &connection.side);
}

}  // namespace edgemesh::proxy
