#include "core/bus/bus.h"

#include <algorithm>
#include <utility>

#include "core/base/log.h"

namespace edgemesh::bus {

Bus::Bus(io::Loop& loop) : loop_(loop) {}

Bus::~Bus() {
  stop();
}

Result<> Bus::add(std::unique_ptr<Module> module) {
  Module* raw = module.get();
  return add_slot({raw, std::move(module)});
}

Result<> Bus::add(Module& module) {
  return add_slot({&module, nullptr});
}

Result<> Bus::add_slot(Slot slot) {
  for (const auto& other : slots_) {
    if (other->module->name() == slot.module->name())
      return fail(ErrorCode::kAlreadyExists, "module {} is there already", slot.module->name());
  }
  slots_.push_back(std::make_unique<Slot>(std::move(slot)));
  return {};
}

Result<> Bus::start() {
  for (const auto& slot : slots_) {
    if (slot->running) continue;
    slot->running = true;  // it may send to itself while it starts
    auto started = slot->module->start(*this);
    if (started) continue;
    slot->running = false;
    Error error = started.error().with_context(fmt::format("module {}", slot->module->name()));
    stop();
    return fail(std::move(error));
  }
  return {};
}

void Bus::stop() {
  for (auto it = slots_.rbegin(); it != slots_.rend(); ++it) {
    if (!std::exchange((*it)->running, false)) continue;
    (*it)->module->stop();
  }
  queue_.clear();
  while (!waiting_.empty()) {
    Waiting waiting = std::move(waiting_.begin()->second);
    waiting_.erase(waiting_.begin());
    if (waiting.done) waiting.done(fail(ErrorCode::kCancelled, "the program is ending"));
  }
}

Bus::Slot* Bus::find(std::string_view module) const {
  for (const auto& slot : slots_) {
    if (slot->running && slot->module->name() == module) return slot.get();
  }
  return nullptr;
}

std::vector<std::string> Bus::names() const {
  std::vector<std::string> out;
  for (const auto& slot : slots_) {
    if (slot->running) out.emplace_back(slot->module->name());
  }
  return out;
}

Result<> Bus::enqueue(Module* to, Message message) {
  if (queue_.size() >= kMaxQueued)
    return fail(ErrorCode::kResourceExhausted, "bus: {} messages wait", queue_.size());
  queue_.push_back({to, std::move(message)});
  schedule();
  return {};
}

Result<> Bus::send(std::string_view module, Message message) {
  loop_.assert_on_thread();
  Slot* slot = find(module);
  if (slot == nullptr) return fail(ErrorCode::kNotFound, "bus: no module {} runs", module);
  return enqueue(slot->module, std::move(message));
}

Result<size_t> Bus::send_group(std::string_view group, const Message& message) {
  loop_.assert_on_thread();
  size_t sent = 0;
  for (const auto& slot : slots_) {
    if (!slot->running || slot->module->group() != group) continue;
    EM_TRY_VOID(enqueue(slot->module, message));
    ++sent;
  }
  return sent;
}

// A later turn, not a deferred task of this one: two modules that answer each other must not keep
// the loop from its sockets.
void Bus::schedule() {
  if (std::exchange(scheduled_, true)) return;
  loop_.post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.lock()) deliver();
  });
}

void Bus::deliver() {
  scheduled_ = false;
  std::weak_ptr<bool> alive = alive_;
  for (size_t n = queue_.size(); n > 0 && !queue_.empty(); --n) {
    Letter letter = std::move(queue_.front());
    queue_.pop_front();
    if (!letter.message.parent_id.empty() && waiting_.contains(letter.message.parent_id)) {
      respond(std::move(letter.message));
    } else if (const auto it = std::find_if(
                   slots_.begin(), slots_.end(),
                   [&](const auto& slot) { return slot->module == letter.to && slot->running; });
               it != slots_.end()) {
      letter.to->on_message(std::move(letter.message));
    }
    if (alive.expired()) return;
  }
  if (!queue_.empty()) schedule();
}

void Bus::request(std::string_view module, Message message, OnAnswer done, Duration timeout) {
  if (message.id.empty()) message.id = new_id();
  message.sync = true;
  const std::string id = message.id;
  Result<> sent;
  if (waiting_.size() >= kMaxWaiting)
    sent = fail(ErrorCode::kResourceExhausted, "bus: {} requests wait for an answer", kMaxWaiting);
  else if (waiting_.contains(id))
    sent = fail(ErrorCode::kAlreadyExists, "bus: request {} waits already", id);
  else
    sent = send(module, std::move(message));
  if (!sent) {
    loop_.defer(
        [done = std::move(done), error = sent.error()]() mutable { done(fail(std::move(error))); });
    return;
  }
  auto timer = std::make_unique<io::Timer>(loop_, [this, id, name = std::string(module)] {
    finish(id, fail(ErrorCode::kTimeout, "bus: no answer from {} in time", name));
  });
  timer->start(timeout);
  waiting_.emplace(id, Waiting{std::move(done), std::move(timer)});
}

bool Bus::respond(Message answer) {
  loop_.assert_on_thread();
  const std::string id = answer.parent_id;
  if (!waiting_.contains(id)) return false;
  finish(id, std::move(answer));
  return true;
}

void Bus::finish(const std::string& id, Result<Message> result) {
  const auto it = waiting_.find(id);
  if (it == waiting_.end()) return;
  Waiting waiting = std::move(it->second);
  waiting_.erase(it);
  if (waiting.timer) waiting.timer->stop();
  waiting.done(std::move(result));
}

void Bus::post(std::string module, Message message) {
  loop_.post([this, alive = std::weak_ptr<bool>(alive_), module = std::move(module),
              message = std::move(message)]() mutable {
    if (!alive.lock()) return;
    if (auto sent = send(module, std::move(message)); !sent)
      EM_LOG(kWarn, "bus", "a message to {} is dropped: {}", module, sent.error().message);
  });
}

}  // namespace edgemesh::bus
