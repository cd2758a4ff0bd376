// Strict configuration files: YAML 1.2 read into plain structs, over their defaults.
//
//   EM_TRY(auto document, config::Document::from_file("/etc/edgemesh/agent.yaml"));
//   config::Reader root = document.root();
//   root.read("nodeName", &out.node_name);
//   config::Reader dns = root.section("dns");
//   dns.read("port", &out.dns.port, 1, 65535);
//   EM_TRY_VOID(document.finish());
//
// Keys are not copied: they are literals, or live as long as the document. One that is absent
// leaves the default. finish() reports the first thing that is wrong, by line:
//   agent.yaml:7: dns.port: '99999' is not allowed (want 1 to 65535)
//   agent.yaml:9: dns.prot: unknown key; did you mean 'port'? (allowed here: listen, port)
// Which keys are allowed is what was asked for: nothing is listed twice. Anchors, aliases, tags,
// duplicate keys and further documents are refused.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/base/clock.h"
#include "core/base/net_addr.h"
#include "core/base/result.h"

namespace edgemesh::config {

// Of a file: beyond them it is refused.
struct Limits {
  size_t max_bytes = 1 << 20;
  size_t max_nodes = 100'000;  // values
};

// "250ms", "5s", "1h30m", "0"; units ns, us, ms, s, m, h, d. No sign.
Result<Duration> parse_duration(std::string_view text);
// The shortest form that parse_duration() reads back.
std::string format_duration(Duration value);

// A host name or address with a port, not resolved.
struct HostPort {
  std::string host;  // without brackets
  uint16_t port = 0;
  // "cloud.example.com:10000", "[fd00::1]:10000"; without a port `default_port` is taken, unless 0.
  static Result<HostPort> parse(std::string_view text, uint16_t default_port = 0);
  bool empty() const { return host.empty(); }
  std::string to_string() const;  // an IPv6 address in brackets
  friend bool operator==(const HostPort&, const HostPort&) = default;
};

struct Node;   // a value of the file; private
struct State;  // the file; private

// One mapping of the file. Cheap to copy; valid as long as the Document.
class Reader {
 public:
  template <class E>
  using Table = std::initializer_list<std::pair<std::string_view, E>>;

  void read(std::string_view key, std::string* out);
  void read(std::string_view key, bool* out);  // true, false
  void read(std::string_view key, Duration* out, Duration min = Duration::zero(),
            Duration max = Duration::max());
  // With a default port "10.0.0.1" alone is an address, too.
  void read(std::string_view key, SockAddr* out, uint16_t default_port = 0);
  void read(std::string_view key, HostPort* out, uint16_t default_port = 0);
  void read(std::string_view key, IpAddr* out);
  void read(std::string_view key, Cidr* out);
  // Lists replace the default as a whole.
  void read(std::string_view key, std::vector<std::string>* out);
  void read(std::string_view key, std::vector<SockAddr>* out, uint16_t default_port = 0);
  void read(std::string_view key, std::vector<HostPort>* out, uint16_t default_port = 0);
  void read(std::string_view key, std::vector<Cidr>* out);

  template <class T, class = std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>>>
  void read(std::string_view key, T* out, std::type_identity_t<T> min = limit_low<T>(),
            std::type_identity_t<T> max = limit_high<T>()) {
    int64_t value = 0;
    if (read_int(key, &value, static_cast<int64_t>(min), static_cast<int64_t>(max)))
      *out = static_cast<T>(value);
  }

  // reader.read_enum("mode", &out.mode, {{"auto", Mode::kAuto}, ...});
  template <class E>
  void read_enum(std::string_view key, E* out, Table<std::type_identity_t<E>> table) {
    std::vector<std::string_view> names;
    for (const auto& entry : table) names.push_back(entry.first);
    if (const int at = read_choice(key, names); at >= 0) *out = (table.begin() + at)->second;
  }

  // The mapping under `key`; an empty one when absent.
  Reader section(std::string_view key);
  // The mappings of a list, and the entries of a mapping whose keys are free names.
  std::vector<Reader> sections(std::string_view key);
  std::vector<std::pair<std::string, Reader>> named_sections(std::string_view key);

  bool has(std::string_view key) const;
  // The keys of the mapping under `key`, in their order.
  std::vector<std::string> keys(std::string_view key) const;
  // Absent (or without a value) is an error.
  void require(std::string_view key);
  // What the caller finds wrong with a key: "agent.yaml:7: dns.listen: <message>".
  void reject(std::string_view key, std::string_view message);

 private:
  friend class Document;
  Reader(State* state, Node* node, std::string path)
      : state_(state), node_(node), path_(std::move(path)) {}

  template <class T>
  static constexpr T limit_low() {
    return std::is_signed_v<T> ? std::numeric_limits<T>::min() : T{0};
  }
  template <class T>
  static constexpr T limit_high() {  // uint64_t: what an int64_t holds
    return sizeof(T) == 8 ? static_cast<T>(std::numeric_limits<int64_t>::max())
                          : std::numeric_limits<T>::max();
  }

  Node* take(std::string_view key);
  bool absent(std::string_view key);
  Node* take_scalar(std::string_view key, std::string_view want);
  Node* take_list(std::string_view key);
  bool read_int(std::string_view key, int64_t* out, int64_t min, int64_t max);
  int read_choice(std::string_view key, const std::vector<std::string_view>& names);
  template <class T, class Parse>
  void read_parsed(std::string_view key, T* out, std::string_view want, const Parse& parse);
  template <class T, class Parse>
  void read_parsed_list(std::string_view key, std::vector<T>* out, std::string_view want,
                        const Parse& parse);
  std::string path_of(std::string_view key) const;
  void add_error(const Node& at, std::string_view path, std::string_view message);

  State* state_;
  Node* node_;  // null: the mapping is absent
  std::string path_;
};

class Document {
 public:
  // Errors: the file cannot be read, is no YAML, or its top is no mapping. An empty file is an
  // empty mapping.
  static Result<Document> from_file(const std::string& path, const Limits& limits = {});
  // `name` stands for the file in errors.
  static Result<Document> from_text(std::string_view text, std::string name,
                                    const Limits& limits = {});
  ~Document();
  Document(Document&&) noexcept;
  Document& operator=(Document&&) noexcept;

  Reader root();
  // The first error by line, of a value or an unknown key. Call it after everything was read.
  Result<> finish();
  const std::string& name() const;

 private:
  explicit Document(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace edgemesh::config
