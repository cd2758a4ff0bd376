// Our HTTP/1 parser and another implementation read the same generated and mutated requests: what both
// accept must mean the same to both, down to the byte where the message ends. What ours accepts and
// the other refuses is counted: it may not become the rule.
#include <gtest/gtest.h>
#include <http_parser.h>

#include <array>
#include <random>
#include <string>
#include <vector>

#include "core/http/h1_parser.h"

namespace edgemesh::http {
namespace {

struct Message {
  std::string method, target, body;
  std::vector<std::pair<std::string, std::string>> fields;
  size_t bytes = 0;
  bool operator==(const Message&) const = default;
};

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.pop_back();
  size_t at = text.find_first_not_of(" \t");
  return at == std::string::npos ? "" : text.substr(at);
}

bool read_ours(std::string_view text, Message* out) {
  std::array<FieldView, 32> storage;
  std::array<FieldView, 32> trailer_storage;
  H1HeadParser parser(H1HeadParser::kRequest, storage);
  H1Head head;
  size_t used = 0;
  if (parser.parse(text, &head, &used) != H1Status::kComplete) return false;
  out->method = head.method;
  out->target = head.target;
  for (const FieldView& f : head.fields) out->fields.emplace_back(f.name, f.value);
  H1BodyDecoder decoder(head.body, head.content_length, trailer_storage);
  while (true) {
    size_t n = 0;
    std::string_view data;
    H1BodyDecoder::Event event = decoder.next(text.substr(used), &n, &data);
    used += n;
    if (event == H1BodyDecoder::kData) out->body += data;
    if (event == H1BodyDecoder::kEnd) break;
    if (event == H1BodyDecoder::kNeedMore || event == H1BodyDecoder::kError) return false;
  }
  for (const FieldView& f : decoder.trailers()) out->fields.emplace_back(f.name, f.value);
  out->bytes = used;
  return true;
}

struct Theirs {
  Message message;
  bool in_value = true;
  int complete = 0;
};

Theirs& of(http_parser* parser) {
  return *static_cast<Theirs*>(parser->data);
}
int on_url(http_parser* p, const char* at, size_t n) {
  of(p).message.target.append(at, n);
  return 0;
}
int on_field(http_parser* p, const char* at, size_t n) {
  if (of(p).in_value) of(p).message.fields.emplace_back();
  of(p).in_value = false;
  of(p).message.fields.back().first.append(at, n);
  return 0;
}
int on_value(http_parser* p, const char* at, size_t n) {
  of(p).in_value = true;
  of(p).message.fields.back().second.append(at, n);
  return 0;
}
int on_body(http_parser* p, const char* at, size_t n) {
  of(p).message.body.append(at, n);
  return 0;
}
int on_complete(http_parser* p) {
  of(p).message.method = http_method_str(static_cast<http_method>(p->method));
  ++of(p).complete;
  return 0;
}

enum class Verdict { kSame, kOtherRefuses, kDiffers };

// `text` is exactly the message that we saw.
Verdict compare(const std::string& text, const Message& ours) {
  http_parser_settings settings;
  http_parser_settings_init(&settings);
  settings.on_url = on_url;
  settings.on_header_field = on_field;
  settings.on_header_value = on_value;
  settings.on_body = on_body;
  settings.on_message_complete = on_complete;
  http_parser parser;
  http_parser_init(&parser, HTTP_REQUEST);
  Theirs theirs;
  parser.data = &theirs;
  http_parser_execute(&parser, &settings, text.data(), text.size() - 1);
  if (HTTP_PARSER_ERRNO(&parser) != HPE_OK) return Verdict::kOtherRefuses;
  if (theirs.complete != 0) return Verdict::kDiffers;  // it ends earlier
  http_parser_execute(&parser, &settings, text.data() + text.size() - 1, 1);
  if (HTTP_PARSER_ERRNO(&parser) != HPE_OK) return Verdict::kOtherRefuses;
  if (theirs.complete != 1) return Verdict::kDiffers;
  for (auto& field : theirs.message.fields) field.second = trimmed(field.second);
  theirs.message.bytes = text.size();
  return theirs.message == ours ? Verdict::kSame : Verdict::kDiffers;
}

struct Generator {
  std::mt19937 random{20261123};
  size_t below(size_t n) { return random() % n; }
  template <size_t N>
  const char* one_of(const char* const (&list)[N]) {
    return list[below(N)];
  }

