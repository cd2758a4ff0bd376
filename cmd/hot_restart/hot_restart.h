// Hot restart: on SIGUSR2 a process starts its successor (the program and arguments that it was
// started with itself), which may be another version or have another configuration, and hands the
// sockets that listen over to it. When the successor serves, this one drains and ends. Until then
// it goes on; a successor that fails changes nothing. No connection is refused.
//
//   predecessor                          successor (finds the descriptor in kHandoverVariable)
//     "edgemesh-handover 1"           ->   the version of what follows
//     "socket <key>" and a descriptor ->   for each socket that listens
//     "end"                           ->
//                                     <-  "ready": it accepts
//     "flow <addresses> [n]" and a socket   for each flow of datagrams, that came by the n-th
//                                     ->   socket of its listener; it reads no more of them
//     "draining"                      ->
//
// They talk over a pair of sockets that nobody else can reach; each message is a packet.
// Threads: the main loop's.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/clock.h"
#include "core/base/result.h"
#include "core/io/fd.h"
#include "core/io/loop.h"
#include "proxy/listener/inherited_sockets.h"
#include "proxy/udp/udp_listener.h"

namespace edgemesh::cmd {

inline constexpr const char* kHandoverVariable = "EDGEMESH_HOT_RESTART_FD";

// The successor's side, while it starts. Blocking.
class Predecessor {
 public:
  // Null: this process was started on its own. Takes the variable out of the environment.
  static Result<std::unique_ptr<Predecessor>> find();
  // `fd`: what find() finds, in tests. `patience`: with each of its messages.
  explicit Predecessor(io::Fd fd, std::chrono::milliseconds patience = std::chrono::seconds(10))
      : fd_(std::move(fd)), patience_(patience) {}
  // What it hands over. kTimeout, kProtocol, kUnavailable (it has ended), kResourceExhausted.
  Result<> receive(proxy::InheritedSockets* sockets);
  // This process accepts. Returns when the predecessor accepts no more. An error means that it did
  // not say so: it has ended, or hangs and drains when it wakes up. There is no way back, as it may
  // have heard; `flows` has what came.
  Result<> take_over(std::vector<proxy::HandedFlow>* flows);

 private:
  io::Fd fd_;
  std::chrono::milliseconds patience_;
};

// The predecessor's side.
class HotRestart final : private io::FdWatch::Handler {
 public:
  struct Hooks {
    // Name and descriptor of each socket that listens.
    std::function<std::vector<std::pair<std::string, int>>()> sockets;
    // The successor serves: its flows of datagrams are given away, to what is called in a later
    // turn; and taken back (but for those that were sent) when the successor fails all the same.
    std::function<void(std::function<void(std::vector<proxy::HandedFlow>)>)> give_flows;
    std::function<void()> take_datagrams_back;
    // After that: accept no more, finish what is open, and end.
    std::function<void()> drain;
  };
  HotRestart(io::Loop& loop, std::vector<std::string> argv, Hooks hooks);
  ~HotRestart() override;

  // Does nothing while one is under way.
  void begin();

 private:
  Result<> start();
  Result<> copy_sockets();
  void on_fd(bool readable, bool writable) override;
  void send_some();
  void send_flows(std::vector<proxy::HandedFlow> flows);
  void finish();
  void give_up(const std::string& why);
  void end_child();

  io::Loop& loop_;
  const std::vector<std::string> argv_;
  Hooks hooks_;
  io::Fd fd_;
  io::FdWatch watch_;
  pid_t child_ = -1;
  std::deque<std::pair<std::string, io::Fd>> to_send_;
  bool handing_over_ = false;  // the successor is ready
  bool said_all_ = false;
  bool done_ = false;
  std::shared_ptr<bool> attempt_;  // false: it is over
  io::Timer limit_;
};

// Tells systemd, where it asked for it (sd_notify(3)): "READY=1", "MAINPID=...".
void notify_service_manager(const std::string& text);

}  // namespace edgemesh::cmd
