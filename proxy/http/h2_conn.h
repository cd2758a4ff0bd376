// What the HTTP/2 server and client connections share, on nghttp2. For proxy/http/h2_* only.
//
// Users are called from within nghttp2's receiving and sending functions: what they may do there is
// submit frames. So a Conn is owned by itself: the user's object abandons it, and it goes when the
// last of its functions has left the stack (Busy). A Stream lives until the user released it and
// nghttp2 closed it; the pointer that nghttp2 keeps stays good.
#pragma once

#include <nghttp2/nghttp2.h>

#include <memory>
#include <string>
#include <vector>

#include "core/io/loop.h"
#include "core/io/stream.h"
#include "proxy/http/h2_closed.h"
#include "proxy/http/h2_memory.h"
#include "proxy/http/h2_scanner.h"
#include "proxy/http/h2_server.h"
#include "proxy/http/stream.h"
#include "proxy/http/write_batch.h"

namespace edgemesh::proxy::h2 {

class Conn;

// A queue of bytes; its memory comes from a free list of the thread while it is not empty.
class Bytes {
 public:
  Bytes() = default;
  ~Bytes() { clear(); }
  Bytes(Bytes&& other) noexcept : bytes_(std::exchange(other.bytes_, nullptr)), at_(other.at_) {}
  Bytes& operator=(Bytes&&) = delete;
  bool empty() const { return bytes_ == nullptr; }
  size_t size() const { return bytes_ == nullptr ? 0 : bytes_->size() - at_; }
  std::span<const uint8_t> view() const {
    return bytes_ == nullptr ? std::span<const uint8_t>{}
                             : std::span<const uint8_t>(*bytes_).subspan(at_);
  }
  void append(std::span<const uint8_t> data);
  void consume(size_t n);
  void clear();

 private:
  std::vector<uint8_t>* bytes_ = nullptr;
  size_t at_ = 0;
};

class Bucket {
 public:
  bool take(TimePoint now, uint32_t burst, uint32_t per_second);
  void give(double tokens) { more_ += tokens; }

 private:
  double more_ = 0;
  TimePoint last_{};
  double left_ = -1;
};

class Stream final : public HttpStream {
 public:
  void set_handler(Handler* h) override { handler = h; }
  void send_head(const Head& head, bool end) override;
  bool send_data(std::span<const uint8_t> data, bool end) override;
  void send_trailers(const Head& trailers) override;
  void set_reading(bool on) override;
  const SockAddr& peer_addr() const override { return peer; }
  const tls::PeerIdentity* peer_identity() const override { return identity.get(); }

  // What is to leave next.
  std::span<const uint8_t> ahead() const { return out.empty() ? direct : out.view(); }
  void consume(size_t n) {
    if (out.empty())
      direct = direct.subspan(n);
    else
      out.consume(n);
  }

  static Stream* take(Conn* conn);
  void recycle();

  Conn* conn = nullptr;  // null: ended or lost
  Stream* previous = nullptr;
  Stream* next = nullptr;
  Handler* handler = nullptr;
  SockAddr peer;
  std::shared_ptr<const tls::PeerIdentity> identity;
  HeadPtr head;          // being read; a client's request that waits for SETTINGS
  HeadPtr in_trailers;   // that wait for set_reading(true)
  HeadPtr out_trailers;  // that wait for the data to leave
  std::string_view host;
  std::string protocol;  // that a client's extended CONNECT asked for
  size_t header_bytes = 0;
  size_t header_fields = 0;
  Bytes in;
  Bytes out;
  std::span<const uint8_t> direct;  // the user's, within send_data(); `out` is empty then
  TimePoint waits_since{};          // of `out`: the last piece that left, or the first that came
  int32_t id = 0;
  const char* fail = nullptr;  // to be told by on_reset(kRefused)
  const char* lost = nullptr;  // to be told by on_reset(lost_reason)
  ResetReason lost_reason{};
  bool open = false;      // nghttp2 knows it
  bool released = false;  // no user, or not any more
  bool reading = true;
  bool too_large = false;
  bool in_final = false;  // the final head came
  bool in_end = false;    // END_STREAM came
  bool in_told = false;   // and the user knows
  bool head_sent = false;
  bool out_ended = false;  // by the user
  bool end_sent = false;
  bool reset_after_end = false;
  bool deferred = false;
  bool blocked = false;  // above the high-water mark
  bool queued = false;   // on the ready list
  bool extended = false;
  bool tunnel = false;
  bool head_ends = false;  // of a request that waits
  bool slow = false;       // we reset it: the peer takes nothing
  bool cut = false;        // the peer reset it after its message, the user has not ended ours

