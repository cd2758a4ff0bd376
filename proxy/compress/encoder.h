// Encoder: a content coding of answers on their way (RFC 9110 8.4): gzip (RFC 1952) and zstd (RFC
// 8878). What is given comes out at once, so that an answer in pieces stays one.
// Threads: one loop; encoders go back to their pool by give().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace edgemesh::proxy {

enum class Coding : uint8_t { kNone, kGzip, kZstd };
std::string_view to_string(Coding coding);  // the content-coding's name

class Encoder {
 public:
  virtual ~Encoder() = default;
  virtual Coding coding() const = 0;
  // For a new body, at this level.
  virtual bool begin(int level) = 0;
  // Appends the coded form of `data` to `out`; all of it up to here can be decoded. False: the library
  // failed, the body cannot be completed.
  virtual bool encode(std::span<const uint8_t> data, bool end, std::vector<uint8_t>* out) = 0;
};

// Encoders cost some 300 KB each: a worker keeps a few.
class EncoderPool {
 public:
  static constexpr size_t kKeep = 8;       // of each coding
  static constexpr size_t kMaxOpen = 256;  // at a time; bodies beyond go as they are
  // Null: too many are open, or there is no memory.
  std::unique_ptr<Encoder> take(Coding coding, int level);
  void give(std::unique_ptr<Encoder> encoder);

 private:
  std::vector<std::unique_ptr<Encoder>> free_[2];
  size_t open_ = 0;
};

std::unique_ptr<Encoder> make_gzip_encoder();
std::unique_ptr<Encoder> make_zstd_encoder();

}  // namespace edgemesh::proxy
