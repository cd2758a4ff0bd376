// Streams and connects that do what the test says.
#pragma once

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "proxy/upstream/connector.h"

namespace edgemesh::proxy {

// A stream that says what the test tells it to.
class FakeStream final : public io::Stream {
 public:
  explicit FakeStream(int* alive) : alive_(alive) { ++*alive_; }
  ~FakeStream() override { --*alive_; }
  void set_handler(io::Stream::Handler* handler) override { handler_ = handler; }
  io::IoResult read(std::span<uint8_t> into) override {
    if (input.empty()) return ended ? io::kEof : io::kWouldBlock;
    const size_t n = std::min(into.size(), input.size());
    std::copy_n(input.begin(), n, into.begin());
    input.erase(0, n);
    return {io::IoResult::kOk, 0, n};
  }
  io::IoResult write(std::span<const uint8_t> data) override {
    output.append(io::as_text(data));
    return {io::IoResult::kOk, 0, data.size()};
  }
  void shutdown_write() override {}
  void reset() override {}
  io::Stream::Handler* handler_ = nullptr;
  std::string input, output;
  bool ended = false;

 private:
  int* alive_;
};

class FakeConnector final : public Connector {
 public:
  Result<Connecting> connect(const model::Endpoint& to, const HostSet&,
                             const ProxiedAddrs* addrs) override {
    if (refuse) return fail(ErrorCode::kUnavailable, "no route");
    Connecting made;
    auto stream = std::make_unique<FakeStream>(&alive);
    streams.push_back(stream.get());
    to_addrs.push_back(to.addr);
    proxied.push_back(addrs != nullptr ? *addrs : ProxiedAddrs{});
    made.stream = std::move(stream);
    return made;
  }
  // The oldest connect that waits gets its answer.
  void accept() { pop()->on_connected(); }
  void fail_next() { pop()->on_error(Error{ErrorCode::kConnectionRefused, "refused", 0}); }
  io::Stream::Handler* pop() {
    FakeStream* stream = streams.front();
    streams.pop_front();
    return stream->handler_;
  }

  bool refuse = false;
  int alive = 0;
  std::deque<FakeStream*> streams;
  std::vector<SockAddr> to_addrs;
  std::vector<ProxiedAddrs> proxied;
};

}  // namespace edgemesh::proxy
