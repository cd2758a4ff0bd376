// Text: an immutable string that many owners share, 8 bytes each. Names of nodes and zones repeat in
// every endpoint: as strings of their own they would be most of a snapshot.
// Threads: Text may be copied and dropped on any thread; a TextPool belongs to one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace edgemesh::discovery {

class Text {
 public:
  Text() = default;
  Text(std::string_view text) : body_(text.empty() ? nullptr : new Body(text)) {}  // NOLINT
  Text(const std::string& text) : Text(std::string_view(text)) {}                  // NOLINT
  Text(const char* text) : Text(std::string_view(text)) {}                         // NOLINT
  Text(const Text& other) : body_(other.body_) {
    if (body_ != nullptr) body_->owners.fetch_add(1, std::memory_order_relaxed);
  }
  Text(Text&& other) noexcept : body_(std::exchange(other.body_, nullptr)) {}
  Text& operator=(Text other) noexcept {
    std::swap(body_, other.body_);
    return *this;
  }
  ~Text() {
    if (body_ != nullptr && body_->owners.fetch_sub(1, std::memory_order_acq_rel) == 1) delete body_;
  }

  const std::string& str() const {
    static const std::string kEmpty;
    return body_ != nullptr ? body_->text : kEmpty;
  }
  operator const std::string&() const { return str(); }  // NOLINT
  bool empty() const { return body_ == nullptr; }
  // Of the characters; made once.
  size_t hash() const { return body_ != nullptr ? body_->hash : 0; }
  // Nobody else holds it.
  bool only_owner() const { return body_ != nullptr && body_->owners.load(std::memory_order_acquire) == 1; }

  friend bool operator==(const Text& a, const Text& b) {
    return a.body_ == b.body_ || a.str() == b.str();
  }
  friend bool operator==(const Text& a, std::string_view b) { return a.str() == b; }
  friend bool operator==(const Text& a, const std::string& b) { return a.str() == b; }
  friend bool operator==(const Text& a, const char* b) { return a.str() == b; }

 private:
  struct Body {
    explicit Body(std::string_view t)
        : hash(static_cast<uint32_t>(std::hash<std::string_view>()(t))), text(t) {}
    std::atomic<uint32_t> owners{1};
    const uint32_t hash;  // fills a gap that would be there anyway
    std::string text;
  };
  Body* body_ = nullptr;
};

// Gives equal strings one body. What nobody else holds is forgotten as the pool grows.
class TextPool {
 public:
  Text get(const std::string& text) {
    if (text.empty()) return {};
    if (auto it = texts_.find(text); it != texts_.end()) return it->second;
    if (texts_.size() >= sweep_at_) sweep();
    Text made(text);
    texts_.emplace(made.str(), made);
    return made;
  }
  size_t size() const { return texts_.size(); }

 private:
  void sweep() {
    std::erase_if(texts_, [](const auto& item) { return item.second.only_owner(); });
    sweep_at_ = texts_.size() * 2 + kFirstSweep;
  }
  static constexpr size_t kFirstSweep = 1024;
  size_t sweep_at_ = kFirstSweep;
  std::unordered_map<std::string_view, Text> texts_;  // keys live in the bodies
};

}  // namespace edgemesh::discovery
