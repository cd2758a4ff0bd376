// HttpConnection: a client's connection that speaks HTTP: codec, what is known of the client, and
// the exchanges that are open on it. It owns itself: it ends with its codec, or by close().
// Threads: the worker's loop.
#pragma once

#include <memory>
#include <string>

#include "core/io/stream.h"
#include "core/tls/context.h"
#include "proxy/exchange/exchange.h"
#include "proxy/exchange/l7_worker.h"
#include "proxy/http/stream.h"

namespace edgemesh::proxy {

struct ClientInfo {
  SockAddr peer, local;  // local: where the connection was sent to, before it was captured
  std::string server_name;
  std::shared_ptr<const tls::PeerIdentity> identity;  // null: none was verified
  bool tls = false;
};

class HttpConnection final : public HttpServerConnection::Handler, public ListNode<HttpConnection> {
 public:
  // `stream` is connected. `initial`: bytes that were read from it already. `on_closed` runs once,
  // when the connection is over.
  static void start(L7Worker& worker, ChainSlotPtr slot, std::unique_ptr<io::Stream> stream,
                    ClientInfo client, bool http2, std::string_view initial, io::Task on_closed);

  void drain(Drain how = Drain::kNow) { codec_->drain(how); }
  void close();  // cuts; deletes this

  L7Worker& worker() { return worker_; }
  const ChainSlot& slot() const { return *slot_; }
  const ClientInfo& client() const { return client_; }
  const std::string& peer_text() const { return peer_text_; }  // its address without the port
  LabelSetId stats_source() const { return stats_source_; }
  // Of a rate limit that is counted for each connection; made when first asked for.
  TokenBucket* own_bucket(const RateLimiter& limiter);

 private:
  HttpConnection(L7Worker& worker, ChainSlotPtr slot, ClientInfo client, io::Task on_closed);
  ~HttpConnection() override;
  void make_codec(std::unique_ptr<io::Stream> stream, bool http2, std::string_view initial);
  void on_request(StreamPtr stream, HeadPtr head, bool end) override;
  void tell_bad_request(int status, std::string_view why);
  void on_bad_request(int status, std::string_view why) override;
  void on_h2c(std::unique_ptr<io::Stream> stream, HeadPtr first, std::string_view settings,
              std::string_view ahead) override;
  void on_closed() override;

  L7Worker& worker_;
  ChainSlotPtr slot_;
  ClientInfo client_;
  std::string peer_text_;
  LabelSetId stats_source_ = kUnknownPeer;
  io::Task on_closed_;
  std::unique_ptr<HttpServerConnection> codec_;
  List<Exchange> exchanges_;
  std::unique_ptr<TokenBucket> bucket_;
  const RateLimiter* bucket_of_ = nullptr;
  std::unique_ptr<io::Timer> max_age_;  // only where the chain limits it
};

}  // namespace edgemesh::proxy
