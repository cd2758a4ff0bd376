#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <string>

#include "proxy/compress/negotiate.h"

namespace edgemesh::proxy {
namespace {

std::string gunzip(const std::vector<uint8_t>& coded) {
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  std::string out(1 << 22, '\0');
  stream.next_in = const_cast<Bytef*>(coded.data());
  stream.avail_in = static_cast<uInt>(coded.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  inflate(&stream, Z_SYNC_FLUSH);
  out.resize(stream.total_out);
  inflateEnd(&stream);
  return out;
}

std::string unzstd(const std::vector<uint8_t>& coded) {
  ZSTD_DStream* stream = ZSTD_createDStream();
  std::string out(1 << 22, '\0');
  ZSTD_inBuffer in{coded.data(), coded.size(), 0};
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  while (in.pos < in.size && ZSTD_isError(ZSTD_decompressStream(stream, &to, &in)) == 0) {
  }
  ZSTD_freeDStream(stream);
  out.resize(to.pos);
  return out;
}

std::string decode(Coding coding, const std::vector<uint8_t>& coded) {
  return coding == Coding::kGzip ? gunzip(coded) : unzstd(coded);
}

std::span<const uint8_t> bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string sample(size_t size) {
  std::string text;
  for (size_t i = 0; text.size() < size; ++i)
    text += "line " + std::to_string(i * 7919 % 1000) + "\n";
  text.resize(size);
  return text;
}

class Encoding : public testing::TestWithParam<Coding> {};

TEST_P(Encoding, EachPieceCanBeReadAtOnce) {
  EncoderPool pool;
  auto encoder = pool.take(GetParam(), 3);
  ASSERT_NE(encoder, nullptr);
  std::vector<uint8_t> coded;
  std::string sent;
  for (int i = 0; i < 5; ++i) {
    const std::string piece = sample(1000 + 300 * static_cast<size_t>(i));
    ASSERT_TRUE(encoder->encode(bytes(piece), false, &coded));
    sent += piece;
    EXPECT_EQ(decode(GetParam(), coded), sent);
  }
  ASSERT_TRUE(encoder->encode({}, true, &coded));
  EXPECT_EQ(decode(GetParam(), coded), sent);
  EXPECT_LT(coded.size(), sent.size() / 2);
}

TEST_P(Encoding, AnEncoderIsUsedAgain) {
  EncoderPool pool;
  for (int round = 0; round < 3; ++round) {
    auto encoder = pool.take(GetParam(), 1 + round);
    ASSERT_NE(encoder, nullptr);
    const std::string text = sample(200'000 + static_cast<size_t>(round));
    std::vector<uint8_t> coded;
    // One that was given back in the middle of a body starts anew.
    if (round == 1) {
      ASSERT_TRUE(encoder->encode(bytes(sample(500)), false, &coded));
    } else {
      ASSERT_TRUE(encoder->encode(bytes(text), true, &coded));
      EXPECT_EQ(decode(GetParam(), coded), text);
    }
    pool.give(std::move(encoder));
  }
}

INSTANTIATE_TEST_SUITE_P(Codings, Encoding, testing::Values(Coding::kGzip, Coding::kZstd));

TEST(EncoderPool, BoundsHowManyAreOpen) {
  EncoderPool pool;
  std::vector<std::unique_ptr<Encoder>> open;
  for (size_t i = 0; i < EncoderPool::kMaxOpen; ++i) open.push_back(pool.take(Coding::kZstd, 1));
  EXPECT_NE(open.back(), nullptr);
  EXPECT_EQ(pool.take(Coding::kZstd, 1), nullptr);
  pool.give(std::move(open.back()));
  EXPECT_NE(pool.take(Coding::kGzip, 1), nullptr);
}

Coding chosen(std::string_view accept, model::Compression spec = {}) {
  Head request;
  if (!accept.empty()) request.add("Accept-Encoding", accept);
  return choose_coding(spec, request);
}

TEST(Negotiate, ByTheClientsWeights) {
  EXPECT_EQ(chosen(""), Coding::kNone);
  EXPECT_EQ(chosen("gzip"), Coding::kGzip);
  EXPECT_EQ(chosen("gzip, zstd"), Coding::kZstd);
  EXPECT_EQ(chosen("gzip;q=1, zstd;q=0.5"), Coding::kGzip);
  EXPECT_EQ(chosen("br, GZIP ; q=0.3"), Coding::kGzip);
  EXPECT_EQ(chosen("*"), Coding::kZstd);
  EXPECT_EQ(chosen("*;q=0.5, zstd;q=0"), Coding::kGzip);
  EXPECT_EQ(chosen("gzip;q=0"), Coding::kNone);
  EXPECT_EQ(chosen("gzip;q=0.2, identity;q=0.9"), Coding::kNone);
  EXPECT_EQ(chosen("gzip;q=x"), Coding::kNone);
  EXPECT_EQ(chosen("deflate, br"), Coding::kNone);
  model::Compression gzip_only;
  gzip_only.zstd = false;
  EXPECT_EQ(chosen("zstd, gzip;q=0.1", gzip_only), Coding::kGzip);
}

struct MayEncode : testing::Test {
  MayEncode() {
    request.method = "GET";
    answer.status = 200;
    answer.add("content-type", "text/html; charset=utf-8");
    answer.set_length(5000);
  }
  bool ask() { return may_encode(spec, request, answer); }
  model::Compression spec;
  Head request, answer;
};

TEST_F(MayEncode, WhatIsWorthIt) {
  EXPECT_TRUE(ask());
  answer.set_length(10);
  EXPECT_FALSE(ask());
  answer.drop_length();
  EXPECT_TRUE(ask());
  answer.set("content-type", "image/png");
  EXPECT_FALSE(ask());
  spec.types = {"image/png"};
  EXPECT_TRUE(ask());
}

TEST_F(MayEncode, NotWhatIsPartialCodedOrForbidden) {
  for (const int status : {204, 206, 304}) {
    answer.status = status;
    EXPECT_FALSE(ask()) << status;
  }
  answer.status = 404;
  EXPECT_TRUE(ask());
  request.method = "HEAD";
  EXPECT_FALSE(ask());
  request.method = "GET";
  answer.set("cache-control", "public, no-transform");
  EXPECT_FALSE(ask());
  answer.remove("cache-control");
  answer.set("content-encoding", "br");
  EXPECT_FALSE(ask());
  answer.remove("content-encoding");
  answer.set("etag", "\"x\"");
  spec.weaken_etag = false;
  EXPECT_FALSE(ask());
  answer.set("etag", "W/\"x\"");
  EXPECT_TRUE(ask());
}

TEST_F(MayEncode, TheHeadSaysSo) {
  answer.add("etag", "\"x\"");
  answer.add("accept-ranges", "bytes");
  note_encoded(spec, Coding::kGzip, &answer);
  add_vary(&answer);
  add_vary(&answer);
  EXPECT_FALSE(answer.has_length);
  EXPECT_FALSE(answer.has("accept-ranges"));
  EXPECT_EQ(answer.get("content-encoding"), "gzip");
  EXPECT_EQ(answer.get("etag"), "W/\"x\"");
  EXPECT_EQ(answer.get("vary"), "accept-encoding");
  EXPECT_EQ(answer.remove("vary"), 1u);
  answer.add("vary", "Origin, Accept-Encoding");
  add_vary(&answer);
  EXPECT_EQ(answer.remove("vary"), 1u);
}

}  // namespace
}  // namespace edgemesh::proxy