 private:
  void release() override;
};

struct Callbacks;

class Conn : public io::Stream::Handler, public WriteBatch::Member {
 public:
  Conn(io::Loop& loop, WriteBatch& batch, std::unique_ptr<io::Stream> io, const H2Limits& limits,
       bool server);
  void abandon();
  void send_head(Stream& s, const Head& head, bool end);
  bool send_data(Stream& s, std::span<const uint8_t> data, bool end);
  void send_trailers(Stream& s, const Head& trailers);
  void resume(Stream& s);
  void on_released(Stream& s);

 protected:
  friend struct Callbacks;
  friend class Stream;
  ~Conn() override;

  class Busy {
   public:
    explicit Busy(Conn& conn) : conn_(conn) { ++conn_.depth_; }
    ~Busy() {
      if (--conn_.depth_ == 0 && conn_.abandoned_) delete &conn_;
    }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    Conn& conn_;
  };

  void on_connected() override;
  void on_readable() override;
  void on_writable() override;
  void on_error(const Error& error) override;
  void flush_writes() override;

  virtual void head_done(Stream& s, bool end) = 0;
  virtual void tell_connected() {}
  virtual void tell_available() {}
  virtual void tell_bad(std::string_view) {}
  virtual void tell_closed(const Error& error) = 0;
  virtual void forget_handler() = 0;
  virtual void on_settings() {}
  virtual void on_ping_ack() {}
  virtual void before_flush() {}
  // Of the derived class: what is due, and when the next is (TimePoint::max(): nothing is).
  virtual void on_time(TimePoint) {}
  virtual TimePoint next_time() const { return TimePoint::max(); }

  bool over() const { return finished_ || abandoned_; }
  void submit(Stream& s, const Head& head, bool end);
  void feed(std::span<const uint8_t> data);
  ssize_t receive(std::span<const uint8_t> data);
  void judge_closed(int32_t id);
  void send_before_reset(Stream& s);
  std::span<const uint8_t> send_direct(Stream& s, std::span<const uint8_t> data);
  void fail_session(int code);
  bool write_out();
  void send_frames();
  void run_ready();
  void run_ready_one(Stream& s);
  void note(Stream& s);
  void told_end(Stream& s);
  void check_end();
  void finish(Error error, bool graceful);
  void terminate(uint32_t code);
  void link(Stream& s);
  void unlink(Stream& s);
  void deliver(Stream& s, std::span<const uint8_t> data, bool end);
  void deliver_trailers(Stream& s);
  void flush_pending(bool end);
  void stream_closed(Stream& s, uint32_t code);
  void count_frame(const nghttp2_frame_hd& head);
  void glitch();
  void control_frame();
  void calm(std::string_view why);
  void note_write(size_t n);
  void note_head();
  void arm(TimePoint at);
  void on_timer();
  void check_slow(TimePoint now);
  void block_writes();
  TimePoint soonest() const;
  void drain_notice();
  void drain_final();
  void flush_later() { batch_.add(*this); }

  io::Loop& loop_;
  WriteBatch& batch_;
  std::unique_ptr<io::Stream> io_;
  H2Limits limits_;
  SockAddr peer_;
  std::shared_ptr<const tls::PeerIdentity> identity_;
  SessionMemory memory_;
  nghttp2_session* session_ = nullptr;
  Stream* first_ = nullptr;
  size_t streams_ = 0;
  size_t full_at_ = SIZE_MAX;  // client: the server refused one more, and none has ended since
  std::vector<Stream*> ready_;
  Bytes out_;                  // frames that the stream below did not take
  Stream* pending_ = nullptr;  // data in the input that may be the last of it
  std::span<const uint8_t> pending_data_;
  ClosedStreams closed_;  // server
  FrameScanner scanner_;
  Bucket resets_;
  Bucket control_;
  Bucket updates_;
  io::Timer timer_;
  Duration head_timeout_{};  // server
  TimePoint last_input_{};
  TimePoint last_output_{};
  TimePoint idle_since_{};
  TimePoint head_since_{};  // what is half there began then
  TimePoint end_by_ = TimePoint::max();
  uint64_t head_begun_ = 0;
  uint32_t goaway_code_ = 0;
  int depth_ = 0;
  int failed_ = 0;       // of nghttp2, to be told at the end of the turn
  bool direct_ = false;  // within send_direct(), send_before_reset()
  bool server_;
  bool abandoned_ = false;
  bool finished_ = false;
  bool goaway_received_ = false;
  bool draining_ = false;
  bool goaway_sent_ = false;
  bool settings_received_ = false;
  bool available_ = false;  // to be told
  bool connected_ = true;
  bool write_blocked_ = false;
  bool head_waits_ = false;
  bool idle_released_ = false;  // the memory that an idle connection does not need
};

}  // namespace edgemesh::proxy::h2
