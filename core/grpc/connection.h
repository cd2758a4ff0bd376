// One HTTP/2 connection of a channel. For core/grpc only.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "core/grpc/call_state.h"
#include "core/io/stream.h"

struct nghttp2_session;

namespace edgemesh::grpc {

class Connection final : public std::enable_shared_from_this<Connection>,
                         private io::Stream::Handler {
 public:
  // The owner only takes notes: it must not destroy a connection or start calls in here.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void on_messages(const CallPtr& call) = 0;
    virtual void on_ended(const CallPtr& call) = 0;    // `result` is set
    virtual void on_refused(const CallPtr& call) = 0;  // the server did not look at it
  };

  // Starts connecting.
  static Result<std::shared_ptr<Connection>> open(io::Loop& loop, const ChannelOptions& options,
                                                  Owner* owner);
  Connection(io::Loop& loop, const ChannelOptions& options, Owner* owner);
  ~Connection() override;

  bool takes_calls() const { return below_ != nullptr && !going_away_; }
  bool closed() const { return below_ == nullptr; }
  Result<> submit(const CallPtr& call);
  // Ends the call with an error and tells the server; on_ended follows before it returns.
  void give_up(const CallPtr& call, ErrorCode code, std::string_view why);
  // Cuts the connection without telling anybody.
  void detach();

 private:
  friend struct Callbacks;
  void start_session();
  void finish(const CallPtr& call, Result<> result);
  void conclude(const CallPtr& call, uint32_t code);
  void schedule_flush();
  void flush();
  void broken(const Error& error);
  void on_connected() override { schedule_flush(); }
  void on_readable() override;
  void on_writable() override { schedule_flush(); }
  void on_error(const Error& error) override;

  io::Loop& loop_;
  const ChannelOptions& options_;
  Owner* owner_;
  std::unique_ptr<io::Stream> below_;
  nghttp2_session* session_ = nullptr;
  bool going_away_ = false;  // the server takes no new calls here
  // Every stream that nghttp2 knows, also of calls that have ended: it may still read their
  // request.
  std::unordered_map<int32_t, CallPtr> calls_;
  std::string out_;
  bool flush_scheduled_ = false;
};

}  // namespace edgemesh::grpc
