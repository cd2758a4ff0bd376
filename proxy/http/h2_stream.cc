// Streams, byte queues and their free lists.
#include <algorithm>

#include "proxy/http/h2_conn.h"

namespace edgemesh::proxy::h2 {

namespace {

constexpr size_t kKeep = 256;
constexpr size_t kKeepBytes = 128 * 1024;  // a larger buffer is not kept

template <typename T>
struct FreeList {
  std::vector<T*> list;
  ~FreeList() {
    for (T* item : list) delete item;
  }
};
thread_local FreeList<Stream> free_streams;
thread_local FreeList<std::vector<uint8_t>> free_bytes;

}  // namespace

void Bytes::append(std::span<const uint8_t> data) {
  if (data.empty()) return;
  if (bytes_ == nullptr) {
    at_ = 0;
    if (free_bytes.list.empty()) {
      bytes_ = new std::vector<uint8_t>;
    } else {
      bytes_ = free_bytes.list.back();
      free_bytes.list.pop_back();
    }
  }
  if (at_ > 0 && at_ >= bytes_->size() - at_) {
    bytes_->erase(bytes_->begin(), bytes_->begin() + static_cast<ptrdiff_t>(at_));
    at_ = 0;
  }
  bytes_->insert(bytes_->end(), data.begin(), data.end());
}

void Bytes::consume(size_t n) {
  at_ += n;
  if (at_ >= bytes_->size()) clear();
}

void Bytes::clear() {
  std::vector<uint8_t>* bytes = std::exchange(bytes_, nullptr);
  at_ = 0;
  if (bytes == nullptr) return;
  if (free_bytes.list.size() >= kKeep || bytes->capacity() > kKeepBytes) {
    delete bytes;
    return;
  }
  bytes->clear();
  free_bytes.list.push_back(bytes);
}

Stream* Stream::take(Conn* conn) {
  Stream* s = nullptr;
  if (free_streams.list.empty()) {
    s = new Stream;
  } else {
    s = free_streams.list.back();
    free_streams.list.pop_back();
  }
  s->conn = conn;
  s->peer = conn->peer_;
  s->identity = conn->identity_;
  conn->link(*s);
  return s;
}

void Stream::recycle() {
  if (free_streams.list.size() >= kKeep) {
    delete this;
    return;
  }
  this->~Stream();
  free_streams.list.push_back(new (this) Stream);
}

void Stream::release() {
  handler = nullptr;
  released = true;
  if (conn != nullptr)
    conn->on_released(*this);
  else
    recycle();
}

void Stream::send_head(const Head& head_to_send, bool end) {
  if (conn != nullptr) conn->send_head(*this, head_to_send, end);
}

bool Stream::send_data(std::span<const uint8_t> data, bool end) {
  return conn == nullptr || conn->send_data(*this, data, end);
}

void Stream::send_trailers(const Head& trailers) {
  if (conn != nullptr) conn->send_trailers(*this, trailers);
}

void Stream::set_reading(bool on) {
  if (reading == on) return;
  reading = on;
  if (on && conn != nullptr) conn->resume(*this);
}

}  // namespace edgemesh::proxy::h2
