// Pump: moves bytes between two streams in both directions until both ended.
//
// Reads go to the loop's scratch buffer and are written at once; what the other side does not take
// is kept (one pooled buffer a direction) and nothing more is read until it is gone: that is the
// back-pressure. A direction that moves much becomes spliced: socket -> pipe -> socket, no copy to
// user memory. Ends of input are passed on one by one (half-close).
//
// Base class of the connections (one allocation each). The derived class sets the streams and is
// told of the end by on_pump_end(), where it deletes itself: every member function here that may
// end the connection returns false then, and nothing of the object may be touched. Threads: the
// worker's loop.
#pragma once

#include <memory>

#include "core/io/loop.h"
#include "core/io/stream.h"
#include "core/io/tcp.h"
#include "proxy/buffer_pool.h"

namespace edgemesh::obs {
class Counter;
}

namespace edgemesh::proxy {

// Why a connection ended.
enum class EndReason : uint8_t {
  kClosed,          // both sides ended
  kClientReset,     // the side that connected broke off
  kUpstreamReset,   // the endpoint (or the tunnel to it) broke off
  kIdle,            // idle timeout
  kNoService,       // the destination is no service
  kNoEndpoint,      // the service has no ready endpoint
  kConnectFailed,   // no endpoint could be reached
  kConnectTimeout,  // no endpoint answered in time
  kNoTunnel,        // the endpoint is on another node, and there is no way there
  kRefused,         // policy or validity (inbound)
  kTooMany,         // connection limit
  kShutdown,        // the agent stopped
};
inline constexpr size_t kEndReasons = static_cast<size_t>(EndReason::kShutdown) + 1;
std::string_view to_string(EndReason reason);  // for metric labels
std::string_view in_words(EndReason reason);   // for the access log
uint32_t flags_of_end(EndReason reason);       // response flags, for access log and metrics
inline bool is_failure(EndReason reason) {
  return reason != EndReason::kClosed && reason != EndReason::kIdle &&
         reason != EndReason::kClientReset;
}

// What pumps of one worker share.
struct PumpContext {
  explicit PumpContext(io::Loop& l) : loop(l), yield_timer(l, [this] { run_yielded(); }) {}
  io::Loop& loop;
  BufferPool buffers;
  PipePool pipes;
  obs::Counter* bytes_to_upstream = nullptr;  // may be null
  obs::Counter* bytes_to_client = nullptr;

  // Pumps that used up their share of a turn and go on in the next.
  void yield(class Pump* pump);
  void forget(class Pump* pump);

 private:
  void run_yielded();
  std::vector<class Pump*> yielded_;
  io::Timer yield_timer;
};

class Pump {
 public:
  Pump(const Pump&) = delete;
  Pump& operator=(const Pump&) = delete;

 protected:
  explicit Pump(PumpContext& context)
      : context_(context), client_side_(*this), upstream_side_(*this) {}
  virtual ~Pump();

  // The connection is over. `error` is null where the reason says it all. Deletes this.
  virtual void on_pump_end(EndReason reason, const Error* error) = 0;
  // Before the pump runs, events go to the derived class.
  virtual void on_client_readable_early() = 0;
  virtual void on_upstream_connected() = 0;
  virtual void on_upstream_failed_early(const Error& error) = 0;

  void set_client(std::unique_ptr<io::Stream> client);
  void set_upstream(std::unique_ptr<io::Stream> upstream);
  void drop_upstream();
  io::Stream* client() { return client_.get(); }
  io::Stream* upstream() { return upstream_.get(); }

  // Starts pumping; `early` holds bytes of the client that the upstream has not taken (may be
  // null). `upstream_is_silent`: the upstream was not read yet and will say when it is readable.
  // False: ended.
  bool start_pump(std::unique_ptr<Buffer> early, bool upstream_is_silent);
  bool pumping() const { return pumping_; }

  void count_to_upstream(size_t n);
  uint64_t bytes_to_upstream() const { return up_.bytes; }
  uint64_t bytes_to_client() const { return down_.bytes; }
  bool half_closed() const { return up_.ended != down_.ended; }
  TimePoint last_active() const { return last_active_; }

  PumpContext& context_;

 private:
  friend struct PumpContext;

  struct ClientSide final : io::Stream::Handler {
    explicit ClientSide(Pump& p) : pump(p) {}
    void on_readable() override;
    void on_writable() override;
    void on_error(const Error& error) override;
    Pump& pump;
  };
  struct UpstreamSide final : io::Stream::Handler {
    explicit UpstreamSide(Pump& p) : pump(p) {}
    void on_connected() override;
    void on_readable() override;
    void on_writable() override;
    void on_error(const Error& error) override;
    Pump& pump;
  };

  struct Direction {
    std::unique_ptr<Buffer> pending;
    std::unique_ptr<SplicePipe> pipe;
    uint64_t bytes = 0;
    uint32_t read_size = 64 * 1024;
    uint8_t large_reads = 0;  // consecutive
    uint8_t small_runs = 0;   // consecutive spliced runs that moved little
    bool spliced = false;
    bool ended = false;  // end of input seen and passed on
  };
  enum class Step : uint8_t { kAgain, kBlocked, kEof, kGone };

  // Moves what can be moved now. False: ended.
  bool run(Direction& d, io::Stream& from, io::Stream& to);
  void count(const Direction& d, uint64_t before);
  bool run_up() { return run(up_, *client_, *upstream_); }
  bool run_down() { return run(down_, *upstream_, *client_); }
  // The stream as a socket, null when it is something else.
  io::TcpStream* socket(const io::Stream& stream) const {
    return &stream == client_.get() ? client_socket_ : upstream_socket_;
  }
  Step copy_step(Direction& d, io::Stream& from, io::Stream& to, size_t& moved);
  Step splice_step(Direction& d, io::Stream& from, io::Stream& to, size_t& moved);
  Step flush_pending(Direction& d, io::Stream& to);
  Step broken(const io::Stream& side, const char* what, int err);
  void note_read(Direction& d, size_t got, bool all_written, const io::Stream& from,
                 const io::Stream& to);

  std::unique_ptr<io::Stream> client_;
  std::unique_ptr<io::Stream> upstream_;
  io::TcpStream* client_socket_ = nullptr;
  io::TcpStream* upstream_socket_ = nullptr;
  ClientSide client_side_;
  UpstreamSide upstream_side_;
  Direction up_;    // client to upstream
  Direction down_;  // upstream to client
  TimePoint last_active_{};
  bool pumping_ = false;
  bool yielded_ = false;
};

}  // namespace edgemesh::proxy
