// Hot restart: on SIGUSR2 a process starts its successor (the program and arguments that it was
// started with itself), which may be another version or have another configuration, and hands the
// sockets that listen over to it. When the successor serves, this one drains and ends. Until then
// it goes on; a successor that fails changes nothing. No connection is refused.
//
//   predecessor                          successor (finds the descriptor in kHandoverVariable)
//     "socket <key>" and a descriptor ->   for each socket that listens
//     "end"                           ->
//                                     <-  "ready": it accepts
//     "draining"                      ->  the admin address is free
//
// They talk over a pair of sockets that nobody else can reach; each message is a packet.
// Threads: the main loop's.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/result.h"
#include "core/io/fd.h"
#include "core/io/loop.h"
#include "proxy/listener/inherited_sockets.h"

namespace edgemesh::cmd {

inline constexpr const char* kHandoverVariable = "EDGEMESH_HOT_RESTART_FD";

// The successor's side, while it starts. Blocking.
class Predecessor {
 public:
  // Null: this process was started on its own. Takes the variable out of the environment.
  static Result<std::unique_ptr<Predecessor>> find();
  // What it hands over. kTimeout, kProtocol.
  Result<> receive(proxy::InheritedSockets* sockets);
  // This process accepts. Returns when the predecessor has freed its admin address.
  Result<> take_over();

 private:
  explicit Predecessor(io::Fd fd) : fd_(std::move(fd)) {}
  io::Fd fd_;
};

// The predecessor's side.
class HotRestart final : private io::FdWatch::Handler {
 public:
  struct Hooks {
    // Name and descriptor of each socket that listens.
    std::function<std::vector<std::pair<std::string, int>>()> sockets;
    // The successor serves: free the admin address.
    std::function<void()> free_admin;
    // After that: finish what is open, and end.
    std::function<void()> drain;
  };
  HotRestart(io::Loop& loop, std::vector<std::string> argv, Hooks hooks);
  ~HotRestart() override;

  // Does nothing while one is under way.
  void begin();

 private:
  Result<> start();
  void on_fd(bool readable, bool writable) override;
  void send_some();
  void give_up(const std::string& why);
  void end_child();

  io::Loop& loop_;
  const std::vector<std::string> argv_;
  Hooks hooks_;
  io::Fd fd_;
  io::FdWatch watch_;
  pid_t child_ = -1;
  std::vector<std::pair<std::string, int>> to_send_;
  size_t sent_ = 0;
  bool done_ = false;
  io::Timer limit_;
};

// Tells systemd, where it asked for it (sd_notify(3)): "READY=1", "MAINPID=...".
void notify_service_manager(const std::string& text);

}  // namespace edgemesh::cmd
