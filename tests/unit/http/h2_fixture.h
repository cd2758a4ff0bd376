// Two HTTP/2 sessions on one loop, over a pair of streams in memory.
#pragma once

#include <gtest/gtest.h>

#include "core/http/h2.h"
#include "tests/support/memory_stream.h"
#include "tests/support/test_pki.h"

namespace edgemesh::http {

using namespace std::chrono_literals;  // NOLINT
using test::Collector;
using test::MemoryStream;
using test::TestPki;

struct Side : H2Session::Handler {
  std::vector<std::unique_ptr<H2Connect>> connects;
  std::optional<Error> closed;
  bool going_away = false;
  std::function<void(std::unique_ptr<H2Connect>)> take;
  void on_connect(std::unique_ptr<H2Connect> connect) override {
    if (take)
      take(std::move(connect));
    else
      connects.push_back(std::move(connect));
  }
  void on_goaway() override { going_away = true; }
  void on_close(const Error& error) override {
    EXPECT_FALSE(closed.has_value());
    closed = error;
  }
};

inline std::string pattern(size_t n, int seed = 0) {
  std::string out(n, '\0');
  for (size_t i = 0; i < n; ++i)
    out[i] = static_cast<char>(i * 31 + i / 251 + static_cast<size_t>(seed));
  return out;
}

class H2Test : public ::testing::Test {
 protected:
  bool until(const std::function<bool()>& done) { return loop_->run_until(done, 20s); }
  void turns(int n = 20) {
    for (int i = 0; i < n; ++i) loop_->run_once();
  }
  void start(const test::MemoryStreamOptions& pipe = {}, const H2Options& options = {}) {
    auto [a, b] = MemoryStream::pair(*loop_, pipe);
    pipe_ = a.get();
    client_ = TestPki::take(H2Session::client(*loop_, std::move(a), &at_client_, options));
    server_ = TestPki::take(H2Session::server(*loop_, std::move(b), &at_server_, options));
  }
  std::unique_ptr<Collector> open(const std::string& authority = "10.0.0.1:80") {
    return std::make_unique<Collector>(TestPki::take(client_->open_connect(authority)));
  }
  // Opens a stream and accepts it.
  std::pair<std::unique_ptr<Collector>, std::unique_ptr<Collector>> open_pair() {
    auto near = open();
    size_t before = at_server_.connects.size();
    EXPECT_TRUE(until([&] { return at_server_.connects.size() > before; }));
    auto stream = at_server_.connects.back()->accept();
    EXPECT_NE(stream, nullptr);
    return {std::move(near), std::make_unique<Collector>(std::move(stream))};
  }

  std::unique_ptr<io::Loop> loop_ = TestPki::take(io::Loop::create());
  Side at_client_, at_server_;
  MemoryStream* pipe_ = nullptr;
  std::unique_ptr<H2Session> client_, server_;
};

}  // namespace edgemesh::http
