// Two or more meshes in one process: signals are passed in memory, ICE and TCP run over loopback.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "p2p/mesh.h"
#include "tests/support/test_pki.h"

namespace edgemesh::p2p {

using namespace std::chrono_literals;  // NOLINT

inline tls::KeyAndCert node_identity(const test::TestPki& pki, const std::string& name) {
  return pki.issue("system:node:" + name, {{tls::node_spiffe_id("edgemesh.local", name)}, {}, {}});
}

// Sends back what it gets.
class Echo final : public io::Stream::Handler {
 public:
  explicit Echo(std::unique_ptr<io::Stream> s) : stream_(std::move(s)) { stream_->set_handler(this); }
  void on_readable() override { pump(); }
  void on_writable() override { pump(); }
  void on_error(const Error&) override { dead = true; }
  void pump() {
    while (true) {
      while (!held_.empty()) {
        auto w = stream_->write(io::as_bytes(held_));
        if (w.status != io::IoResult::kOk) return;
        held_.erase(0, w.n);
        echoed += w.n;
      }
      uint8_t block[16384];
      auto r = stream_->read(block);
      if (r.status == io::IoResult::kEof) stream_->shutdown_write();
      if (r.status != io::IoResult::kOk) return;
      held_.assign(reinterpret_cast<char*>(block), r.n);  // NOLINT
    }
  }
  bool dead = false;
  uint64_t echoed = 0;

 private:
  std::unique_ptr<io::Stream> stream_;
  std::string held_;
};

// Sends `total` bytes and counts what comes back.
class Client final : public io::Stream::Handler {
 public:
  Client(std::unique_ptr<io::Stream> s, uint64_t n) : stream(std::move(s)), total(n) {
    stream->set_handler(this);
    push();
  }
  void push() {
    static const std::string block(32768, 'x');
    while (sent < total) {
      auto n = static_cast<size_t>(std::min<uint64_t>(block.size(), total - sent));
      auto w = stream->write(io::as_bytes(std::string_view(block).substr(0, n)));
      if (w.status != io::IoResult::kOk) return;
      sent += w.n;
    }
    stream->shutdown_write();
  }
  void on_connected() override { connected = true; }
  void on_readable() override {
    uint8_t block[16384];
    while (true) {
      auto r = stream->read(block);
      if (r.status == io::IoResult::kEof) eof = true;
      if (r.status != io::IoResult::kOk) return;
      received += r.n;
    }
  }
  void on_writable() override { push(); }
  void on_error(const Error& e) override {
    failed = true;
    error = e;
  }
  bool done() const { return eof && received == total; }

  std::unique_ptr<io::Stream> stream;
  uint64_t total, sent = 0, received = 0;
  bool connected = false, eof = false, failed = false;
  Error error;
};

class EchoAcceptor final : public Acceptor {
 public:
  void on_connect(std::unique_ptr<IncomingConnect> connect) override {
    peers.push_back(connect->peer_node());
    if (connect->target().port == 1) return connect->reject(403, "not an endpoint");
    if (auto stream = connect->accept(); stream != nullptr)
      echoes.push_back(std::make_unique<Echo>(std::move(stream)));
  }
  std::vector<std::string> peers;
  std::vector<std::unique_ptr<Echo>> echoes;
};

class MeshTest : public testing::Test {
 protected:
  struct Node {
    EchoAcceptor acceptor;
    std::unique_ptr<Mesh> mesh;
    std::vector<KnownPeer> persisted;
  };
  MeshTest() : loop(test::TestPki::take(io::Loop::create())) {}
  ~MeshTest() override {
    for (auto& [name, node] : nodes) node->acceptor.echoes.clear();
    nodes.clear();
  }
  // One loop is both main and worker: the order of events is the test's.
  Node& add(const std::string& name, bool ice, bool direct) { return add(name, ice, direct, pki, name); }
  Node& add(const std::string& name, bool ice, bool direct, const test::TestPki& ca,
            const std::string& cert_name) {
    auto id = node_identity(ca, cert_name);
    MeshOptions o;
    o.node = name;
    o.cert_pem = id.cert_pem;
    o.key_pem = id.key_pem;
    o.ca_pem = pki.ca().cert_pem;
    o.direct_listen = {IpAddr::loopback(), 0};
    o.direct_enabled = direct;
    o.ice_enabled = ice;
    o.loopback_candidates = true;
    o.open_timeout = 5s;
    if (options_hook) options_hook(o);
    auto node = std::make_unique<Node>();
    Hooks hooks;
    Node* raw = node.get();
    hooks.send_signal = [this, name](const std::string& to, std::string json) {
      ++signals;
      auto it = nodes.find(to);
      if (drop_signals) return;
      if (change_signal) change_signal(json);
      if (it != nodes.end() && it->second->mesh != nullptr)
        it->second->mesh->on_signal(name, json);
      else if (auto self = nodes.find(name); self != nodes.end())
        self->second->mesh->on_signal_error(to, "node " + to + " is not connected");
    };
    hooks.persist = [raw](std::vector<KnownPeer> peers) { raw->persisted = std::move(peers); };
    node->mesh = test::TestPki::take(Mesh::create(*loop, *loop, o, std::move(hooks), node->acceptor));
    nodes[name] = std::move(node);
    return *raw;
  }
  std::unique_ptr<Client> open(Node& from, const std::string& to, uint64_t bytes, uint16_t port = 80) {
    return std::make_unique<Client>(
        test::TestPki::take(from.mesh->dialer().open(to, {IpAddr::v4(0x0a000001), port})), bytes);
  }
  bool until(const std::function<bool()>& done, Duration limit = 10s) {
    return loop->run_until(done, limit);
  }

  test::TestPki pki;
  std::unique_ptr<io::Loop> loop;
  std::map<std::string, std::unique_ptr<Node>> nodes;
  std::function<void(MeshOptions&)> options_hook;
  std::function<void(std::string&)> change_signal;
  size_t signals = 0;
  bool drop_signals = false;
};

}  // namespace edgemesh::p2p
