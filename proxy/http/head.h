// Head: start line and fields of an HTTP message (RFC 9110), the same for HTTP/1 and HTTP/2. The
// codecs fill and write it, routes and filters read and change it.
//
// - All text lives in the head's own arena (keep()); views stay valid until clear() or the end.
// - Fields that belong to one connection only are not in it: Connection and what it names,
//   Keep-Alive, Proxy-Connection, Transfer-Encoding, Upgrade, TE (but "trailers"), Host (it is
//   `authority`). A codec takes them out when reading and adds its own when writing.
// - Names compare without case; HTTP/2 codecs write them in lower case.
// Threads: a plain value. Heads are reused: take_head().
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/http/h1_parser.h"

namespace edgemesh::proxy {

using http::FieldView;

enum class HttpVersion : uint8_t { kHttp10, kHttp11, kHttp2 };

class Head {
 public:
  Head() = default;
  Head(const Head&) = delete;
  Head& operator=(const Head&) = delete;

  // Requests. `path` is in origin form with the query ("/a?b=c"), "*" for OPTIONS *, empty for CONNECT.
  std::string_view method, scheme, authority, path;
  // What an Upgrade (RFC 9110 7.8) or an extended CONNECT (RFC 8441) asks for, in lower case:
  // "websocket". In an answer with status 101: what was agreed. Empty: none.
  std::string_view protocol;
  // Answers. 100 to 199 but 101 are informational: another head follows.
  int status = 0;
  HttpVersion version = HttpVersion::kHttp11;
  bool expect_continue = false;
  bool has_length = false;  // Content-Length was given (it stays among the fields, too)
  uint64_t length = 0;

  const std::vector<FieldView>& fields() const { return fields_; }
  // The first of that name; empty when absent.
  std::string_view get(std::string_view name) const;
  bool has(std::string_view name) const;

  // Copies the text into the arena.
  std::string_view keep(std::string_view text);
  // Room in the arena, to be filled by the caller.
  char* allocate(size_t bytes);
  void add(std::string_view name, std::string_view value) { add_kept(keep(name), keep(value)); }
  // The views must live as long as the head: from keep(), or literals.
  void add_kept(std::string_view name, std::string_view value) { fields_.push_back({name, value}); }
  void set(std::string_view name, std::string_view value);  // replaces all of that name
  size_t remove(std::string_view name);                     // how many
  void set_length(uint64_t bytes);
  void drop_length();  // the body's length will be another one

  // A deep copy: for retries and mirrors.
  void copy_from(const Head& other);
  void clear();  // keeps some memory

 private:
  static constexpr size_t kBlockBytes = 2048;  // most heads fit in one
  struct Block {
    std::unique_ptr<char[]> data;
    size_t size = 0;
  };
  std::vector<FieldView> fields_;
  std::vector<Block> blocks_;  // the last is being filled
  size_t used_ = 0;            // of the last
};

struct GiveHead {
  void operator()(Head* head) const;
};
using HeadPtr = std::unique_ptr<Head, GiveHead>;
// A cleared head from this thread's free list; it goes back there.
HeadPtr take_head();

}  // namespace edgemesh::proxy
