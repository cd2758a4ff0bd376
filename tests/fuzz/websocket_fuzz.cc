// Frames at a WebSocket's server side: the first byte chooses how the input is cut into pieces.
#include <string>

#include "core/http/websocket.h"
#include "tests/support/memory_stream.h"

using namespace edgemesh;  // NOLINT

namespace {
struct Sink : http::WebSocket::Handler {
  size_t bytes = 0;
  bool closed = false;
  void on_message(std::string_view data, bool) override {
    EM_CHECK(!closed && data.size() <= 4096);
    bytes += data.size();
  }
  void on_close(uint16_t, const std::string&) override {
    EM_CHECK(!closed);
    closed = true;
  }
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1 || size > 8192) return 0;
  static io::Loop* loop = io::Loop::create().value().release();
  test::MemoryStreamOptions pipe;
  pipe.max_read = data[0] % 16;
  auto [near, far] = test::MemoryStream::pair(*loop, pipe);
  http::WebSocketOptions options;
  options.max_message_bytes = 4096;
  auto socket = http::WebSocket::over(*loop, std::move(near), true, options);
  Sink sink;
  socket->set_handler(&sink);
  test::Collector peer(std::move(far));
  peer.send({reinterpret_cast<const char*>(data) + 1, size - 1});  // NOLINT
  for (int i = 0; i < 4; ++i) loop->run_once();
  peer.finish();
  for (int i = 0; i < 4; ++i) loop->run_once();
  socket.reset();
  peer.drop();
  for (int i = 0; i < 4; ++i) loop->run_once();
  return 0;
}
