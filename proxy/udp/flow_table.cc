#include "proxy/udp/flow_table.h"

#include <algorithm>

namespace edgemesh::proxy {

FlowTable::FlowTable(Duration idle, Duration answered, uint64_t seed)
    : idle_(idle), answered_timeout_(std::min(idle, answered)), flows_(16, Hash{seed}) {}

FlowTable::~FlowTable() = default;

FlowNode* FlowTable::find(const FlowKey& key) const {
  auto it = flows_.find(key);
  return it == flows_.end() ? nullptr : it->second.get();
}

void FlowTable::insert(std::unique_ptr<FlowNode> flow, TimePoint now) {
  FlowNode& node = *flow;
  flows_.emplace(node.key(), std::move(flow));
  touch(node, now);
}

void FlowTable::touch(FlowNode& flow, TimePoint now, bool answered) {
  flow.last_used_ = now;
  flow.answered_ = answered;
  (answered ? answered_ : by_use_).push_back(flow);
}

std::unique_ptr<FlowNode> FlowTable::take(FlowNode& flow) {
  flow.unlink();
  auto it = flows_.find(flow.key());
  if (it == flows_.end()) return nullptr;
  auto out = std::move(it->second);
  flows_.erase(it);
  return out;
}

FlowNode* FlowTable::oldest() const {
  FlowNode* a = answered_.front();
  FlowNode* b = by_use_.front();
  if (a == nullptr || b == nullptr) return a != nullptr ? a : b;
  return a->last_used() <= b->last_used() ? a : b;
}

FlowNode* FlowTable::expired(TimePoint now) const {
  if (FlowNode* f = answered_.front(); f != nullptr && f->last_used() + answered_timeout_ <= now)
    return f;
  if (FlowNode* f = by_use_.front(); f != nullptr && f->last_used() + idle_ <= now) return f;
  return nullptr;
}

std::optional<TimePoint> FlowTable::next_deadline() const {
  std::optional<TimePoint> next;
  if (FlowNode* f = answered_.front(); f != nullptr) next = f->last_used() + answered_timeout_;
  if (FlowNode* f = by_use_.front(); f != nullptr)
    next = std::min(next.value_or(TimePoint::max()), f->last_used() + idle_);
  return next;
}

}  // namespace edgemesh::proxy
