#include "core/config/reader.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <utility>

#include "core/config/node.h"

namespace edgemesh::config {

namespace {

constexpr size_t kMaxShown = 80;

// A value for an error line: cut, and without line ends.
std::string shown(std::string_view value) {
  std::string out;
  for (char c : value.substr(0, kMaxShown)) out += c >= ' ' && c != 0x7f ? c : '?';
  if (value.size() > kMaxShown) out += "...";
  return out;
}

std::string not_allowed(std::string_view value, std::string_view want) {
  return fmt::format("'{}' is not allowed (want {})", shown(value), want);
}

const char* kind_name(Node::Kind kind) {
  switch (kind) {
    case Node::Kind::kNull: return "nothing";
    case Node::Kind::kScalar: return "a single value";
    case Node::Kind::kList: return "a list";
    case Node::Kind::kMapping: return "a mapping";
  }
  return "";
}

// Each once.
std::vector<std::string_view> distinct(const std::pmr::vector<std::string_view>& words) {
  std::vector<std::string_view> out;
  for (const auto word : words)
    if (std::find(out.begin(), out.end(), word) == out.end()) out.push_back(word);
  return out;
}

std::string join(const std::vector<std::string_view>& words) {
  std::string out;
  for (const auto word : words) out.append(out.empty() ? "" : ", ").append(word);
  return out;
}

std::string child_path(std::string_view path, std::string_view key) {
  return path.empty() ? shown(key) : fmt::format("{}.{}", path, shown(key));
}

// Where a node stands; made into text for an error only.
struct Place {
  const Place* above = nullptr;
  std::string_view key;  // empty: `index` in a list
  size_t index = 0;

