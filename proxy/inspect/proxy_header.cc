#include <algorithm>
#include <charconv>
#include <cstring>

#include "proxy/inspect/first_bytes.h"

namespace edgemesh::proxy {

namespace {

constexpr uint8_t kSignature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
constexpr std::string_view kText = "PROXY ";
constexpr size_t kMaxText = 107;  // with its CRLF, as the specification works out

Peek bad(ProxyHeader* out, const char* why) {
  out->error = why;
  return Peek::kBad;
}

std::string_view word(std::string_view& line) {
  size_t end = std::min(line.find(' '), line.size());
  std::string_view out = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return out;
}

bool port_of(std::string_view text, uint16_t* out) {
  if (text.empty() || (text.size() > 1 && text[0] == '0')) return false;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

Peek text_header(std::string_view data, ProxyHeader* out) {
  size_t end = data.substr(0, kMaxText).find("\r\n");
  if (end == std::string_view::npos)
    return data.size() >= kMaxText ? bad(out, "PROXY line without an end") : Peek::kMore;
  std::string_view line = data.substr(kText.size(), end - kText.size());
  out->size = end + 2;
  std::string_view family = word(line);
  if (family == "UNKNOWN") {
    out->local = true;
    return Peek::kYes;
  }
  if (family != "TCP4" && family != "TCP6") return bad(out, "PROXY line: want TCP4, TCP6 or UNKNOWN");
  // By the words: an IPv4 address in IPv6 form ("::ffff:1.2.3.4"), as senders with dual-stack sockets
  // have them, is of TCP6, and the same client as 1.2.3.4 to all that comes after.
  std::string_view texts[2] = {word(line), word(line)};
  auto is_v6 = [](std::string_view text) { return text.find(':') != std::string_view::npos; };
  auto source = IpAddr::parse(texts[0]);
  auto destination = IpAddr::parse(texts[1]);
  uint16_t ports[2] = {};
  bool ports_good = port_of(word(line), &ports[0]);
  ports_good = port_of(line, &ports[1]) && ports_good;  // nothing may follow
  bool v6 = family == "TCP6";
  if (!source || !destination || is_v6(texts[0]) != v6 || is_v6(texts[1]) != v6)
    return bad(out, "PROXY line: the addresses are not of its family");
  if (!ports_good) return bad(out, "PROXY line: bad port");
  out->source = {*source, ports[0]};
  out->destination = {*destination, ports[1]};
  return Peek::kYes;
}

uint16_t big16(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }

Peek binary_header(std::span<const uint8_t> data, ProxyHeader* out) {
  if (data.size() < 16) return Peek::kMore;
  if (data[12] >> 4 != 2) return bad(out, "PROXY header: unknown version");
  uint8_t command = data[12] & 0x0f;
  if (command > 1) return bad(out, "PROXY header: unknown command");
  size_t length = big16(&data[14]);
  if (16 + length > kMaxProxyHeader) return bad(out, "PROXY header: too long");
  if (data.size() < 16 + length) return Peek::kMore;
  out->size = 16 + length;
  const uint8_t* at = data.data() + 16;
  uint8_t family = data[13];
  // LOCAL, UNSPEC and what is no stream (UNIX sockets among them): accepted, addresses not used.
  bool v4 = family == 0x11;
  bool v6 = family == 0x21;
  if (command == 0 || (!v4 && !v6)) {
    out->local = true;
    return Peek::kYes;
  }
  if (length < (v4 ? 12U : 36U)) return bad(out, "PROXY header: too short for its addresses");
  if (v4) {
    auto host = [](const uint8_t* p) {
      return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | p[3];
    };
    out->source = {IpAddr::v4(host(at)), big16(at + 8)};
    out->destination = {IpAddr::v4(host(at + 4)), big16(at + 10)};
  } else {
    uint8_t bytes[16];
    std::memcpy(bytes, at, 16);
    out->source = {IpAddr::v6(bytes), big16(at + 32)};
    std::memcpy(bytes, at + 16, 16);
    out->destination = {IpAddr::v6(bytes), big16(at + 34)};
  }
  return Peek::kYes;
}

}  // namespace

Peek peek_proxy_header(std::span<const uint8_t> data, ProxyHeader* out) {
  *out = {};
  if (data.empty()) return Peek::kMore;
  size_t n = std::min(data.size(), sizeof kSignature);
  if (std::memcmp(data.data(), kSignature, n) == 0)
    return n < sizeof kSignature ? Peek::kMore : binary_header(data, out);
  std::string_view text(reinterpret_cast<const char*>(data.data()), data.size());  // NOLINT
  size_t m = std::min(text.size(), kText.size());
  if (text.substr(0, m) != kText.substr(0, m)) return Peek::kNo;
  return m < kText.size() ? Peek::kMore : text_header(text, out);
}

}  // namespace edgemesh::proxy
