#include "core/http/h1_parser.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

namespace edgemesh::http {
namespace {

struct Parsed {
  H1Status status = H1Status::kIncomplete;
  H1Head head;
  size_t consumed = 0;
  H1Error error;
};

class HeadFixture {
 public:
  explicit HeadFixture(H1HeadParser::Kind kind, const H1Limits& limits = {})
      : parser_(kind, storage_, limits) {}
  H1HeadParser& parser() { return parser_; }

  Parsed whole(std::string_view text) {
    Parsed out;
    out.status = parser_.parse(text, &out.head, &out.consumed);
    out.error = parser_.error();
    return out;
  }
  // Shows one byte more each time, from the first.
  Parsed bytewise(std::string_view text) {
    Parsed out;
    for (size_t n = 1; n <= text.size(); ++n) {
      out.status = parser_.parse(text.substr(0, n), &out.head, &out.consumed);
      if (out.status != H1Status::kIncomplete) break;
    }
    out.error = parser_.error();
    return out;
  }

 private:
  std::array<FieldView, 100> storage_;
  H1HeadParser parser_;
};

TEST(H1HeadTest, ReadsARequest) {
  std::string text =
      "POST /a/b?c=1 HTTP/1.1\r\nHost: x.y:80\r\nContent-Length: 12\r\nX-Empty:\r\n"
      "X-Padded: \t v w \t\r\nConnection: Keep-Alive, Upgrade\r\nUpgrade: websocket\r\n"
      "Expect: 100-Continue\r\n\r\nbody";
  HeadFixture f(H1HeadParser::kRequest);

  Parsed p = f.whole(text);

  ASSERT_EQ(p.status, H1Status::kComplete) << p.error.text;
  EXPECT_EQ(p.consumed, text.size() - 4);
  EXPECT_EQ(p.head.method, "POST");
  EXPECT_EQ(p.head.target, "/a/b?c=1");
  EXPECT_EQ(p.head.host, "x.y:80");
  EXPECT_EQ(p.head.body, BodyKind::kLength);
  EXPECT_EQ(p.head.content_length, 12u);
  EXPECT_EQ(p.head.get("x-empty"), "");
  EXPECT_EQ(p.head.get("x-padded"), "v w");
  EXPECT_TRUE(p.head.keep_alive);
  EXPECT_TRUE(p.head.upgrade);
  EXPECT_EQ(p.head.upgrade_protocol, "websocket");
  EXPECT_TRUE(p.head.expect_continue);
  EXPECT_EQ(p.head.fields.size(), 7u);
  EXPECT_GE(p.head.fields[0].name.data(), text.data());  // views, not copies
  EXPECT_LT(p.head.fields[0].name.data(), text.data() + text.size());
}

struct RequestCase {
  const char* name;
  std::string text;
  int status;  // 0: accepted
};
void PrintTo(const RequestCase& c, std::ostream* out) {
  *out << c.name;
}

class H1RequestTest : public ::testing::TestWithParam<RequestCase> {};

TEST_P(H1RequestTest, IsJudgedTheSameWholeAndByteByByte) {
  HeadFixture whole(H1HeadParser::kRequest);
  HeadFixture bytewise(H1HeadParser::kRequest);

  Parsed a = whole.whole(GetParam().text);
  Parsed b = bytewise.bytewise(GetParam().text);

  H1Status want = GetParam().status == 0 ? H1Status::kComplete : H1Status::kError;
  EXPECT_EQ(a.status, want) << a.error.text;
  EXPECT_EQ(b.status, want) << b.error.text;
  EXPECT_EQ(a.error.status, GetParam().status) << a.error.text;
  EXPECT_EQ(b.error.status, GetParam().status) << b.error.text;
}

std::string get(const std::string& fields) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n";
}
std::string post(const std::string& fields) {
  return "POST / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n";
}

const RequestCase kRequests[] = {
    {"Plain", get(""), 0},
    {"EmptyLineFirst", "\r\n" + get(""), 0},
    {"ManyEmptyLinesFirst", "\r\n\r\n\r\n" + get(""), 400},
    {"OptionsStar", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {"GetStar", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"Absolute", "GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {"Connect", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {"ConnectWithPath", "CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"RelativeTarget", "GET index.html HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"Fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"NonAsciiTarget", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"Http10WithoutHost", "GET / HTTP/1.0\r\n\r\n", 0},
    {"Http11WithoutHost", "GET / HTTP/1.1\r\n\r\n", 400},
    {"TwoHosts", get("Host: b\r\n"), 400},
    {"HostWithSpace", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
    {"HostWithAt", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
    {"HostList", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
    {"Http2", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
    {"Http12", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
    {"LowerCaseVersion", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
    {"LongVersion", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400},
    {"NoVersion", "GET /\r\nHost: a\r\n\r\n", 400},
    {"TwoSpaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"SpaceInTarget", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"TabAsSpace", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"TrailingSpace", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
    {"LeadingSpace", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"BadMethod", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"TlsHello", std::string("\x16\x03\x01\x02\x00\x01", 6), 400},
    {"BareLf", "GET / HTTP/1.1\nHost: a\n\n", 400},
    {"BareLfInFields", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
    {"BareLfAtEnd", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
    {"BareCrInValue", get("X: a\rb\r\n"), 400},
    {"BareCrBeforeCrlf", get("X: a\r\r\n"), 400},
    {"CrInName", get("X\rY: a\r\n"), 400},
    {"CrInRequestLine", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"NulInValue", get(std::string("X: a\0b\r\n", 8)), 400},
    {"DelInValue", get("X: a\x7f\r\n"), 400},
    {"ObsTextInValue", get("X: \xff\x80\r\n"), 0},
    {"ObsFold", get("X: a\r\n b\r\n"), 400},
    {"ObsFoldTab", get("X: a\r\n\tb\r\n"), 400},
    {"FoldBeforeFirstField", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
    {"SpaceBeforeColon", get("X : a\r\n"), 400},
    {"SpaceBeforeColonOfLength", post("Content-Length : 5\r\n"), 400},
    {"TabBeforeColon", get("X\t: a\r\n"), 400},
    {"NoColon", get("X\r\n"), 400},
    {"EmptyName", get(": a\r\n"), 400},
    {"NameWithSpace", get("X Y: a\r\n"), 400},
    {"NameWithUnicode", get("X\xc3\xa9: a\r\n"), 400},
    {"Length", post("Content-Length: 5\r\n"), 0},
    {"LengthZeroPadded", post("Content-Length: 005\r\n"), 0},
    {"TwoLengths", post("Content-Length: 5\r\nContent-Length: 6\r\n"), 400},
    {"SameLengthTwice", post("Content-Length: 5\r\ncontent-length: 5\r\n"), 400},
    {"LengthList", post("Content-Length: 5, 5\r\n"), 400},
    {"LengthPlus", post("Content-Length: +5\r\n"), 400},
    {"LengthMinus", post("Content-Length: -1\r\n"), 400},
    {"LengthHex", post("Content-Length: 0x5\r\n"), 400},
    {"LengthEmpty", post("Content-Length:\r\n"), 400},
    {"LengthSpaceInside", post("Content-Length: 1 0\r\n"), 400},
    {"LengthTooBig", post("Content-Length: 18446744073709551616\r\n"), 400},
    {"Chunked", post("Transfer-Encoding: chunked\r\n"), 0},
    {"ChunkedUpperCase", post("Transfer-Encoding: CHUNKED\r\n"), 0},
    {"LengthAndChunked", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400},
    {"ChunkedAndLength", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400},
    {"ChunkedAndLengthZero", post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), 400},
    {"ChunkedTwice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
    {"ChunkedListed", post("Transfer-Encoding: chunked, chunked\r\n"), 501},
    {"GzipChunked", post("Transfer-Encoding: gzip, chunked\r\n"), 501},
    {"ChunkedThenIdentity", post("Transfer-Encoding: chunked, identity\r\n"), 501},
    {"ChunkedMisspelt", post("Transfer-Encoding: xchunked\r\n"), 501},
    {"ChunkedVerticalTab",
     post("Transfer-Encoding: \x0b"
          "chunked\r\n"),
     400},
    {"ChunkedQuoted", post("Transfer-Encoding: \"chunked\"\r\n"), 501},
    {"ChunkedEmpty", post("Transfer-Encoding:\r\n"), 501},
    {"ChunkedIn10", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"ExpectOther", post("Expect: 200-ok\r\n"), 417},
};
INSTANTIATE_TEST_SUITE_P(Table, H1RequestTest, ::testing::ValuesIn(kRequests),
                         [](const auto& c) { return c.param.name; });

TEST(H1HeadTest, LimitsAreKept) {
  H1Limits limits;
  limits.max_start_line = 30;
  limits.max_head = 200;
  limits.max_fields = 3;
  auto judge = [&](const std::string& text) {
    HeadFixture whole(H1HeadParser::kRequest, limits);
    HeadFixture bytewise(H1HeadParser::kRequest, limits);
    int a = whole.whole(text).error.status;
    int b = bytewise.bytewise(text).error.status;
    EXPECT_EQ(a, b) << text;
    return a;
  };

  EXPECT_EQ(judge("GET /" + std::string(16, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
  EXPECT_EQ(judge("GET /" + std::string(17, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n"), 414);
  EXPECT_EQ(judge("GET /" + std::string(500, 'a')), 414);  // does not wait for the end
  EXPECT_EQ(judge(get("A: 1\r\nB: 2\r\n")), 0);
  EXPECT_EQ(judge(get("A: 1\r\nB: 2\r\nC: 3\r\n")), 431);
  EXPECT_EQ(judge(get("A: " + std::string(300, 'x') + "\r\n")), 431);
}

TEST(H1HeadTest, FieldStorageIsNeverOverrun) {
  std::array<FieldView, 2> small;
  H1HeadParser parser(H1HeadParser::kRequest, small);
  H1Head head;
  size_t consumed = 0;

  EXPECT_EQ(parser.parse(get("A: 1\r\n"), &head, &consumed), H1Status::kComplete);
  parser.reset();
  EXPECT_EQ(parser.parse(get("A: 1\r\nB: 1\r\n"), &head, &consumed), H1Status::kError);
}

TEST(H1HeadTest, KeepAliveFollowsVersionAndConnection) {
  auto keeps = [](const std::string& text) {
    HeadFixture f(H1HeadParser::kRequest);
    Parsed p = f.whole(text);
    EXPECT_EQ(p.status, H1Status::kComplete);
    return p.head.keep_alive;
  };
  EXPECT_TRUE(keeps(get("")));
  EXPECT_FALSE(keeps(get("Connection: close\r\n")));
  EXPECT_FALSE(keeps(get("Connection: x, Close\r\n")));
  EXPECT_FALSE(keeps("GET / HTTP/1.0\r\n\r\n"));
  EXPECT_TRUE(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

TEST(H1HeadTest, PipelinedRequestsComeOneByOne) {
  std::string text = get("A: 1\r\n") + get("B: 2\r\n");
  HeadFixture f(H1HeadParser::kRequest);

  Parsed first = f.whole(text);
  ASSERT_EQ(first.status, H1Status::kComplete);
  EXPECT_EQ(first.head.get("a"), "1");
  f.parser().reset();
  Parsed second = f.whole(std::string_view(text).substr(first.consumed));
  ASSERT_EQ(second.status, H1Status::kComplete);
  EXPECT_EQ(second.head.get("b"), "2");
  EXPECT_EQ(first.consumed + second.consumed, text.size());
}

struct ResponseCase {
  const char* name;
  std::string text;
  const char* method;
  bool ok;
  BodyKind body;
};
void PrintTo(const ResponseCase& c, std::ostream* out) {
  *out << c.name;
}
class H1ResponseTest : public ::testing::TestWithParam<ResponseCase> {};

TEST_P(H1ResponseTest, BodyIsDecided) {
  for (bool whole : {true, false}) {
    HeadFixture f(H1HeadParser::kResponse);
    f.parser().answers(GetParam().method);

    Parsed p = whole ? f.whole(GetParam().text) : f.bytewise(GetParam().text);

    EXPECT_EQ(p.status, GetParam().ok ? H1Status::kComplete : H1Status::kError) << p.error.text;
    if (GetParam().ok) {
      EXPECT_EQ(p.head.body, GetParam().body);
    }
  }
}

const ResponseCase kResponses[] = {
    {"Length", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "GET", true, BodyKind::kLength},
    {"LengthZero", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "GET", true, BodyKind::kNone},
    {"Chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", true,
     BodyKind::kChunked},
    {"Close", "HTTP/1.1 200 OK\r\n\r\n", "GET", true, BodyKind::kUntilClose},
    {"NoReason", "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n", "GET", true, BodyKind::kLength},
    {"EmptyReason", "HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n", "GET", true, BodyKind::kLength},
    {"Head", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD", true, BodyKind::kNone},
    {"NoContent", "HTTP/1.1 204 No Content\r\n\r\n", "GET", true, BodyKind::kNone},
    {"NotModified", "HTTP/1.1 304 x\r\nContent-Length: 30\r\n\r\n", "GET", true, BodyKind::kNone},
    {"Switching", "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "GET",
     true, BodyKind::kNone},
    {"ConnectOk", "HTTP/1.1 200 x\r\n\r\n", "CONNECT", true, BodyKind::kNone},
    {"NoContentWithChunked",
     "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n",
     "GET",
     false,
     {}},
    {"NoContentWithLength", "HTTP/1.1 204 x\r\nContent-Length: 3\r\n\r\n", "GET", false, {}},
    {"Both",
     "HTTP/1.1 200 x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
     "GET",
     false,
     {}},
    {"TwoLengths",
     "HTTP/1.1 200 x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
     "GET",
     false,
     {}},
    {"BadStatus", "HTTP/1.1 20 x\r\n\r\n", "GET", false, {}},
    {"Status600", "HTTP/1.1 600 x\r\n\r\n", "GET", false, {}},
    {"StatusGlued", "HTTP/1.1 2000 x\r\n\r\n", "GET", false, {}},
    {"Http2", "HTTP/2 200 OK\r\n\r\n", "GET", false, {}},
    {"EmptyLineFirst", "\r\nHTTP/1.1 200 OK\r\n\r\n", "GET", false, {}},
    {"Garbage", "\x01garbage", "GET", false, {}},
};
INSTANTIATE_TEST_SUITE_P(Table, H1ResponseTest, ::testing::ValuesIn(kResponses),
                         [](const auto& c) { return c.param.name; });

struct BodyResult {
  H1BodyDecoder::Event last = H1BodyDecoder::kNeedMore;
  std::string data;
  size_t consumed = 0;
  size_t trailers = 0;
};

BodyResult decode(H1BodyDecoder decoder, const std::string& text, size_t step) {
  BodyResult out;
  size_t shown = 0;
  while (shown < text.size() || shown == 0) {
    shown = std::min(text.size(), shown + step);
    while (true) {
      size_t n = 0;
      std::string_view data;
      std::string_view in = std::string_view(text).substr(out.consumed, shown - out.consumed);
      out.last = decoder.next(in, &n, &data);
      if (out.last == H1BodyDecoder::kData) out.data += data;
      out.consumed += n;
      if (out.last != H1BodyDecoder::kData) break;
    }
    if (out.last == H1BodyDecoder::kEnd) out.trailers = decoder.trailers().size();
    if (out.last != H1BodyDecoder::kNeedMore || shown == text.size()) break;
  }
  return out;
}

struct ChunkCase {
  const char* name;
  std::string text;
  H1BodyDecoder::Event last;
  std::string data;
};
void PrintTo(const ChunkCase& c, std::ostream* out) {
  *out << c.name;
}
class H1ChunkTest : public ::testing::TestWithParam<ChunkCase> {};

TEST_P(H1ChunkTest, IsJudgedTheSameInAnySteps) {
  for (size_t step : {1u, 2u, 3u, 7u, 100000u}) {
    std::array<FieldView, 4> storage;
    BodyResult r = decode(H1BodyDecoder(BodyKind::kChunked, 0, storage), GetParam().text, step);
    EXPECT_EQ(r.last, GetParam().last) << step;
    if (r.last == H1BodyDecoder::kEnd) {
      EXPECT_EQ(r.data, GetParam().data) << step;
    }
  }
}

constexpr auto kBad = H1BodyDecoder::kError;
constexpr auto kEnd = H1BodyDecoder::kEnd;
constexpr auto kMore = H1BodyDecoder::kNeedMore;
const ChunkCase kChunks[] = {
    {"Empty", "0\r\n\r\n", kEnd, ""},
    {"Two", "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", kEnd, "abc0123456789"},
    {"LowerHex", "a\r\n0123456789\r\n0\r\n\r\n", kEnd, "0123456789"},
    {"Extension", "3;x=\"y z\"\r\nabc\r\n0;last\r\n\r\n", kEnd, "abc"},
    {"LeadingZeros", "003\r\nabc\r\n000\r\n\r\n", kEnd, "abc"},
    {"Trailers", "1\r\na\r\n0\r\nX: y\r\nZ: w\r\n\r\n", kEnd, "a"},
    {"CrlfInData", "4\r\na\r\nb\r\n0\r\n\r\n", kEnd, "a\r\nb"},
    {"Unfinished", "3\r\nab", kMore, ""},
    {"UnfinishedEnd", "0\r\n", kMore, ""},
    {"NoSize", "\r\nabc", kBad, ""},
    {"Minus", "-1\r\n", kBad, ""},
    {"Plus", "+1\r\na\r\n", kBad, ""},
    {"HexPrefix", "0x1\r\na\r\n", kBad, ""},
    {"Underscore", "1_0\r\n", kBad, ""},
    {"SpaceBefore", " 1\r\na\r\n", kBad, ""},
    {"SpaceAfter", "1 \r\na\r\n", kBad, ""},
    {"Overflow", "ffffffffffffffff0\r\n", kBad, ""},
    {"TooLarge", "fffffffffffffff0\r\n", kBad, ""},
    {"BareLfAfterSize", "1\na\r\n0\r\n\r\n", kBad, ""},
    {"BareCrInExtension", "1;a\rb\r\na\r\n", kBad, ""},
    {"LfInExtension", "1;a\nb\r\na\r\n", kBad, ""},
    {"DataTooLong", "1\r\nab\r\n0\r\n\r\n", kBad, ""},
    {"DataEndsWithLf", "1\r\na\n0\r\n\r\n", kBad, ""},
    {"DataEndsWithCrX", "1\r\na\rx0\r\n\r\n", kBad, ""},
    {"LongLine", "1;" + std::string(300, 'a'), kBad, ""},
    {"TrailerBareLf", "0\r\nX: y\n\r\n", kBad, ""},
    {"TrailerFold", "0\r\nX: y\r\n z\r\n\r\n", kBad, ""},
    {"TrailerSpaceColon", "0\r\nX : y\r\n\r\n", kBad, ""},
    {"TrailerLength", "0\r\nContent-Length: 5\r\n\r\n", kBad, ""},
    {"TrailerCoding", "0\r\nTransfer-Encoding: chunked\r\n\r\n", kBad, ""},
    {"TooManyTrailers", "0\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\nE: 1\r\n\r\n", kBad, ""},
    {"LongTrailer", "0\r\nA: " + std::string(9000, 'a'), kBad, ""},
};
INSTANTIATE_TEST_SUITE_P(Table, H1ChunkTest, ::testing::ValuesIn(kChunks),
                         [](const auto& c) { return c.param.name; });

TEST(H1BodyTest, StopsAtTheNextMessage) {
  std::string text = "3\r\nabc\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n";
  std::array<FieldView, 4> storage;

  BodyResult r = decode(H1BodyDecoder(BodyKind::kChunked, 0, storage), text, 1000);

  EXPECT_EQ(r.last, kEnd);
  EXPECT_EQ(r.trailers, 1u);
  EXPECT_EQ(text.substr(r.consumed), "GET / HTTP/1.1\r\n");
  BodyResult length = decode(H1BodyDecoder(BodyKind::kLength, 5, {}), "abcdeGET", 2);
  EXPECT_EQ(length.data, "abcde");
  EXPECT_EQ(length.consumed, 5u);
}

TEST(H1BodyTest, EndOfInputEndsOnlyABodyWithoutLength) {
  EXPECT_TRUE(H1BodyDecoder(BodyKind::kUntilClose, 0, {}).at_end_of_input());
  EXPECT_TRUE(H1BodyDecoder(BodyKind::kNone, 0, {}).at_end_of_input());
  EXPECT_FALSE(H1BodyDecoder(BodyKind::kLength, 1, {}).at_end_of_input());
  EXPECT_FALSE(H1BodyDecoder(BodyKind::kChunked, 0, {}).at_end_of_input());
}

}  // namespace
}  // namespace edgemesh::http