  std::string request() {
    static const char* const kMethods[] = {"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"};
    static const char* const kTargets[] = {"/", "/a/b?c=d&e", "http://h.example:80/x", "/%20;p=1"};
    static const char* const kFields[] = {
        "Accept: */*", "X-A:b", "X-Empty:", "Cookie: a=b; c=d", "X-Tab:\t v \t", "Connection: close",
        "Connection: keep-alive", "TE: trailers", "Expect: 100-continue", "X-Long: aaaaaaaaaaaaaaa"};
    bool old = below(8) == 0;
    std::string out = std::string(one_of(kMethods)) + " " + one_of(kTargets) +
                      (old ? " HTTP/1.0" : " HTTP/1.1") + "\r\nHost: h.example\r\n";
    for (size_t i = below(5); i > 0; --i) out += std::string(one_of(kFields)) + "\r\n";
    switch (below(old ? 2 : 3)) {  // chunks are refused in HTTP/1.0
      case 0: return out + "\r\n";
      case 1: {
        std::string body(below(40), 'b');
        return out + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
      }
      default: break;
    }
    out += "Transfer-Encoding: chunked\r\n\r\n";
    for (size_t i = below(4); i > 0; --i) {
      char line[32];
      std::string data(1 + below(30), 'c');
      std::snprintf(line, sizeof line, below(2) == 0 ? "%zx" : "%zX;n=v", data.size());
      out += std::string(line) + "\r\n" + data + "\r\n";
    }
    return out + (below(3) == 0 ? "0\r\nX-Trailer: t\r\n\r\n" : "0\r\n\r\n");
  }

  void mutate(std::string* text) {
    static const char kText[] = "\r\n\t :;,=0123456789abcdefxXAF+-/?#\"\\\0\x01\x0b\x7f\x80\xff";
    static const std::string kBytes(kText, sizeof kText - 1);
    size_t at = below(text->size());
    switch (below(5)) {
      case 0: (*text)[at] = kBytes[below(kBytes.size())]; break;
      case 1: text->insert(at, 1, kBytes[below(kBytes.size())]); break;
      case 2: text->erase(at, 1 + below(3)); break;
      case 3: text->insert(at, text->substr(below(text->size()), below(24))); break;
      default: {
        static const char* const kPieces[] = {
            "\r\nContent-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "\r\n ", "\r\n\r\n", "0\r\n",
            "Content-Length: 0\r\n", "Transfer-Encoding: identity\r\n", " HTTP/1.1", "\r", "\n"};
        text->insert(at, one_of(kPieces));
      }
    }
  }
};

TEST(H1Differential, WhatWeAcceptMeansTheSameToAnotherParser) {
  Generator generate;
  size_t same = 0;
  size_t refused = 0;
  for (int i = 0; i < 150000; ++i) {
    std::string text = generate.request();
    size_t mutations = generate.below(4);
    for (size_t m = 0; m < mutations && !text.empty(); ++m) generate.mutate(&text);
    if (text.empty()) continue;
    Message ours;
    if (!read_ours(text, &ours)) {
      ASSERT_NE(mutations, 0u) << "a sound request was refused:\n" << text;
      continue;
    }
    text.resize(ours.bytes);
    Verdict verdict = compare(text, ours);
    ASSERT_NE(verdict, Verdict::kDiffers) << "understood differently:\n" << text;
    ++(verdict == Verdict::kSame ? same : refused);
  }
  std::printf("%zu requests understood the same, %zu that only we accept\n", same, refused);
  EXPECT_GT(same, 40000u);
  EXPECT_LT(refused, same / 4);
}

}  // namespace
}  // namespace edgemesh::http
