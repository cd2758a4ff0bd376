// Who is next: choices among n things with weights that allocate nothing once reserved.
// Threads: plain values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "proxy/upstream/hash.h"

namespace edgemesh::proxy {

// Earliest deadline first: weighted turns as even as they can be. O(log n) a turn; weights may
// differ from turn to turn.
class TurnQueue {
 public:
  void reserve(size_t n) { heap_.reserve(n); }
  void clear() { heap_.clear(); }
  bool empty() const { return heap_.empty(); }

  // 0 to n - 1, each starting somewhere in its first turn, so that workers do not march in step.
  template <class Weight>
  void reset(uint32_t n, Random& random, const Weight& weight) {
    heap_.clear();
    for (uint32_t i = 0; i < n; ++i) heap_.push_back({random.unit() / weight(i), i});
    for (size_t i = heap_.size() / 2; i-- > 0;) sink(i);
  }

  template <class Weight>
  uint32_t next(const Weight& weight) {
    Item& top = heap_.front();
    const uint32_t index = top.index;
    top.deadline += 1.0 / weight(index);
    if (top.deadline > kRebase) rebase();
    sink(0);
    return index;
  }

 private:
  struct Item {
    double deadline;
    uint32_t index;
    bool operator<(const Item& other) const {
      return deadline != other.deadline ? deadline < other.deadline : index < other.index;
    }
  };
  static constexpr double kRebase = 1e9;  // beyond, small steps would drown in rounding

  void rebase() {
    double least = heap_.front().deadline;
    for (const Item& item : heap_) least = std::min(least, item.deadline);
    for (Item& item : heap_) item.deadline -= least;
  }
  void sink(size_t i) {
    for (;;) {
      size_t least = i;
      for (size_t child = 2 * i + 1; child <= 2 * i + 2; ++child)
        if (child < heap_.size() && heap_[child] < heap_[least]) least = child;
      if (least == i) return;
      std::swap(heap_[i], heap_[least]);
      i = least;
    }
  }
  std::vector<Item> heap_;
};

// Draws with probability in proportion to fixed weights in O(1) (Walker's alias method).
class WeightedDraw {
 public:
  void reserve(size_t n) {
    cells_.reserve(n);
    work_.reserve(n);
  }

  template <class Weight>
  void reset(uint32_t n, const Weight& weight) {
    cells_.resize(n);
    work_.clear();
    double sum = 0;
    for (uint32_t i = 0; i < n; ++i) sum += weight(i);
    // `work_`: cells under the mean from the front, the others behind a border that moves.
    for (uint32_t i = 0; i < n; ++i) {
      cells_[i] = {weight(i) * n / sum, i};
      work_.push_back(i);
    }
    auto border = std::partition(work_.begin(), work_.end(),
                                 [this](uint32_t i) { return cells_[i].keep < 1; });
    size_t small = 0;
    size_t large = static_cast<size_t>(border - work_.begin());
    while (small < large && large < work_.size()) {
      Cell& poor = cells_[work_[small++]];
      Cell& rich = cells_[work_[large]];
      poor.other = work_[large];
      rich.keep -= 1 - poor.keep;
      if (rich.keep < 1) ++large;  // it is poor now and stands right behind the poor ones
    }
  }

  uint32_t next(Random& random) const {
    const uint32_t i = random.below(static_cast<uint32_t>(cells_.size()));
    const Cell& cell = cells_[i];
    return cell.keep >= 1 || random.unit() < cell.keep ? i : cell.other;
  }

 private:
  struct Cell {
    double keep;
    uint32_t other;
  };
  std::vector<Cell> cells_;
  std::vector<uint32_t> work_;
};

}  // namespace edgemesh::proxy
