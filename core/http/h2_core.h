// The state of an H2Session and its streams. For core/http only.
//
// User callbacks never run inside nghttp2: what happened is noted on the stream, the stream is put
// on `ready_`, and dispatch() tells the users when nghttp2 has returned. A user may then destroy
// anything; the frames on the stack hold the core.
#pragma once

#include <nghttp2/nghttp2.h>

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/http/byte_queue.h"
#include "core/http/h2.h"

namespace edgemesh::http {

class H2Core;

struct H2State {
  H2Core* core = nullptr;  // null when the session ended
  int32_t id = 0;
  io::Stream::Handler* handler = nullptr;
  ByteQueue in;
  ByteQueue out;
  // Of the request or the answer.
  std::string authority;
  std::string method;
  std::string reason;
  Headers headers;
  size_t header_bytes = 0;
  int status = 0;
  Error error;

  bool has_user = true;    // a Stream or an H2Connect refers to it
  bool answered = false;   // server side: accept() or reject() was called
  bool connected = false;  // 2xx seen or sent
  bool refused = false;    // client side: an answer other than 2xx, or not processed at all
  bool tell_connected = false;
  bool eof_received = false;
  bool eof_read = false;
  bool shut = false;      // shutdown_write() was called
  bool end_sent = false;  // END_STREAM is in a frame
  bool closed = false;    // nghttp2 has let go of it
  bool failed = false;
  bool tell_failed = false;
  bool deferred = false;  // nghttp2 waits for resume_data
  bool want_readable = true;
  bool want_writable = false;
  bool queued = false;    // on the ready list
  std::unique_ptr<ExtendedConnect> extended;  // server side; null: a plain CONNECT
};

class H2Core final : public std::enable_shared_from_this<H2Core>, private io::Stream::Handler {
 public:
  H2Core(io::Loop& loop, std::unique_ptr<io::Stream> below, H2Session::Handler* handler,
         const H2Options& options, bool server);
  ~H2Core() override;
  Result<> init();
  void abandon();  // the user's session object goes

  Result<std::shared_ptr<H2State>> open(std::string_view authority, const Headers& extra,
                                        const ExtendedConnect* extended);
  Result<> answer(H2State& state, int status, const Headers& extra, bool with_data);
  void ping(UniqueFunction<void(Result<Duration>)> done);
  void goaway();
  bool accepts_streams() const { return !finished_ && !goaway_sent_ && !goaway_received_; }
  size_t active_streams() const { return states_.size(); }
  io::Stream& below() { return *below_; }
  uint64_t bytes_in() const { return bytes_in_; }
  uint64_t bytes_out() const { return bytes_out_; }

  // For the streams.
  void consumed(H2State& state, size_t n);
  void data_ready(H2State& state);
  void user_gone(const std::shared_ptr<H2State>& state, bool reset);
  void wake(const std::shared_ptr<H2State>& state);  // looks for callbacks to make, later
  const H2Options& options() const { return options_; }
  size_t room(const H2State& state) const;
  void append_out(H2State& state, std::span<const uint8_t> data);
  io::Loop& loop() { return loop_; }

 private:
  friend struct H2Callbacks;  // the functions that nghttp2 calls
  struct Ping {
    uint64_t id;
    TimePoint sent;
    UniqueFunction<void(Result<Duration>)> done;
  };

  void on_connected() override { flush(); }
  void on_readable() override;
  void on_writable() override;
  void on_error(const Error& error) override;

  void schedule();
  void flush();
  bool write_out();
  void dispatch();
  void dispatch_one(const std::shared_ptr<H2State>& state);
  void note(H2State& state);  // puts it on the ready list
  void drop_out(H2State& state);
  void fail_state(H2State& state, Error error);
  void finish(Error error, bool graceful);
  void check_end();
  Result<> submit_settings();

  int header_received(H2State& state, std::string_view name, std::string_view value);
  void headers_done(H2State& state);
  void request_done(H2State& state);
  void response_done(H2State& state);
  void stream_closed(H2State& state, uint32_t code);
  void ping_acked(const uint8_t* opaque);

  io::Loop& loop_;
  std::unique_ptr<io::Stream> below_;
  H2Session::Handler* handler_;
  H2Options options_;
  bool server_;
  io::SendBudget budget_;  // what `out` of the streams holds
  nghttp2_session* session_ = nullptr;
  std::unordered_map<int32_t, std::shared_ptr<H2State>> states_;
  std::unordered_set<H2State*> closed_held_;  // closed, but a user still reads from them
  std::vector<std::shared_ptr<H2State>> ready_;
  std::vector<std::shared_ptr<H2State>> requests_;  // to be told to on_connect
  std::vector<uint8_t> out_;                        // frames that the stream below did not take
  size_t out_at_ = 0;
  std::deque<Ping> pings_;
  uint64_t next_ping_ = 1;
  io::Timer drain_timer_;
  uint64_t bytes_in_ = 0;
  uint64_t bytes_out_ = 0;
  bool scheduled_ = false;
  bool dispatching_ = false;
  uint32_t goaway_code_ = 0;
  bool goaway_sent_ = false;
  bool goaway_received_ = false;
  bool tell_goaway_ = false;
  bool finished_ = false;
};

// Frames made within one flush(); the sessions of a thread share it.
std::vector<uint8_t>& h2_out_batch();
nghttp2_data_provider h2_data_provider(H2State& state);

class H2StreamImpl final : public io::Stream {
 public:
  explicit H2StreamImpl(std::shared_ptr<H2State> state) : state_(std::move(state)) {}
  ~H2StreamImpl() override;
  void set_handler(io::Stream::Handler* handler) override;
  io::IoResult read(std::span<uint8_t> into) override;
  io::IoResult write(std::span<const uint8_t> data) override;
  void shutdown_write() override;
  void reset() override { reset_ = true; }
  bool nothing_delivered() const override { return state_->refused; }

 private:
  std::shared_ptr<H2State> state_;
  bool reset_ = false;
};

class H2ConnectImpl final : public H2Connect {
 public:
  explicit H2ConnectImpl(std::shared_ptr<H2State> state) : state_(std::move(state)) {}
  ~H2ConnectImpl() override;
  const std::string& authority() const override { return state_->authority; }
  const Headers& headers() const override { return state_->headers; }
  const ExtendedConnect* extended() const override { return state_->extended.get(); }
  std::unique_ptr<io::Stream> accept(const Headers& extra) override;
  void reject(int status, std::string_view reason) override;

 private:
  std::shared_ptr<H2State> state_;
};

}  // namespace edgemesh::http
