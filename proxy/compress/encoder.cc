#include "proxy/compress/encoder.h"

namespace edgemesh::proxy {

std::string_view to_string(Coding coding) {
  switch (coding) {
    case Coding::kNone: return "identity";
    case Coding::kGzip: return "gzip";
    case Coding::kZstd: return "zstd";
  }
  return "?";
}

std::unique_ptr<Encoder> EncoderPool::take(Coding coding, int level) {
  if (coding == Coding::kNone || open_ >= kMaxOpen) return nullptr;
  auto& free = free_[coding == Coding::kZstd ? 1 : 0];
  std::unique_ptr<Encoder> encoder;
  if (!free.empty()) {
    encoder = std::move(free.back());
    free.pop_back();
  } else {
    encoder = coding == Coding::kZstd ? make_zstd_encoder() : make_gzip_encoder();
  }
  if (encoder == nullptr || !encoder->begin(level)) return nullptr;
  ++open_;
  return encoder;
}

void EncoderPool::give(std::unique_ptr<Encoder> encoder) {
  if (encoder == nullptr) return;
  --open_;
  auto& free = free_[encoder->coding() == Coding::kZstd ? 1 : 0];
  if (free.size() < kKeep) free.push_back(std::move(encoder));
}

}  // namespace edgemesh::proxy
