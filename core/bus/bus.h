// Bus: the modules of a process and the messages between them. For control, never for the data path.
//
// - A module has a name and a group (KubeEdge's beehive terms). Which modules run is decided by who
//   adds them: configuration switches a module off by not adding it.
// - Messages to one module arrive in the order of sending, from the loop, never from within send().
// - request() waits for the answer: a message whose parent_id is the request's id, given to respond()
//   (or sent by send() to the requester: an answer that is waited for never reaches on_message).
// - What waits for delivery is bounded (kMaxQueued): beyond, send() fails and the sender decides.
// Threads: everything on the loop given, apart from post().
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/function.h"
#include "core/base/result.h"
#include "core/bus/message.h"
#include "core/io/loop.h"

namespace edgemesh::bus {

class Bus;

class Module {
 public:
  virtual ~Module() = default;
  virtual std::string_view name() const = 0;
  virtual std::string_view group() const = 0;
  // Modules start in the order in which they were added. An error stops those that did start.
  virtual Result<> start(Bus& bus) = 0;
  // In the reverse order. No message arrives afterwards.
  virtual void stop() = 0;
  virtual void on_message(Message message) = 0;
};

class Bus {
 public:
  static constexpr size_t kMaxQueued = 65'536;
  static constexpr size_t kMaxWaiting = 4'096;  // requests without an answer yet
  static constexpr Duration kDefaultTimeout = std::chrono::seconds(30);

  explicit Bus(io::Loop& loop);
  ~Bus();  // stops what runs
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  // Before start(). The second form borrows: the module must outlive the bus. A name that is taken is
  // an error.
  Result<> add(std::unique_ptr<Module> module);
  Result<> add(Module& module);

  // The error names the module.
  Result<> start();
  void stop();

  // kNotFound: no module of that name runs. kResourceExhausted: too many messages wait.
  Result<> send(std::string_view module, Message message);
  // A copy to every module of the group; returns how many that were.
  Result<size_t> send_group(std::string_view group, const Message& message);

  // `done` runs once, from the loop: with the answer, or kTimeout, kNotFound, kCancelled (stop).
  // The message gets an id if it has none, and its sync flag is set.
  using OnAnswer = UniqueFunction<void(Result<Message>)>;
  void request(std::string_view module, Message message, OnAnswer done,
               Duration timeout = kDefaultTimeout);
  // Gives an answer to the request that waits for it; false when none does (any more).
  bool respond(Message answer);
  bool waits_for(std::string_view id) const { return waiting_.contains(std::string(id)); }

  // Thread-safe send(). A message that cannot be delivered is logged and dropped. The bus must live
  // until the loop has ended.
  void post(std::string module, Message message);

  io::Loop& loop() { return loop_; }
  bool has(std::string_view module) const { return find(module) != nullptr; }
  std::vector<std::string> names() const;  // of what runs

 private:
  struct Slot {
    Module* module;
    std::unique_ptr<Module> owned;
    bool running = false;
  };
  struct Waiting {
    OnAnswer done;
    std::unique_ptr<io::Timer> timer;
  };
  struct Letter {
    Module* to;
    Message message;
  };

  Result<> add_slot(Slot slot);
  Slot* find(std::string_view module) const;
  Result<> enqueue(Module* to, Message message);
  void schedule();
  void deliver();
  void finish(const std::string& id, Result<Message> result);

  io::Loop& loop_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::deque<Letter> queue_;
  bool scheduled_ = false;
  std::unordered_map<std::string, Waiting> waiting_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace edgemesh::bus
