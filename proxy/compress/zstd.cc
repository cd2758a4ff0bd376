#include <zstd.h>

#include "proxy/compress/encoder.h"

namespace edgemesh::proxy {

namespace {

// 128 KiB: what a decoder must hold for each body. Larger windows gain little on answers.
constexpr int kWindowLog = 17;
constexpr size_t kStep = 16 * 1024;

class ZstdEncoder final : public Encoder {
 public:
  explicit ZstdEncoder(ZSTD_CCtx* context) : context_(context) {}
  ~ZstdEncoder() override { ZSTD_freeCCtx(context_); }
  Coding coding() const override { return Coding::kZstd; }

  bool begin(int level) override {
    return ok(ZSTD_CCtx_reset(context_, ZSTD_reset_session_and_parameters)) &&
           ok(ZSTD_CCtx_setParameter(context_, ZSTD_c_compressionLevel, level)) &&
           ok(ZSTD_CCtx_setParameter(context_, ZSTD_c_windowLog, kWindowLog));
  }

  bool encode(std::span<const uint8_t> data, bool end, std::vector<uint8_t>* out) override {
    if (data.empty() && !end) return true;
    ZSTD_inBuffer in{data.data(), data.size(), 0};
    const ZSTD_EndDirective how = end ? ZSTD_e_end : ZSTD_e_flush;
    for (;;) {
      const size_t had = out->size();
      out->resize(had + kStep);
      ZSTD_outBuffer to{out->data() + had, kStep, 0};
      const size_t left = ZSTD_compressStream2(context_, &to, &in, how);
      out->resize(had + to.pos);
      if (!ok(left)) return false;
      if (left == 0) return true;
    }
  }

 private:
  static bool ok(size_t code) { return ZSTD_isError(code) == 0; }
  ZSTD_CCtx* context_;
};

}  // namespace

std::unique_ptr<Encoder> make_zstd_encoder() {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  if (context == nullptr) return nullptr;
  return std::make_unique<ZstdEncoder>(context);
}

}  // namespace edgemesh::proxy
