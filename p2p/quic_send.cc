// Sending: packets are written one by one into a train of equal datagrams, so that one system call
// carries up to 64 of them (UDP_SEGMENT).
#include <algorithm>
#include <array>

#include "p2p/quic_impl.h"

namespace edgemesh::p2p {

namespace {
constexpr size_t kTrainBytes = 64 * 1024 - 1500;
constexpr size_t kTrainPackets = 64;
constexpr size_t kTurnBytes = 32 * 1024;  // what a stream sends before the next one's turn
constexpr int kTrainsATurn = 4;
constexpr size_t kTimeoutsUntilSmall = 3;
constexpr Duration kWidenMost = std::chrono::minutes(10);
constexpr Duration kBlockedPoll = std::chrono::milliseconds(20);

// Trains are built here; one a thread is enough, since they are sent before the next is begun.
uint8_t* train_buffer() {
  thread_local std::unique_ptr<uint8_t[]> buffer(new uint8_t[64 * 1024]);
  return buffer.get();
}
}  // namespace

void QuicConn::send_packets() {
  if (closed_ || conn_ == nullptr) return;
  open_waiting();
  if (!blocked_ && !leftover_.empty()) {
    std::vector<uint8_t> data;
    data.swap(leftover_);
    hand_over(data.data(), data.size(), leftover_segment_);
  }
  for (int i = 0; i < kTrainsATurn && !blocked_ && !closed_; ++i) {
    if (!send_train()) break;
    if (ngtcp2_conn_get_expiry(conn_) > now_ns()) break;  // the pacer says: later
  }
  if (closed_) return;
  arm_timer();
}

// One train. False when there was nothing (more) to send.
bool QuicConn::send_train() {
  uint8_t* const buffer = train_buffer();
  uint64_t ts = now_ns();
  size_t quantum = std::clamp<size_t>(ngtcp2_conn_get_send_quantum(conn_), 1500, kTrainBytes);
  size_t filled = 0;   // bytes in the buffer
  size_t begun = 0;    // where the train that is being built begins
  size_t segment = 0;  // its datagram size
  size_t packets = 0;
  bool more = true;
  while (filled < quantum) {
    ngtcp2_ssize n = write_one(buffer + filled, packet_room_, ts);
    if (n < 0) return false;  // the connection has failed
    if (n == 0) {
      more = false;
      break;
    }
    auto size = static_cast<size_t>(n);
    // A larger datagram (a path probe) cannot join; a smaller one can only be the last.
    if (segment != 0 && size > segment) {
      // Blocked: the probe is dropped, as a datagram may be.
      if (!hand_over(buffer + begun, filled - begun, segment)) return false;
      begun = filled;
      segment = 0;
      packets = 0;
    }
    if (segment == 0) segment = size;
    filled += size;
    ++packets;
    if (size < segment || packets == kTrainPackets) {
      if (!hand_over(buffer + begun, filled - begun, segment)) return false;
      begun = filled;
      segment = 0;
      packets = 0;
    }
  }
  if (filled > begun) hand_over(buffer + begun, filled - begun, segment);
  if (filled > 0) ngtcp2_conn_update_pkt_tx_time(conn_, ts);
  return more && !blocked_;
}

// False: the path would block; the rest waits in leftover_.
bool QuicConn::hand_over(const uint8_t* data, size_t size, size_t segment) {
  size_t taken = output_.send({data, size}, segment);
  if (taken >= size) return true;
  blocked_ = true;
  leftover_.assign(data + taken, data + size);
  leftover_segment_ = segment;
  return false;
}

// The next packet, with data of the streams whose turn it is. 0: nothing may be sent now.
ngtcp2_ssize QuicConn::write_one(uint8_t* to, size_t room, uint64_t ts) {
  while (true) {
    if (datagrams_turn() && next_datagram()) {
      ngtcp2_ssize n = write_datagram(to, room, ts);
      if (n >= 0) return n;
      if (n == NGTCP2_ERR_WRITE_MORE) continue;
      fail_write(static_cast<int>(n));
      return -1;
    }
    std::array<SendBuffer::Piece, 4> pieces;
    ngtcp2_vec vec[4];
    size_t count = 0;
    size_t offered = 0;
    int64_t id = -1;
    uint32_t flags = NGTCP2_WRITE_STREAM_FLAG_NONE;
    StreamPtr stream;
    bool control = control_id_ >= 0 && control_.unsent() > 0;
    if (control) {
      id = control_id_;
      count = control_.peek(pieces.data(), pieces.size());
    } else if (!send_list_.empty() && ngtcp2_conn_get_max_data_left(conn_) > 0) {
      stream = send_list_.front();
      id = stream->id;
      count = stream->tx.peek(pieces.data(), pieces.size());
    }
    for (size_t i = 0; i < count; ++i) {
      vec[i] = {const_cast<uint8_t*>(pieces[i].data), pieces[i].size};
      offered += pieces[i].size;
    }
    if (id >= 0) flags |= NGTCP2_WRITE_STREAM_FLAG_MORE;
    bool fin = stream != nullptr && stream->fin_wanted && offered == stream->tx.unsent();
    if (fin) flags |= NGTCP2_WRITE_STREAM_FLAG_FIN;

    ngtcp2_pkt_info info{};
    ngtcp2_ssize taken = -1;
    ngtcp2_ssize n = ngtcp2_conn_writev_stream(conn_, nullptr, &info, to, room, &taken, flags, id, vec,
                                               count, ts);
    if (taken >= 0) {
      auto sent = static_cast<size_t>(taken);
      if (control) control_.mark_sent(sent);
      if (stream != nullptr) {
        stream->tx.mark_sent(sent);
        tell_room(*stream);
        if (fin && sent == offered) stream->fin_sent = true;
        rotate_send_list(*stream, sent);
        turn_of_streams_ += sent;
      }
    }
    if (n >= 0) return n;
    switch (n) {
      case NGTCP2_ERR_WRITE_MORE:
        continue;
      case NGTCP2_ERR_STREAM_DATA_BLOCKED:
        if (stream == nullptr) return 0;
        if (ngtcp2_conn_get_max_data_left(conn_) > 0) stream->flow_blocked = true;
        if (!stream->flow_blocked) continue;  // the connection's window: the list waits
        stream->in_send_list = false;
        send_list_.pop_front();
        continue;
      case NGTCP2_ERR_STREAM_SHUT_WR:
      case NGTCP2_ERR_STREAM_NOT_FOUND:
        if (stream == nullptr) {
          control_.clear();
          continue;
        }
        stream->in_send_list = false;
        stream->tx.mark_sent(stream->tx.unsent());  // goes nowhere; freed with the stream
        send_list_.pop_front();
        continue;
      default:
        fail_write(static_cast<int>(n));
        return -1;
    }
  }
}

void QuicConn::fail_write(int rv) {
  ngtcp2_connection_close_error error;
  ngtcp2_connection_close_error_default(&error);
  ngtcp2_connection_close_error_set_transport_error_liberr(&error, rv, nullptr, 0);
  fail_connection(quic_error("tunnel", rv), &error);
}

void QuicConn::rotate_send_list(StreamCore& front, size_t sent) {
  bool done = front.tx.unsent() == 0 && (!front.fin_wanted || front.fin_sent);
  front.turn_bytes += sent;
  if (done) {
    front.in_send_list = false;
    send_list_.pop_front();
  } else if (front.turn_bytes >= kTurnBytes && send_list_.size() > 1) {
    front.turn_bytes = 0;
    send_list_.push_back(std::move(send_list_.front()));
    send_list_.pop_front();
  }
}

// How much a stream takes from its user. What is sent and not acknowledged does not count against what
// waits to be sent: after a loss it can be several times what the path holds, and the sender would run
// dry while it waits for the lost part.
size_t QuicConn::room(const StreamCore& stream) const {
  size_t unsent = stream.tx.unsent(), held = stream.tx.held();
  if (unsent >= options_.unsent_limit || held >= options_.held_limit) return 0;
  return std::min({options_.unsent_limit - unsent, options_.held_limit - held, budget_->room(held)});
}

// After less waits than before: the user goes on when half of the room is free. A stream that holds
// nothing has all the room that there is, however little: none waits for ever.
void QuicConn::tell_room(StreamCore& stream) {
  if (!stream.want_writable) return;
  if (room(stream) < std::min(options_.unsent_limit, budget_->room(0)) / 2) return;
  stream.want_writable = false;
  stream.tell_writable = true;
  stream.queue_event();
}

void QuicConn::send_close(const ngtcp2_connection_close_error& error) {
  ngtcp2_pkt_info info{};
  uint8_t* buffer = train_buffer();
  ngtcp2_ssize n = ngtcp2_conn_write_connection_close(conn_, nullptr, &info, buffer, 1500, &error, now_ns());
  if (n > 0) output_.send({buffer, static_cast<size_t>(n)}, static_cast<size_t>(n));
}

// ngtcp2 finds out how large a path's packets may be, once. When the path below is exchanged for a narrower
// one, or grows narrower, all large packets vanish and it sends them again and again: after some timeouts
// in a row, small ones are tried. An outage looks the same: full ones get another chance, rarely.
void QuicConn::watch_path_size() {
  if (packet_room_ == kSmallPacket) {
    if (loop_.now() >= widen_at_) packet_room_ = kFullPacket;
    return;
  }
  ngtcp2_conn_stat stat;
  ngtcp2_conn_get_conn_stat(conn_, &stat);
  if (stat.pto_count < kTimeoutsUntilSmall) return;
  packet_room_ = kSmallPacket;
  widen_at_ = loop_.now() + widen_after_;
  widen_after_ = std::min(2 * widen_after_, kWidenMost);
}

// The path is another: nothing is known of it.
void QuicConn::widen() {
  packet_room_ = kFullPacket;
  widen_after_ = kWidenFirst;
}

void QuicConn::arm_timer() {
  uint64_t expiry = ngtcp2_conn_get_expiry(conn_);
  if (expiry == UINT64_MAX) {
    timer_.stop();
    return;
  }
  TimePoint due{Duration(static_cast<int64_t>(expiry))};
  // While nothing can be sent, a timer that is due stays due: it must not spin.
  if (blocked_) due = std::max(due, loop_.now() + kBlockedPoll);
  timer_.start_at(due);
}

}  // namespace edgemesh::p2p
