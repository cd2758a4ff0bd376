// One call, as the channel and its connections see it. For core/grpc only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/grpc/channel.h"

namespace edgemesh::grpc {

class Connection;

struct CallState {
  std::string method;
  std::string out;  // the request in its frame
  size_t out_at = 0;
  bool stream = false;
  TimePoint deadline{};  // zero: none

  std::weak_ptr<Connection> connection;
  int32_t id = -1;
  bool retried = false;

  // The answer so far.
  std::string in;  // bytes that are no whole message yet
  size_t header_bytes = 0;
  int http_status = 0;
  int grpc_status = -1;
  std::string grpc_message;
  std::vector<std::string> messages;  // whole, not yet told
  bool got_message = false;
  std::string problem;  // what is wrong with the answer
  ErrorCode problem_code = ErrorCode::kProtocol;

  bool ended = false;  // `result` is set
  Result<> result;

  // The channel's part.
  bool queued = false;
  bool resubmit = false;
  bool abandoned = false;  // nobody wants to hear more
  std::unique_ptr<io::Timer> timer;
  Channel::Done done;
  Channel::OnMessage on_message;
  Channel::OnEnd on_end;

  // Takes bytes of DATA; whole messages move to `messages`, a mistake to `problem`.
  void take(std::string_view data, size_t max_message);
};
using CallPtr = std::shared_ptr<CallState>;

}  // namespace edgemesh::grpc
