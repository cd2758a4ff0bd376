// DATAGRAM frames (RFC 9221) that carry the datagrams of CONNECT-UDP streams (RFC 9297 2.1): a frame
// begins with a quarter of the stream's id. And the peer's settings, which say whether it takes them.
#include <algorithm>
#include <cstring>

#include "p2p/quic_impl.h"
#include "p2p/varint.h"

namespace edgemesh::p2p {

namespace {
constexpr size_t kTurnBytes = 32 * 1024;
// A packet's short header with the longest id and number, and its tag; the frame's type and length.
constexpr size_t kPacketBytes = 1 + NGTCP2_MAX_CIDLEN + 4 + 16;
constexpr size_t kFrameBytes = 1 + 2;

size_t put_stream(int64_t id, uint8_t* out) { return put_varint(static_cast<uint64_t>(id) / 4, out); }
}  // namespace

void QuicConn::violation(H3Error code, Error error) {
  if (!violation_) violation_.emplace(code, std::move(error));
}

void QuicConn::on_peer_stream(int64_t id, std::span<const uint8_t> data) {
  H3UniReader& reader = peer_streams_[id];
  const bool was_control = reader.control();
  const bool had_settings = reader.settings().has_value();
  if (auto ok = reader.feed(data); !ok) return violation(reader.error_code(), ok.error());
  if (reader.control() && !was_control && std::exchange(peer_has_control_, true))
    return violation(kH3StreamCreationError, {ErrorCode::kProtocol, "a second control stream", 0});
  if (had_settings || !reader.settings() || !reader.settings()->datagrams) return;
  const auto* params = ngtcp2_conn_get_remote_transport_params(conn_);
  if (params == nullptr || params->max_datagram_frame_size == 0)
    return violation(kH3SettingsError,
                     {ErrorCode::kProtocol, "the peer's settings allow datagrams, its transport does not", 0});
  peer_datagrams_ = options_.datagrams;
}

// ---- sending ----

// How large a datagram may be whose frame begins with `prefix` bytes.
size_t QuicConn::datagram_room(size_t packet_room, size_t prefix) const {
  const auto* params = ngtcp2_conn_get_remote_transport_params(conn_);
  if (params == nullptr) return 0;
  size_t packet = std::min(packet_room, ngtcp2_conn_get_path_max_tx_udp_payload_size(conn_));
  packet -= std::min(packet, kPacketBytes);
  const auto frame = static_cast<size_t>(std::min<uint64_t>(packet, params->max_datagram_frame_size));
  return std::min(frame - std::min(frame, kFrameBytes + prefix), io::DatagramSide::kMaxBytes);
}

size_t QuicConn::max_datagram(const StreamCore& stream) const {
  // A request that has not arrived yet gives its datagrams no place to go: until it is answered they
  // are safer on the stream.
  if (!peer_datagrams_ || !control_opened_ || !stream.answered || !stream.open || closed_) return 0;
  uint8_t prefix[8];
  return datagram_room(packet_room_, put_stream(stream.id, prefix));
}

bool QuicConn::send_datagram(StreamCore& stream, std::span<const uint8_t> data) {
  if (data.size() > max_datagram(stream) || stream.error) return false;
  if (stream.datagrams == nullptr) stream.datagrams = std::make_unique<StreamDatagrams>();
  StreamDatagrams& waiting = *stream.datagrams;
  const size_t cost = DatagramQueue::cost(data.size());
  if (waiting.out.bytes() + cost > options_.datagram_limit ||
      datagrams_out_ + cost > options_.datagram_budget)
    return false;
  waiting.out.push(data);
  datagrams_out_ += cost;
  tx_bytes_ += data.size();
  if (!std::exchange(waiting.listed, true)) datagram_list_.push_back(stream.shared_from_this());
  flush_later();
  return true;
}

// While streams have something to send too, each side gets a turn of the same length.
bool QuicConn::datagrams_turn() const {
  if (datagram_size_ == 0 && datagram_list_.empty()) return false;
  if (control_id_ < 0 || control_.unsent() > 0) return false;  // our settings come first
  return turn_of_datagrams_ < kTurnBytes || turn_of_streams_ >= kTurnBytes || send_list_.empty() ||
         ngtcp2_conn_get_max_data_left(conn_) == 0;
}

// Puts the next one into datagram_, if it is not there yet. False: there is none.
bool QuicConn::next_datagram() {
  while (datagram_size_ == 0 && !datagram_list_.empty()) {
    StreamPtr stream = std::move(datagram_list_.front());
    datagram_list_.pop_front();
    StreamDatagrams& waiting = *stream->datagrams;
    const size_t prefix = put_stream(stream->id, datagram_.data());
    auto size = waiting.out.pop(std::span(datagram_).subspan(prefix));
    if (size) {
      datagrams_out_ -= DatagramQueue::cost(*size);
      // The path may have become narrower since it was taken.
      if (*size <= datagram_room(packet_room_, prefix)) {
        datagram_size_ = prefix + *size;
        datagram_prefix_ = prefix;
        datagram_of_ = stream;
      } else {
        ++waiting.lost;
      }
    }
    waiting.listed = !waiting.out.empty();
    if (waiting.listed) datagram_list_.push_back(std::move(stream));
  }
  return datagram_size_ > 0;
}

// As write_one(), of datagram_.
ngtcp2_ssize QuicConn::write_datagram(uint8_t* to, size_t room, uint64_t ts) {
  if (datagram_size_ - datagram_prefix_ > datagram_room(room, datagram_prefix_)) {
    if (datagram_of_->datagrams != nullptr) ++datagram_of_->datagrams->lost;
    datagram_size_ = 0;
    datagram_of_.reset();
    return NGTCP2_ERR_WRITE_MORE;
  }
  ngtcp2_pkt_info info{};
  ngtcp2_vec vec{datagram_.data(), datagram_size_};
  int accepted = 0;
  ngtcp2_ssize n = ngtcp2_conn_writev_datagram(conn_, nullptr, &info, to, room, &accepted,
                                               NGTCP2_WRITE_DATAGRAM_FLAG_MORE, 0, &vec, 1, ts);
  if (accepted == 0) return n;
  if (turn_of_streams_ >= kTurnBytes || turn_of_datagrams_ >= kTurnBytes)
    turn_of_streams_ = turn_of_datagrams_ = 0;
  turn_of_datagrams_ += datagram_size_;
  datagram_size_ = 0;
  datagram_of_.reset();
  return n;
}

// ---- receiving ----

void QuicConn::on_datagram(std::span<const uint8_t> frame) {
  uint64_t quarter = 0;
  const size_t n = get_varint(io::as_text(frame), &quarter);
  if (n == 0 || quarter >= uint64_t{1} << 60)
    return violation(kH3DatagramError, {ErrorCode::kProtocol, "a datagram of no stream", 0});
  // One that comes before its request, or after its stream's end, is as good as lost.
  auto it = streams_.find(static_cast<int64_t>(4 * quarter));
  if (it == streams_.end()) return;
  StreamCore& stream = *it->second;
  const auto data = frame.subspan(n);
  if (stream.user_gone || stream.error || data.size() > io::DatagramSide::kMaxBytes) return;
  if (!stream.udp) {
    if (stream.target.port == 0 && !stream.client) return;  // the request has not come
    stream.fail_with({ErrorCode::kProtocol, "a datagram on a stream of bytes", 0});
    note_dropped(stream);
    drop_stream(stream, kH3DatagramError);
    return;
  }
  if (stream.datagrams == nullptr) stream.datagrams = std::make_unique<StreamDatagrams>();
  StreamDatagrams& waiting = *stream.datagrams;
  const size_t cost = DatagramQueue::cost(data.size());
  if (waiting.in.bytes() + cost > options_.datagram_limit ||
      datagrams_in_ + cost > options_.datagram_budget) {
    ++waiting.lost;
    return;
  }
  waiting.in.push(data);
  datagrams_in_ += cost;
  rx_bytes_ += data.size();
  stream.tell_readable = true;
  stream.queue_event();
}

std::optional<size_t> QuicConn::read_datagram(StreamCore& stream, std::span<uint8_t> into) {
  if (stream.datagrams == nullptr) return std::nullopt;
  auto size = stream.datagrams->in.pop(into);
  if (size) datagrams_in_ -= DatagramQueue::cost(*size);
  return size;
}

void QuicConn::drop_datagrams(StreamCore& stream, bool received_too) {
  if (stream.datagrams == nullptr) return;
  StreamDatagrams& waiting = *stream.datagrams;
  datagrams_out_ -= waiting.out.bytes();
  waiting.out.clear();
  if (!received_too) return;
  datagrams_in_ -= waiting.in.bytes();
  waiting.in.clear();
}

// ---- QuicStream ----

size_t QuicStream::max_datagram() const {
  return core_->conn() == nullptr ? 0 : core_->conn()->max_datagram(*core_);
}

bool QuicStream::send_datagram(std::span<const uint8_t> data) {
  return core_->conn() != nullptr && core_->conn()->send_datagram(*core_, data);
}

std::optional<size_t> QuicStream::read_datagram(std::span<uint8_t> into) {
  if (core_->conn() == nullptr || (core_->client && !core_->answered)) return std::nullopt;
  return core_->conn()->read_datagram(*core_, into);
}

uint64_t QuicStream::take_lost() {
  return core_->datagrams == nullptr ? 0 : std::exchange(core_->datagrams->lost, 0);
}

}  // namespace edgemesh::p2p
