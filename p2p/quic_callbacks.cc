// What ngtcp2 calls. Nothing here calls back into ngtcp2's reading or writing.
#include <gnutls/crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#include "p2p/quic_aead.h"
#include "p2p/quic_impl.h"

namespace edgemesh::p2p {

thread_local bool quic_conn_is_being_made = false;

void random_fill(uint8_t* to, size_t n) { gnutls_rnd(GNUTLS_RND_RANDOM, to, n); }

struct QuicCallbacks {
  static QuicConn& self(void* user) { return *static_cast<QuicConn*>(user); }

  static int handshake_completed(ngtcp2_conn*, void* user) {
    auto& c = self(user);
    c.ready_ = true;
    return 0;
  }

  static int recv_stream_data(ngtcp2_conn* conn, uint32_t flags, int64_t id, uint64_t, const uint8_t* data,
                              size_t size, void* user, void* stream_user) {
    auto& c = self(user);
    if (!ngtcp2_is_bidi_stream(id)) {
      c.on_peer_stream(id, {data, size});
      ngtcp2_conn_extend_max_stream_offset(conn, id, size);
      ngtcp2_conn_extend_max_offset(conn, size);
      return 0;
    }
    auto* stream = static_cast<StreamCore*>(stream_user);
    if (stream == nullptr) {
      StreamPtr made = c.accept_stream(id);
      stream = made.get();
      ngtcp2_conn_set_stream_user_data(conn, id, stream);
    }
    StreamPtr keep = stream->shared_from_this();
    size_t before = stream->rx.size();
    if (!stream->error) {
      if (auto ok = stream->reader.feed({data, size}, *stream); !ok) {
        stream->fail_with(ok.error());
        c.note_dropped(*stream);
        c.drop_stream(*stream, kH3FrameUnexpected);
      }
    }
    size_t payload = stream->rx.size() - before;
    c.rx_bytes_ += payload;
    c.arrived(payload);
    c.consumed_framing(*stream, size - payload);
    if ((flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0 && !stream->error) {
      if (stream->reader.may_end()) {
        stream->rx_fin = true;
      } else {
        stream->fail_with({ErrorCode::kProtocol, "the peer's stream ended in the middle", 0});
        c.note_dropped(*stream);
        c.drop_stream(*stream, kH3MessageError);
      }
    }
    if (stream->want_readable && (payload > 0 || stream->rx_fin)) {
      stream->want_readable = false;
      stream->tell_readable = true;
      stream->queue_event();
    }
    return 0;
  }

  static int acked(ngtcp2_conn*, int64_t id, uint64_t, uint64_t n, void* user, void* stream_user) {
    auto& c = self(user);
    if (id == c.control_id_) c.control_.ack(n);
    auto* stream = static_cast<StreamCore*>(stream_user);
    if (stream == nullptr) return 0;
    stream->tx.ack(n);
    c.tell_room(*stream);
    return 0;
  }

  static int recv_datagram(ngtcp2_conn*, uint32_t, const uint8_t* data, size_t size, void* user) {
    self(user).on_datagram({data, size});
    return 0;
  }

  static int stream_open(ngtcp2_conn* conn, int64_t id, void* user) {
    if (!ngtcp2_is_bidi_stream(id)) return 0;
    StreamPtr stream = self(user).accept_stream(id);
    ngtcp2_conn_set_stream_user_data(conn, id, stream.get());
    return 0;
  }

  static int stream_close(ngtcp2_conn* conn, uint32_t flags, int64_t id, uint64_t code, void* user,
                          void*) {
    auto& c = self(user);
    if (!ngtcp2_conn_is_local_stream(conn, id)) {
      if (ngtcp2_is_bidi_stream(id))
        ngtcp2_conn_extend_max_streams_bidi(conn, 1);
      else
        ngtcp2_conn_extend_max_streams_uni(conn, 1);
      c.peer_streams_.erase(id);
    }
    auto it = c.streams_.find(id);
    if (it == c.streams_.end()) return 0;
    StreamPtr stream = it->second;
    c.streams_.erase(it);
    stream->open = false;
    stream->tx.clear();
    c.drop_datagrams(*stream, false);
    bool clean = stream->rx_fin && stream->fin_sent;
    if (!clean && !stream->error) {
      bool has_code = (flags & NGTCP2_STREAM_CLOSE_FLAG_APP_ERROR_CODE_SET) != 0;
      stream->fail_with({ErrorCode::kConnectionReset,
                         has_code ? fmt::format("the peer ended the stream (code {:#x})", code)
                                  : std::string("the peer ended the stream"),
                         0});
    }
    // What is unread counts against nobody's window any more.
    return 0;
  }

  static int stream_reset(ngtcp2_conn*, int64_t, uint64_t, uint64_t code, void* user, void* stream_user) {
    auto* stream = static_cast<StreamCore*>(stream_user);
    if (stream == nullptr) return 0;
    self(user).note_dropped(*stream);
    if (stream->rx_fin) return 0;
    stream->fail_with(
        {ErrorCode::kConnectionReset, fmt::format("the peer reset the stream (code {:#x})", code), 0});
    return 0;
  }

  static int stop_sending(ngtcp2_conn*, int64_t, uint64_t, void* user, void* stream_user) {
    auto* stream = static_cast<StreamCore*>(stream_user);
    if (stream == nullptr) return 0;
    self(user).note_dropped(*stream);
    // A refusal asks us to stop and then says why: that answer is what the user should get.
    stream->write_closed = true;
    if (stream->answered && !stream->fin_sent)
      stream->fail_with({ErrorCode::kConnectionReset, "the peer takes no more data", 0});
    return 0;
  }

  static int extend_max_stream_data(ngtcp2_conn*, int64_t, uint64_t, void* user, void* stream_user) {
    auto* stream = static_cast<StreamCore*>(stream_user);
    if (stream == nullptr) return 0;
    stream->flow_blocked = false;
    self(user).want_send(*stream);
    return 0;
  }

  static int extend_max_streams(ngtcp2_conn*, uint64_t, void* user) {
    self(user).flush_later();
    return 0;
  }

  static int new_connection_id(ngtcp2_conn*, ngtcp2_cid* cid, uint8_t* token, size_t size, void* user) {
    uint8_t data[NGTCP2_MAX_CIDLEN];
    random_fill(data, size);
    ngtcp2_cid_init(cid, data, size);
    random_fill(token, NGTCP2_STATELESS_RESET_TOKENLEN);
    self(user).ids_.push_back(*cid);
    return 0;
  }

  static int remove_connection_id(ngtcp2_conn*, const ngtcp2_cid* cid, void* user) {
    std::erase_if(self(user).ids_, [cid](const ngtcp2_cid& other) { return ngtcp2_cid_eq(cid, &other); });
    return 0;
  }

  // ngtcp2 0.12 tosses one byte, when a connection is made, whether to send with the QUIC bit cleared
  // (RFC 9287), and cannot be told not to. Cleared, packets would look like STUN to the filter on the
  // shared socket: let the toss always say no.
  static void rand(uint8_t* to, size_t n, const ngtcp2_rand_ctx*) {
    random_fill(to, n);
    if (n == 1 && quic_conn_is_being_made) to[0] = 0;
  }
};

ngtcp2_callbacks quic_callbacks(bool server) {
  ngtcp2_callbacks cb{};
  if (server) {
    cb.recv_client_initial = ngtcp2_crypto_recv_client_initial_cb;
  } else {
    cb.client_initial = ngtcp2_crypto_client_initial_cb;
    cb.recv_retry = ngtcp2_crypto_recv_retry_cb;
  }
  cb.recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb;
  use_fast_aead(cb);
  cb.hp_mask = ngtcp2_crypto_hp_mask_cb;
  cb.delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb;
  cb.get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb;
  cb.version_negotiation = ngtcp2_crypto_version_negotiation_cb;
  cb.handshake_completed = QuicCallbacks::handshake_completed;
  cb.recv_stream_data = QuicCallbacks::recv_stream_data;
  cb.acked_stream_data_offset = QuicCallbacks::acked;
  cb.stream_open = QuicCallbacks::stream_open;
  cb.stream_close = QuicCallbacks::stream_close;
  cb.stream_reset = QuicCallbacks::stream_reset;
  cb.stream_stop_sending = QuicCallbacks::stop_sending;
  cb.extend_max_stream_data = QuicCallbacks::extend_max_stream_data;
  cb.extend_max_local_streams_bidi = QuicCallbacks::extend_max_streams;
  cb.get_new_connection_id = QuicCallbacks::new_connection_id;
  cb.remove_connection_id = QuicCallbacks::remove_connection_id;
  cb.rand = QuicCallbacks::rand;
  cb.recv_datagram = QuicCallbacks::recv_datagram;
  return cb;
}

}  // namespace edgemesh::p2p
