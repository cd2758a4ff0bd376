#include <zlib.h>

#include "proxy/compress/encoder.h"

namespace edgemesh::proxy {

namespace {

constexpr int kGzipWindow = 15 + 16;  // 32 KiB, with a gzip header
constexpr int kMemoryLevel = 8;
constexpr size_t kStep = 16 * 1024;

class GzipEncoder final : public Encoder {
 public:
  ~GzipEncoder() override {
    if (open_) deflateEnd(&stream_);
  }
  Coding coding() const override { return Coding::kGzip; }

  bool begin(int level) override {
    if (open_ && level == level_) return deflateReset(&stream_) == Z_OK;
    if (open_) deflateEnd(&stream_);
    stream_ = z_stream{};
    level_ = level;
    open_ = deflateInit2(&stream_, level, Z_DEFLATED, kGzipWindow, kMemoryLevel,
                         Z_DEFAULT_STRATEGY) == Z_OK;
    return open_;
  }

  bool encode(std::span<const uint8_t> data, bool end, std::vector<uint8_t>* out) override {
    if (data.empty() && !end) return true;
    stream_.next_in = const_cast<Bytef*>(data.data());  // NOLINT: zlib does not write to it
    stream_.avail_in = static_cast<uInt>(data.size());
    const int flush = end ? Z_FINISH : Z_SYNC_FLUSH;
    for (;;) {
      const size_t had = out->size();
      out->resize(had + kStep);
      stream_.next_out = out->data() + had;
      stream_.avail_out = kStep;
      const int rc = deflate(&stream_, flush);
      out->resize(had + kStep - stream_.avail_out);
      if (rc == Z_STREAM_END) return true;
      if (rc != Z_OK && rc != Z_BUF_ERROR) return false;
      if (stream_.avail_out > 0) return !end;  // with Z_FINISH the end must have come
    }
  }

 private:
  z_stream stream_{};
  int level_ = 0;
  bool open_ = false;
};

}  // namespace

std::unique_ptr<Encoder> make_gzip_encoder() {
  return std::make_unique<GzipEncoder>();
}

}  // namespace edgemesh::proxy
