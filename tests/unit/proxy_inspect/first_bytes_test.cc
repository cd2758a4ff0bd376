#include "proxy/inspect/first_bytes.h"

#include <gtest/gtest.h>

#include <string>

#include "core/io/stream.h"
#include "core/tls/tls_stream.h"
#include "proxy/upstream/connector.h"
#include "tests/support/memory_stream.h"

namespace edgemesh::proxy {
namespace {

std::span<const uint8_t> bytes(const std::string& text) { return io::as_bytes(text); }

// Every prefix asks for more; the whole gives `wanted`.
template <class Look>
void expect_prefixes_wait(const std::string& whole, Look look) {
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_EQ(look(whole.substr(0, n)), Peek::kMore) << n;
}

// ---- PROXY protocol

TEST(ProxyHeaderTest, ReadsWhatOurOwnSideWrites) {
  for (const char* host : {"192.0.2.1", "2001:db8::1"}) {
    ProxiedAddrs addrs{{*IpAddr::parse(host), 40000}, {*IpAddr::parse(host), 443}};
    for (auto version : {model::ProxyProtocolOut::kV1, model::ProxyProtocolOut::kV2}) {
      std::string header = proxy_header(version, &addrs);
      expect_prefixes_wait(header, [](const std::string& part) {
        ProxyHeader out;
        return peek_proxy_header(bytes(part), &out);
      });
      ProxyHeader out;
      ASSERT_EQ(peek_proxy_header(bytes(header + "GET /"), &out), Peek::kYes);
      EXPECT_EQ(out.size, header.size());
      EXPECT_EQ(out.source, addrs.source);
      EXPECT_EQ(out.destination, addrs.destination);
      EXPECT_FALSE(out.local);
    }
  }
  for (auto version : {model::ProxyProtocolOut::kV1, model::ProxyProtocolOut::kV2}) {
    ProxyHeader out;
    ASSERT_EQ(peek_proxy_header(bytes(proxy_header(version, nullptr)), &out), Peek::kYes);
    EXPECT_TRUE(out.local);
  }
}

TEST(ProxyHeaderTest, Ipv4InIpv6FormIsIpv4) {
  std::string mapped("\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\x00\x00\x07", 16);
  std::string binary = std::string("\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24", 16) + mapped + mapped +
                       std::string("\x30\x39\x00\x50", 4);
  for (const std::string& header :
       {std::string("PROXY TCP6 ::ffff:10.0.0.7 ::ffff:10.0.0.7 12345 80\r\n"), binary}) {
    ProxyHeader out;
    ASSERT_EQ(peek_proxy_header(bytes(header), &out), Peek::kYes) << out.error;
    EXPECT_EQ(out.source.to_string(), "10.0.0.7:12345");
    EXPECT_EQ(out.destination.to_string(), "10.0.0.7:80");
    EXPECT_FALSE(out.source.ip.is_v6());
  }
  ProxyHeader out;
  EXPECT_EQ(peek_proxy_header(bytes("PROXY TCP4 ::ffff:10.0.0.7 10.0.0.8 1 2\r\n"), &out), Peek::kBad);
}

TEST(ProxyHeaderTest, OtherBytesAreNoHeader) {
  ProxyHeader out;
  for (const char* text : {"GET / HTTP/1.1\r\n", "PROXX", "\r\n\r\nx", "\x16\x03\x01"})
    EXPECT_EQ(peek_proxy_header(bytes(text), &out), Peek::kNo) << text;
}

TEST(ProxyHeaderTest, BadOnesAreRefused) {
  ProxyHeader out;
  std::string two("\r\n\r\n\0\r\nQUIT\n", 12);
  for (const std::string& text :
       {std::string("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n"), std::string("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"),
        std::string("PROXY TCP4 1.2.3.4 ::1 1 2\r\n"), std::string("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"),
        std::string("PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n"), std::string("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n"),
        std::string("PROXY ") + std::string(200, 'x'), two + std::string("\x31\x11\x00\x0c", 4),
        two + std::string("\x22\x11\x00\x0c", 4), two + std::string("\x21\x11\xff\xff", 4),
        two + std::string("\x21\x11\x00\x04", 4) + "abcd"})
    EXPECT_EQ(peek_proxy_header(bytes(text), &out), Peek::kBad) << text;
}

// ---- TLS

// The first flight of a real client.
std::string client_hello(const std::string& name, const std::vector<std::string>& alpn) {
  auto loop = *io::Loop::create();
  auto [mine, theirs] = test::MemoryStream::pair(*loop);
  tls::ContextOptions options;
  options.verify = tls::ContextOptions::kNone;
  options.alpn = alpn;
  auto context = *tls::Context::client(options);
  struct Quiet final : io::Stream::Handler {
    void on_readable() override {}
    void on_writable() override {}
    void on_error(const Error&) override {}
  } quiet;
  theirs->set_handler(&quiet);
  auto stream = *tls::TlsStream::client(*loop, std::move(mine), context, name);
  stream->set_handler(&quiet);
  for (int i = 0; i < 5; ++i) loop->run_once();
  uint8_t buffer[16384];
  auto got = theirs->read(buffer);
  return got.status == io::IoResult::kOk ? std::string(io::as_text({buffer, got.n})) : std::string();
}

TEST(ClientHelloTest, ReadsARealOne) {
  std::string hello = client_hello("web.example.com", {"h2", "http/1.1"});
  ASSERT_GT(hello.size(), 100U);
  std::vector<uint8_t> buffer;
  expect_prefixes_wait(hello, [&](const std::string& part) {
    ClientHello out;
    return peek_client_hello(bytes(part), &buffer, &out);
  });
  ClientHello out;
  ASSERT_EQ(peek_client_hello(bytes(hello), &buffer, &out), Peek::kYes) << out.error;
  EXPECT_EQ(out.server_name, "web.example.com");
  EXPECT_EQ(out.alpn, (std::vector<std::string_view>{"h2", "http/1.1"}));
  EXPECT_EQ(out.version, 0x0304);
}

TEST(ClientHelloTest, WithoutNameAndAlpn) {
  std::string hello = client_hello("", {});
  std::vector<uint8_t> buffer;
  ClientHello out;
  ASSERT_EQ(peek_client_hello(bytes(hello), &buffer, &out), Peek::kYes) << out.error;
  EXPECT_EQ(out.server_name, "");
  EXPECT_TRUE(out.alpn.empty());
}

TEST(ClientHelloTest, MayBeSpreadOverRecords) {
  std::string hello = client_hello("web.example.com", {"h2"});
  std::string body = hello.substr(5);
  for (size_t piece : {1U, 3U, 100U}) {
    std::string split;
    for (size_t at = 0; at < body.size(); at += piece) {
      std::string part = body.substr(at, piece);
      split += std::string("\x16\x03\x01", 3) + static_cast<char>(part.size() >> 8) + static_cast<char>(part.size()) + part;
    }
    std::vector<uint8_t> buffer;
    ClientHello out;
    ASSERT_EQ(peek_client_hello(bytes(split), &buffer, &out), Peek::kYes) << piece << out.error;
    EXPECT_EQ(out.server_name, "web.example.com");
  }
}

TEST(ClientHelloTest, OtherBytesAreNone) {
  std::vector<uint8_t> buffer;
  ClientHello out;
  for (const std::string& text : {std::string("GET / HTTP/1.1"), std::string("\x16\x02\x01", 3), std::string("\x17\x03\x03", 3),
                                  std::string("\x16\x03\x01\x00\x00", 5), std::string("\x16\x03\x01\x00\x04\x02\x00\x00\x00", 9)})
    EXPECT_EQ(peek_client_hello(bytes(text), &buffer, &out), Peek::kNo) << text;
}

TEST(ClientHelloTest, LengthsThatLieAreRefused) {
  std::string hello = client_hello("web.example.com", {"h2"});
  std::vector<uint8_t> buffer;
  ClientHello out;
  size_t refused = 0;
  // Whatever a byte of it is changed to, it is read or refused, never more than that.
  for (size_t at = 5; at < hello.size(); ++at) {
    std::string changed = hello;
    changed[at] = static_cast<char>(changed[at] ^ 0x80);
    refused += peek_client_hello(bytes(changed), &buffer, &out) == Peek::kBad ? 1 : 0;
  }
  EXPECT_GT(refused, 10U);
  std::string huge = std::string("\x16\x03\x01\x00\x04\x01\x00\x50\x00", 9);
  EXPECT_EQ(peek_client_hello(bytes(huge), &buffer, &out), Peek::kBad);
}

// ---- HTTP

TEST(HttpStartTest, KnowsTheVersions) {
  int version = 0;
  EXPECT_EQ(peek_http(bytes("GET / HTTP/1.1\r\n"), &version), Peek::kYes);
  EXPECT_EQ(version, 11);
  EXPECT_EQ(peek_http(bytes("\r\nPOST /x?y HTTP/1.0\r\n"), &version), Peek::kYes);
  EXPECT_EQ(version, 10);
  std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  expect_prefixes_wait(preface, [&](const std::string& part) { return peek_http(bytes(part), &version); });
  EXPECT_EQ(peek_http(bytes(preface), &version), Peek::kYes);
  EXPECT_EQ(version, 20);
  expect_prefixes_wait("PROPFIND /a HTTP/1.", [&](const std::string& part) { return peek_http(bytes(part), &version); });
}

TEST(HttpStartTest, OtherProtocolsAreNone) {
  int version = 0;
  for (const std::string& text :
       {std::string("SSH-2.0-OpenSSH_9\r\n"), std::string("\x16\x03\x01"), std::string("EHLO mail\r\n"), std::string("get / HTTP/1.1"),
        std::string("GET / HTTP/2.0\r\n"), std::string("GET  /"), std::string(30, 'A'), std::string("\0\0\0\x10", 4),
        std::string("GET / FTP"), std::string("PRI * HTTP/2.0\r\nX")})
    EXPECT_EQ(peek_http(bytes(text), &version), Peek::kNo) << text;
}

}  // namespace
}  // namespace edgemesh::proxy
