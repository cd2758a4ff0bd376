#include "p2p/h3_codec.h"

#include <gtest/gtest.h>

#include "core/io/stream.h"

namespace edgemesh::p2p {
namespace {

struct Sink final : H3StreamReader::Sink {
  void on_h3_headers(H3Fields f) override { fields = std::move(f); }
  void on_h3_data(std::span<const uint8_t> d) override { data.append(io::as_text(d)); }
  H3Fields fields;
  std::string data;
};

std::string request() { return *h3_encode_headers({{":method", "CONNECT"}, {":authority", "10.0.0.1:80"}}); }

std::string data_frame(std::string_view payload) {
  uint8_t header[9];
  size_t n = h3_data_header(payload.size(), header);
  return std::string(reinterpret_cast<char*>(header), n) + std::string(payload);  // NOLINT
}

TEST(H3CodecTest, ReadsHeadersAndDataInPiecesOfAnySize) {
  std::string wire = request() + data_frame(std::string(100, 'a')) + data_frame(std::string(70000, 'b')) +
                     data_frame("c");
  for (size_t step : {size_t{1}, size_t{2}, size_t{7}, size_t{1000}, wire.size()}) {
    H3StreamReader reader;
    Sink sink;
    for (size_t at = 0; at < wire.size(); at += step)
      ASSERT_TRUE(reader.feed(io::as_bytes(std::string_view(wire).substr(at, step)), sink));
    EXPECT_EQ(sink.fields, (H3Fields{{":method", "CONNECT"}, {":authority", "10.0.0.1:80"}}));
    EXPECT_EQ(sink.data, std::string(100, 'a') + std::string(70000, 'b') + "c");
    EXPECT_TRUE(reader.may_end());
  }
}

TEST(H3CodecTest, MayNotEndInsideAFrameOrBeforeHeaders) {
  H3StreamReader reader;
  Sink sink;
  EXPECT_FALSE(reader.may_end());
  ASSERT_TRUE(reader.feed(io::as_bytes(request()), sink));
  EXPECT_TRUE(reader.may_end());
  ASSERT_TRUE(reader.feed(io::as_bytes(data_frame("xyz").substr(0, 3)), sink));
  EXPECT_FALSE(reader.may_end());
}

TEST(H3CodecTest, SkipsUnknownFrames) {
  H3StreamReader reader;
  Sink sink;
  ASSERT_TRUE(reader.feed(io::as_bytes(std::string("\x21\x02hi", 4) + request() + data_frame("ok")), sink));
  EXPECT_EQ(sink.data, "ok");
}

TEST(H3CodecTest, RefusesWhatDoesNotBelong) {
  const std::string cases[] = {
      data_frame("early"),                       // DATA before HEADERS
      std::string("\x04\x00", 2),                // SETTINGS on a request stream
      std::string("\x07\x00", 2),                // GOAWAY
      std::string("\x01\x80\x01\x00\x00", 5),    // HEADERS of 64 KiB
      std::string("\x01\x01\x00", 3),            // a section that is cut short
      std::string("\x01\x03\x05\x00\x80", 5),    // needs the dynamic table
      request() + request() + data_frame("x"),   // DATA after trailers
  };
  for (const auto& wire : cases) {
    H3StreamReader reader;
    Sink sink;
    EXPECT_FALSE(reader.feed(io::as_bytes(wire), sink)) << static_cast<int>(wire[0]);
  }
}

TEST(H3UniReaderTest, FindsTheSettingOfDatagramsInPiecesOfAnySize) {
  for (bool datagrams : {false, true}) {
    const std::string wire = h3_control_preface(datagrams) + std::string("\x07\x01\x00", 3);  // GOAWAY
    for (size_t step = 1; step <= wire.size(); ++step) {
      H3UniReader reader;
      for (size_t at = 0; at < wire.size(); at += step)
        ASSERT_TRUE(reader.feed(io::as_bytes(std::string_view(wire).substr(at, step))));
      EXPECT_TRUE(reader.control());
      ASSERT_TRUE(reader.settings());
      EXPECT_EQ(reader.settings()->datagrams, datagrams);
    }
  }
}

TEST(H3UniReaderTest, RefusesWhatDoesNotBelong) {
  const std::pair<std::string, H3Error> cases[] = {
      {std::string("\x00\x07\x01\x00", 4), kH3MissingSettings},        // GOAWAY comes first
      {std::string("\x00\x04\x00\x04\x00", 5), kH3FrameUnexpected},    // settings twice
      {std::string("\x00\x04\x00\x00\x00", 5), kH3FrameUnexpected},    // DATA
      {std::string("\x00\x04\x02\x33\x02", 5), kH3SettingsError},
      {std::string("\x00\x04\x02\x04\x00", 5), kH3SettingsError},      // of HTTP/2
      {std::string("\x00\x04\x01\x33", 4), kH3FrameError},             // a value is missing
      {std::string("\x00\x04\x7f\xff", 4), kH3ExcessiveLoad},
  };
  for (const auto& [wire, code] : cases) {
    H3UniReader reader;
    EXPECT_FALSE(reader.feed(io::as_bytes(wire)));
    EXPECT_EQ(reader.error_code(), code);
  }
}

TEST(H3UniReaderTest, PassesOverOtherStreams) {
  H3UniReader reader;
  ASSERT_TRUE(reader.feed(io::as_bytes(std::string("\x02garbage", 8))));
  EXPECT_FALSE(reader.control());
  EXPECT_FALSE(reader.settings());
}

}  // namespace
}  // namespace edgemesh::p2p