  std::string text() const {
    const std::string before = above != nullptr ? above->text() : "";
    if (above == nullptr) return before;
    return key.empty() ? fmt::format("{}[{}]", before, index) : child_path(before, key);
  }
};

// Unknown keys of a mapping and of all below it.
void find_unknown(const Node& node, const Place& place, State& state) {
  for (size_t i = 0; i < node.items.size(); ++i)
    find_unknown(*node.items[i], {&place, {}, i}, state);
  for (const auto& entry : node.entries) {
    const Place here{&place, entry.key};
    if (entry.taken) {
      find_unknown(*entry.value, here, state);
      continue;
    }
    if (node.free_keys) continue;
    const std::vector<std::string_view> allowed = distinct(node.allowed);
    std::string text = here.text() + ": unknown key";
    if (const auto near = nearest(entry.key, allowed); !near.empty())
      text += fmt::format("; did you mean '{}'?", near);
    text += allowed.empty() ? " (no keys are allowed here)"
                            : fmt::format(" (allowed here: {})", join(allowed));
    state.problems.push_back({entry.line, std::move(text)});
  }
}

Result<SockAddr> parse_sock_addr(std::string_view text, uint16_t default_port) {
  if (default_port != 0) {
    if (auto ip = IpAddr::parse(text)) return SockAddr{*ip, default_port};
  }
  return SockAddr::parse(text);
}

const char* sock_addr_form(uint16_t default_port) {
  return default_port != 0 ? "an address, or address:port" : "address:port";
}

const char* host_port_form(uint16_t default_port) {
  return default_port != 0 ? "host, or host:port" : "host:port";
}

struct Unit {
  std::string_view name;
  int64_t ns;
};
constexpr Unit kUnits[] = {{"d", 86'400'000'000'000},
                           {"h", 3'600'000'000'000},
                           {"m", 60'000'000'000},
                           {"s", 1'000'000'000},
                           {"ms", 1'000'000},
                           {"us", 1'000},
                           {"ns", 1}};

}  // namespace

Result<Duration> parse_duration(std::string_view text) {
  const auto wrong = [&] {
    return fail(ErrorCode::kInvalidArgument, "'{}' is no duration (want 250ms, 5s, 1h30m)",
                shown(text));
  };
  if (text == "0") return Duration::zero();
  if (text.empty()) return wrong();
  int64_t total = 0;
  const char* at = text.data();
  const char* end = text.data() + text.size();
  while (at != end) {
    if (*at < '0' || *at > '9') return wrong();
    int64_t number = 0;
    auto [number_end, error] = std::from_chars(at, end, number);
    if (error != std::errc()) return wrong();
    const char* unit_end =
        std::find_if(number_end, end, [](char c) { return c >= '0' && c <= '9'; });
    const std::string_view unit(number_end, static_cast<size_t>(unit_end - number_end));
    const auto* found = std::find_if(std::begin(kUnits), std::end(kUnits),
                                     [&](const Unit& u) { return u.name == unit; });
    if (found == std::end(kUnits)) return wrong();
    if (__builtin_mul_overflow(number, found->ns, &number) ||
        __builtin_add_overflow(total, number, &total)) {
      return wrong();
    }
    at = unit_end;
  }
  return Duration(total);
}

std::string format_duration(Duration value) {
  int64_t left = value.count();
  if (left <= 0) return "0s";
  std::string out;
  for (const Unit& unit : kUnits) {
    if (unit.name == "d") continue;  // hours are clearer than days
    if (left < unit.ns) continue;
    out += fmt::format("{}{}", left / unit.ns, unit.name);
    left %= unit.ns;
  }
  return out;
}

Result<HostPort> HostPort::parse(std::string_view text, uint16_t default_port) {
  const auto wrong = [&] {
    return fail(ErrorCode::kInvalidArgument, "'{}' is not allowed (want {})", shown(text),
                host_port_form(default_port));
  };
  HostPort out;
  out.port = default_port;
  std::string_view host = text;
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return wrong();
    host = text.substr(1, close - 1);
    const std::string_view rest = text.substr(close + 1);
    if (!rest.empty() && (rest.front() != ':' || rest.size() == 1)) return wrong();
    if (!rest.empty()) port = rest.substr(1);
    if (auto ip = IpAddr::parse(host); !ip || !ip->is_v6()) return wrong();
  } else if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
    if (text.find(':', colon + 1) != std::string_view::npos) {  // an IPv6 address alone
      if (!IpAddr::parse(text)) return wrong();
    } else {
      host = text.substr(0, colon);
      port = text.substr(colon + 1);
      if (port.empty()) return wrong();
    }
  }
  constexpr size_t kMaxHost = 253;
  if (host.empty() || host.size() > kMaxHost) return wrong();
  for (char c : host) {
    const bool ok = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    c == '-' || c == '.' || c == '_' || c == ':';
    if (!ok) return wrong();
  }
  if (!port.empty()) {
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (error != std::errc() || end != port.data() + port.size()) return wrong();
  }
  if (out.port == 0) return wrong();
  out.host = host;
  return out;
}

std::string HostPort::to_string() const {
  const bool v6 = host.find(':') != std::string::npos;
  return v6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

std::string Reader::path_of(std::string_view key) const {
  return child_path(path_, key);
}

void Reader::add_error(const Node& at, std::string_view path, std::string_view message) {
  state_->problems.push_back({at.line, fmt::format("{}: {}", path, message)});
}

Node* Reader::take(std::string_view key) {
  if (node_ == nullptr) return nullptr;
  node_->allowed.push_back(key);
  for (auto& entry : node_->entries) {
    if (entry.key != key) continue;
    entry.taken = true;
    return entry.value;
  }
  return nullptr;
}

// Most keys of most mappings are: nothing is made ready for an error then.
bool Reader::absent(std::string_view key) {
  return take(key) == nullptr;
}

Node* Reader::take_scalar(std::string_view key, std::string_view want) {
  Node* node = take(key);
  if (node == nullptr) return nullptr;
  if (node->kind == Node::Kind::kScalar) return node;
  add_error(*node, path_of(key),
            fmt::format("{} is not allowed (want {})", kind_name(node->kind), want));
  return nullptr;
}

Node* Reader::take_list(std::string_view key) {
  Node* node = take(key);
  if (node == nullptr) return nullptr;
  if (node->kind == Node::Kind::kList) return node;
  add_error(*node, path_of(key),
            fmt::format("{} is not allowed (want a list)", kind_name(node->kind)));
  return nullptr;
}

template <class T, class Parse>
void Reader::read_parsed(std::string_view key, T* out, std::string_view want, const Parse& parse) {
  Node* node = take_scalar(key, want);
  if (node == nullptr) return;
  if (auto value = parse(node->scalar))
    *out = std::move(*value);
  else
    add_error(*node, path_of(key), not_allowed(node->scalar, want));
}

template <class T, class Parse>
void Reader::read_parsed_list(std::string_view key, std::vector<T>* out, std::string_view want,
                              const Parse& parse) {
  Node* node = take_list(key);
  if (node == nullptr) return;
  out->clear();
  for (size_t i = 0; i < node->items.size(); ++i) {
    const Node& item = *node->items[i];
    const std::string path = fmt::format("{}[{}]", path_of(key), i);
    if (item.kind != Node::Kind::kScalar) {
      add_error(item, path, fmt::format("{} is not allowed (want {})", kind_name(item.kind), want));
      continue;
    }
    if (auto value = parse(item.scalar))
      out->push_back(std::move(*value));
    else
      add_error(item, path, not_allowed(item.scalar, want));
  }
}

void Reader::read(std::string_view key, std::string* out) {
  read_parsed(key, out, "text",
              [](std::string_view t) { return Result<std::string>(std::string(t)); });
}

void Reader::read(std::string_view key, bool* out) {
  Node* node = take_scalar(key, "true or false");
  if (node == nullptr) return;
  if (!node->quoted && node->scalar == "true")
    *out = true;
  else if (!node->quoted && node->scalar == "false")
    *out = false;
  else
    add_error(*node, path_of(key), not_allowed(node->scalar, "true or false"));
}

bool Reader::read_int(std::string_view key, int64_t* out, int64_t min, int64_t max) {
  if (absent(key)) return false;
  const std::string want = fmt::format("{} to {}", min, max);
  Node* node = take_scalar(key, want);
  if (node == nullptr) return false;
  const std::string_view text = node->scalar;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (node->quoted || error != std::errc() || end != text.data() + text.size() || value < min ||
      value > max) {
    add_error(*node, path_of(key), not_allowed(text, want));
    return false;
  }
  *out = value;
  return true;
}

void Reader::read(std::string_view key, Duration* out, Duration min, Duration max) {
  if (absent(key)) return;
  std::string want = "a duration such as 250ms, 5s, 1h30m";
  if (max != Duration::max())
    want = fmt::format("{} to {}", format_duration(min), format_duration(max));
  else if (min > Duration::zero())
    want = fmt::format("at least {}", format_duration(min));
  read_parsed(key, out, want, [&](std::string_view text) -> Result<Duration> {
    EM_TRY(Duration value, parse_duration(text));
    if (value < min || value > max) return fail(ErrorCode::kInvalidArgument, "out of range");
    return value;
  });
}

void Reader::read(std::string_view key, SockAddr* out, uint16_t default_port) {
  read_parsed(key, out, sock_addr_form(default_port),
              [&](std::string_view t) { return parse_sock_addr(t, default_port); });
}

void Reader::read(std::string_view key, HostPort* out, uint16_t default_port) {
  read_parsed(key, out, host_port_form(default_port),
              [&](std::string_view t) { return HostPort::parse(t, default_port); });
}

void Reader::read(std::string_view key, IpAddr* out) {
  read_parsed(key, out, "an IP address", [](std::string_view t) { return IpAddr::parse(t); });
}

void Reader::read(std::string_view key, Cidr* out) {
  read_parsed(key, out, "a CIDR block such as 10.96.0.0/12",
              [](std::string_view t) { return Cidr::parse(t); });
}

void Reader::read(std::string_view key, std::vector<std::string>* out) {
  read_parsed_list(key, out, "text",
                   [](std::string_view t) { return Result<std::string>(std::string(t)); });
}

void Reader::read(std::string_view key, std::vector<SockAddr>* out, uint16_t default_port) {
  read_parsed_list(key, out, sock_addr_form(default_port),
                   [&](std::string_view t) { return parse_sock_addr(t, default_port); });
}

void Reader::read(std::string_view key, std::vector<HostPort>* out, uint16_t default_port) {
  read_parsed_list(key, out, host_port_form(default_port),
                   [&](std::string_view t) { return HostPort::parse(t, default_port); });
}

void Reader::read(std::string_view key, std::vector<Cidr>* out) {
  read_parsed_list(key, out, "a CIDR block such as 10.96.0.0/12",
                   [](std::string_view t) { return Cidr::parse(t); });
}

int Reader::read_choice(std::string_view key, const std::vector<std::string_view>& names) {
  if (absent(key)) return -1;
  std::string want = "one of";
  for (size_t i = 0; i < names.size(); ++i)
    want += fmt::format("{} {}", i > 0 ? "," : "", names[i]);
  Node* node = take_scalar(key, want);
  if (node == nullptr) return -1;
  const auto it = std::find(names.begin(), names.end(), node->scalar);
  if (it != names.end()) return static_cast<int>(it - names.begin());
  add_error(*node, path_of(key), not_allowed(node->scalar, want));
  return -1;
}

Reader Reader::section(std::string_view key) {
  Node* node = take(key);
  const bool usable = node != nullptr && node->kind == Node::Kind::kMapping;
  if (node != nullptr && !usable && node->kind != Node::Kind::kNull)
    add_error(*node, path_of(key),
              fmt::format("{} is not allowed (want a mapping)", kind_name(node->kind)));
  return {state_, usable ? node : nullptr, path_of(key)};
}

std::vector<Reader> Reader::sections(std::string_view key) {
  std::vector<Reader> out;
  Node* node = take_list(key);
  if (node == nullptr) return out;
  for (size_t i = 0; i < node->items.size(); ++i) {
    Node& item = *node->items[i];
    std::string path = fmt::format("{}[{}]", path_of(key), i);
    if (item.kind == Node::Kind::kMapping)
      out.push_back({state_, &item, std::move(path)});
    else
      add_error(item, path,
                fmt::format("{} is not allowed (want a mapping)", kind_name(item.kind)));
  }
  return out;
}

std::vector<std::pair<std::string, Reader>> Reader::named_sections(std::string_view key) {
  std::vector<std::pair<std::string, Reader>> out;
  Reader all = section(key);
  if (all.node_ == nullptr) return out;
  all.node_->free_keys = true;
  for (auto& entry : all.node_->entries)
    out.emplace_back(std::string(entry.key), all.section(entry.key));
  return out;
}

bool Reader::has(std::string_view key) const {
  if (node_ == nullptr) return false;
  return std::any_of(node_->entries.begin(), node_->entries.end(),
                     [&](const auto& entry) { return entry.key == key; });
}

std::vector<std::string> Reader::keys(std::string_view key) const {
  std::vector<std::string> out;
  if (node_ == nullptr) return out;
  for (const auto& entry : node_->entries) {
    if (entry.key != key) continue;
    for (const auto& child : entry.value->entries) out.emplace_back(child.key);
  }
  return out;
}

void Reader::require(std::string_view key) {
  const Node* node = take(key);
  if (node != nullptr && node->kind != Node::Kind::kNull) return;
  const Node& at = node != nullptr ? *node : node_ != nullptr ? *node_ : state_->top;
  add_error(at, path_of(key), "is missing");
}

void Reader::reject(std::string_view key, std::string_view message) {
  const Node* node = take(key);
  const Node& at = node != nullptr ? *node : node_ != nullptr ? *node_ : state_->top;
  add_error(at, path_of(key), message);
}

Document::Document(std::unique_ptr<State> state) : state_(std::move(state)) {}
Document::~Document() = default;
Document::Document(Document&&) noexcept = default;
Document& Document::operator=(Document&&) noexcept = default;

Result<Document> Document::from_file(const std::string& path, const Limits& limits) {
  struct Closer {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::unique_ptr<std::FILE, Closer> file(std::fopen(path.c_str(), "re"));
  if (!file) return fail_errno(path, errno);
  std::string text;
  std::array<char, 1 << 16> piece;
  while (text.size() <= limits.max_bytes) {
    const size_t n = std::fread(piece.data(), 1, piece.size(), file.get());
    text.append(piece.data(), n);
    if (n < piece.size()) break;
  }
  if (std::ferror(file.get()) != 0) return fail_errno(path, errno);
  return from_text(text, path, limits);
}

Result<Document> Document::from_text(std::string_view text, std::string name,
                                     const Limits& limits) {
  if (text.size() > limits.max_bytes)
    return fail(ErrorCode::kInvalidArgument, "{}: larger than {} KiB", name,
                limits.max_bytes / 1024);
  auto state = std::make_unique<State>();
  state->name = std::move(name);
  EM_TRY_VOID(parse_yaml(text, limits, *state));
  Node& top = state->top;
  if (top.kind != Node::Kind::kMapping && top.kind != Node::Kind::kNull)
    return fail(ErrorCode::kInvalidArgument,
                "{}:{}: {} is not allowed (want a mapping, 'key: value' lines)", state->name,
                top.line, kind_name(top.kind));
  top.kind = Node::Kind::kMapping;
  top.line = std::max(top.line, 1);
  return Document(std::move(state));
}

Reader Document::root() {
  return {state_.get(), &state_->top, ""};
}

Result<> Document::finish() {
  find_unknown(state_->top, {}, *state_);
  auto& problems = state_->problems;
  if (problems.empty()) return {};
  const auto first = std::min_element(problems.begin(), problems.end(),
                                      [](const auto& a, const auto& b) { return a.line < b.line; });
  return fail(ErrorCode::kInvalidArgument, "{}:{}: {}", state_->name, first->line,
              one_line(first->text));
}

const std::string& Document::name() const {
  return state_->name;
}

}  // namespace edgemesh::config
