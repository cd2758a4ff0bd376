#include <algorithm>

#include "proxy/inspect/first_bytes.h"

namespace edgemesh::proxy {

namespace {

constexpr uint8_t kHandshake = 22, kClientHello = 1;
constexpr uint16_t kServerName = 0, kAlpn = 16, kSupportedVersions = 43;
constexpr size_t kMaxProtocols = 16;
constexpr size_t kMaxRecord = 16384;

// Reads big-endian numbers and vectors; after a step too far everything is empty and `good` false.
struct Reader {
  std::span<const uint8_t> left;
  bool good = true;

  size_t number(size_t bytes) {
    if (left.size() < bytes) return fail();
    size_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value = value << 8 | left[i];
    left = left.subspan(bytes);
    return value;
  }
  std::span<const uint8_t> take(size_t n) {
    if (left.size() < n) {
      fail();
      return {};
    }
    auto out = left.first(n);
    left = left.subspan(n);
    return out;
  }
  Reader vector(size_t length_bytes) {
    size_t n = number(length_bytes);
    return {take(n), good};
  }
  size_t fail() {
    good = false;
    left = {};
    return 0;
  }
};

std::string_view text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};  // NOLINT
}

bool read_server_name(Reader extension, ClientHello* out) {
  Reader list = extension.vector(2);
  while (list.good && !list.left.empty()) {
    size_t type = list.number(1);
    auto name = list.vector(2);
    if (!name.good) return false;
    if (type != 0) continue;  // host_name is the only type there is
    if (!out->server_name.empty() || name.left.empty()) return false;
    std::string_view value = text(name.left);
    bool printable = std::all_of(value.begin(), value.end(), [](char c) { return c > 0x20 && c < 0x7f; });
    if (value.size() > 255 || !printable) return false;
    out->server_name = value;
  }
  return list.good && extension.left.empty();
}

bool read_alpn(Reader extension, ClientHello* out) {
  Reader list = extension.vector(2);
  while (list.good && !list.left.empty()) {
    auto name = list.vector(1);
    if (!name.good || name.left.empty()) return false;
    if (out->alpn.size() < kMaxProtocols) out->alpn.push_back(text(name.left));
  }
  return list.good && extension.left.empty();
}

bool read_versions(Reader extension, ClientHello* out) {
  Reader list = extension.vector(1);
  while (list.good && !list.left.empty()) {
    auto version = static_cast<uint16_t>(list.number(2));
    bool grease = (version & 0x0f0f) == 0x0a0a;  // RFC 8701
    if (!grease && version <= 0x0304) out->version = std::max(out->version, version);
  }
  return list.good;
}

Peek bad(ClientHello* out, const char* why) {
  out->error = why;
  return Peek::kBad;
}

Peek read_body(std::span<const uint8_t> body, ClientHello* out) {
  Reader in{body};
  auto legacy_version = static_cast<uint16_t>(in.number(2));
  in.take(32);    // random
  in.vector(1);   // session id
  in.vector(2);   // cipher suites
  in.vector(1);   // compression methods
  if (!in.good) return bad(out, "ClientHello: cut short");
  out->version = std::min<uint16_t>(legacy_version, 0x0303);
  if (in.left.empty()) return Peek::kYes;  // no extensions
  Reader extensions = in.vector(2);
  if (!in.good || !in.left.empty()) return bad(out, "ClientHello: bad extensions");
  while (!extensions.left.empty()) {
    size_t type = extensions.number(2);
    Reader extension = extensions.vector(2);
    if (!extensions.good) return bad(out, "ClientHello: bad extensions");
    if (type == kServerName && !read_server_name(extension, out)) return bad(out, "ClientHello: bad server name");
    if (type == kAlpn && !read_alpn(extension, out)) return bad(out, "ClientHello: bad ALPN");
    if (type == kSupportedVersions && !read_versions(extension, out)) return bad(out, "ClientHello: bad versions");
  }
  return Peek::kYes;
}

}  // namespace

Peek peek_client_hello(std::span<const uint8_t> data, std::vector<uint8_t>* buffer, ClientHello* out) {
  *out = {};
  buffer->clear();
  std::span<const uint8_t> message;  // the handshake bytes of the records so far
  size_t wanted = 4;
  size_t at = 0;
  while (true) {
    if (at < data.size() && data[at] != kHandshake) return at == 0 ? Peek::kNo : bad(out, "ClientHello: broken off");
    // The version of a first record is 0x0301 to 0x0303 in all that is sent; anything else is no TLS.
    if (at + 1 < data.size() && data[at + 1] != 3) return at == 0 ? Peek::kNo : bad(out, "ClientHello: bad record");
    if (data.size() - at < 5) return Peek::kMore;
    size_t length = size_t{data[at + 3]} << 8 | data[at + 4];
    if (length == 0 || length > kMaxRecord) return at == 0 ? Peek::kNo : bad(out, "ClientHello: bad record");
    auto part = data.subspan(at + 5, std::min(length, data.size() - at - 5));
    // The first record's bytes are used where they are; a second one makes a copy of both.
    if (at == 0) {
      message = part;
    } else {
      if (buffer->empty()) buffer->assign(message.begin(), message.end());
      buffer->insert(buffer->end(), part.begin(), part.end());
      message = *buffer;
    }
    if (!message.empty() && message[0] != kClientHello) return Peek::kNo;
    if (message.size() >= 4) {
      wanted = 4 + (size_t{message[1]} << 16 | size_t{message[2]} << 8 | message[3]);
      if (wanted > kMaxClientHello) return bad(out, "ClientHello: too long");
      if (message.size() >= wanted) return read_body(message.subspan(4, wanted - 4), out);
    }
    if (part.size() < length) return Peek::kMore;
    at += 5 + length;
    if (at == data.size()) return Peek::kMore;
  }
}

}  // namespace edgemesh::proxy
