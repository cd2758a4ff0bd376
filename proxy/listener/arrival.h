// Arrival: a connection between accept and its chain: the PROXY protocol, a look at the first bytes,
// the choice of the chain, the TLS handshake, the choice of the codec. It owns itself.
//
// At most kMaxPeek bytes are held; a client that sends none of what is waited for within the
// listener's sniff timeout is taken as raw bytes, or closed.
// Threads: the worker's loop.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/tls/tls_stream.h"
#include "proxy/exchange/http_connection.h"
#include "proxy/inspect/first_bytes.h"
#include "proxy/listener/worker_listener.h"

namespace edgemesh::proxy {

class Arrival final : public io::Stream::Handler, public ListNode<Arrival> {
 public:
  static void start(WorkerListener& listener, std::unique_ptr<io::Stream> stream,
                    const SockAddr& peer, const SockAddr& local);
  void close();  // deletes this

 private:
  static constexpr size_t kMaxPeek = kMaxClientHello + kMaxProxyHeader;
  enum class Step : uint8_t { kProxyHeader, kInspect, kHandshake, kCodec };

  Arrival(WorkerListener& listener, std::unique_ptr<io::Stream> stream, const SockAddr& peer,
          const SockAddr& local);
  ~Arrival() override = default;
  void on_connected() override;
  void on_readable() override;
  void on_writable() override {}
  void on_error(const Error& error) override;
  void on_timeout();
  void wait_for(Duration limit);  // zero: for ever

  // Each returns false when more must be read, or the arrival is over (then it is deleted).
  bool fill();
  void go_on();
  bool read_proxy_header();
  bool inspect();
  bool inspects_here() const;
  void choose_chain();
  void begin_tls();
  void after_tls();
  void choose_codec();
  void start_http(bool http2);
  void start_tcp();
  void refuse();

  WorkerListener& listener_;
  ListenerRuntimePtr runtime_;  // chosen from, while the listener may change
  std::unique_ptr<io::Stream> stream_;
  tls::TlsStream* tls_ = nullptr;  // stream_, when it is TLS
  const ChainRuntime* chain_ = nullptr;
  ClientInfo client_;
  SockAddr direct_;
  std::string buffer_;  // what was read and belongs to nobody yet
  std::vector<std::string> protocols_;
  io::Timer timer_;
  Step step_ = Step::kInspect;
  bool saw_tls_ = false;
  bool eof_ = false;
  bool timed_out_ = false;
  bool waits_for_head_ = false;
};

}  // namespace edgemesh::proxy
