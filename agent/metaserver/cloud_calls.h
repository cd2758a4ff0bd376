// CloudCalls: requests to the Kubernetes API that the cloud makes for this node, over the control
// channel (core/channel/application.h). What they may do is the cloud's to decide: they count as
// requests of this node, whoever on it asked.
//
// Without a connection the answer is a Status 503 ServiceUnavailable at once; nothing is queued for
// later, so that who asks knows what became of it.
// Threads: the bus's loop.
#pragma once

#include <functional>
#include <string>

#include "core/base/function.h"
#include "core/bus/bus.h"
#include "core/channel/application.h"

namespace edgemesh::agent {

inline constexpr const char* kMetaServerModule = "metaServer";  // in the configuration

class CloudCalls {
 public:
  struct Options {
    std::string node;
    Duration timeout = std::chrono::seconds(10);
    size_t max_in_flight = 16;  // as many as a cloud takes
  };
  struct Answer {
    int status = 200;  // HTTP's
    std::string body;  // JSON: an object, or a Status
  };
  using Done = UniqueFunction<void(Answer)>;

  // `connected`: whether there is a way to the cloud now.
  CloudCalls(bus::Bus& bus, Options options, std::function<bool()> connected);
  ~CloudCalls();
  bool connected() const { return connected_(); }
  // `done` runs once, maybe from within the call, and not after this object is gone.
  void call(channel::Application request, Done done);

 private:
  Answer answer_of(const std::string& verb, const bus::Message& message) const;

  bus::Bus& bus_;
  Options options_;
  std::function<bool()> connected_;
  size_t in_flight_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// A Status object, as the Kubernetes API puts what went wrong.
std::string status_json(int code, std::string_view reason, std::string_view message);

}  // namespace edgemesh::agent
