#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cstring>
#include <sstream>
#include <stdexcept>

#include "core/config/node.h"
#include "core/config/reader.h"

namespace edgemesh::config {

namespace {

constexpr size_t kMaxDepth = 32;

// The way out of yaml-cpp's parser; caught in parse_yaml().
struct Refused : std::runtime_error {
  Refused(const YAML::Mark& mark, const std::string& message)
      : std::runtime_error(message), line(mark.line + 1) {}
  int line;
};

class Builder final : public YAML::EventHandler {
 public:
  Builder(State& state, Node& top, size_t max_nodes)
      : arena_(&state.arena), top_(top), max_nodes_(max_nodes) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    scalar(mark, anchor, Node::Kind::kNull, "", "");
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw Refused(mark, "aliases (*name) are not supported; write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    scalar(mark, anchor, Node::Kind::kScalar, tag, value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Node::Kind::kList);
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Node::Kind::kMapping);
  }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  struct Open {
    Node* node;
    bool key_next = true;
  };

  void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) throw Refused(mark, "anchors (&name) are not supported");
    if (!tag.empty() && tag != "?" && tag != "!")
      throw Refused(mark, fmt::format("tags ({}) are not supported", tag));
    if (++nodes_ > max_nodes_) throw Refused(mark, fmt::format("more than {} values", max_nodes_));
  }

  // The place of the next value.
  Node& slot(const YAML::Mark& mark) {
    if (open_.empty()) {
      top_.line = mark.line + 1;
      return top_;
    }
    Open& parent = open_.back();
    Node& out = *arena_.new_object<Node>(arena_.resource());
    out.line = mark.line + 1;
    if (parent.node->kind == Node::Kind::kList) {
      parent.node->items.push_back(&out);
    } else if (parent.key_next) {
      throw Refused(mark, "a key is a list or a mapping; want a name");
    } else {
      // A value that is not there is reported at its key.
      if (value_is_null_) out.line = parent.node->entries.back().line;
      parent.node->entries.back().value = &out;
      parent.key_next = true;
    }
    return out;
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            Node::Kind kind) {
    check(mark, tag, anchor);
    Node& node = slot(mark);
    node.kind = kind;
    if (open_.size() >= kMaxDepth)
      throw Refused(mark, fmt::format("nested more than {} levels", kMaxDepth));
    open_.push_back({&node});
  }

  void scalar(const YAML::Mark& mark, YAML::anchor_t anchor, Node::Kind kind,
              const std::string& tag, const std::string& value) {
    check(mark, tag, anchor);
    if (!open_.empty() && open_.back().node->kind == Node::Kind::kMapping &&
        open_.back().key_next) {
      return add_key(mark, kind, value);
    }
    value_is_null_ = kind == Node::Kind::kNull;
    Node& node = slot(mark);
    value_is_null_ = false;
    node.kind = kind;
    node.scalar = kept(value);
    node.quoted = tag == "!";
  }

  void add_key(const YAML::Mark& mark, Node::Kind kind, const std::string& key) {
    if (kind == Node::Kind::kNull || key.empty()) throw Refused(mark, "a key is empty");
    auto& entries = open_.back().node->entries;
    for (const auto& entry : entries) {
      if (entry.key == key)
        throw Refused(mark,
                      fmt::format("key '{}' is there twice (first in line {})", key, entry.line));
    }
    entries.push_back({kept(key), mark.line + 1, nullptr});
    open_.back().key_next = false;
  }

  std::string_view kept(std::string_view text) {
    char* copy = arena_.allocate_object<char>(text.size() + 1);
    std::memcpy(copy, text.data(), text.size());
    return {copy, text.size()};
  }

  std::pmr::polymorphic_allocator<> arena_;
  Node& top_;
  std::vector<Open> open_;
  const size_t max_nodes_;
  size_t nodes_ = 0;
  bool value_is_null_ = false;
};

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string folded(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '_' || c == '-') continue;  // state_dir, state-dir and stateDir are the same to people
    out += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  }
  return out;
}

}  // namespace

std::string one_line(std::string text) {
  for (char& c : text)
    if ((c >= 0 && c < ' ') || c == 0x7f) c = '?';
  return text;
}

Result<> parse_yaml(std::string_view text, const Limits& limits, State& state) {
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    Builder builder(state, state.top, limits.max_nodes);
    if (!parser.HandleNextDocument(builder)) return {};
    Node rest{&state.arena};
    Builder second(state, rest, limits.max_nodes);
    if (parser.HandleNextDocument(second)) {
      return fail(ErrorCode::kInvalidArgument, "{}:{}: a second document ('---'); want one",
                  state.name, rest.line);
    }
  } catch (const Refused& e) {
    return fail(ErrorCode::kInvalidArgument, "{}:{}: {}", state.name, e.line, one_line(e.what()));
  } catch (const YAML::Exception& e) {
    return fail(ErrorCode::kInvalidArgument, "{}:{}: not valid YAML: {}", state.name,
                e.mark.line + 1, one_line(e.msg));
  } catch (const std::exception& e) {
    return fail(ErrorCode::kInvalidArgument, "{}: not valid YAML: {}", state.name,
                one_line(e.what()));
  }
  return {};
}

std::string_view nearest(std::string_view wrong, const std::vector<std::string_view>& names) {
  constexpr size_t kMaxCompared = 64;
  if (wrong.size() > kMaxCompared) return {};
  const std::string folded_wrong = folded(wrong);
  std::string_view best;
  size_t best_distance = (wrong.size() < 4 ? 1 : std::max<size_t>(2, wrong.size() / 3)) + 1;
  for (const std::string_view name : names) {
    const size_t distance = edit_distance(folded_wrong, folded(name));
    if (distance >= best_distance) continue;
    best_distance = distance;
    best = name;
  }
  return best;
}

}  // namespace edgemesh::config
