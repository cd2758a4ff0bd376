// L4Connection: one captured (or static) connection: pick an endpoint, connect to it here or
// through the tunnel to its node, try others while none answered, then pump.
//
// Client bytes that arrive before an endpoint answered are kept (options.replay_bytes), and travel
// with the open of a tunnel. They are given to the next endpoint when one fails only if it is
// certain that the one before did not get them: what they ask for must not be done twice. So there
// is a retry after a refusal of the far agent, an open that never left, or when the client has sent
// nothing; not when a tunnel breaks or is silent after bytes left, and not once an endpoint answered.
// The objects own themselves: they delete themselves when the connection is over.
// Threads: the worker's loop.
#pragma once

#include <memory>
#include <vector>

#include "proxy/connection.h"

namespace edgemesh::proxy {

class L4Connection final : public Connection {
 public:
  // Takes a connection that was accepted. `fixed`: the listener's own service (its first port
  // counts), in place of the snapshot's; may be null.
  static void accept(WorkerContext& worker, io::Fd fd, const SockAddr& source,
                     const SockAddr& destination,
                     const std::shared_ptr<const discovery::ServiceEntry>& fixed);
  // Goes on with a connection of another worker, on the worker that has the tunnels.
  static void resume(WorkerContext& worker, Handover handover);

 private:
  L4Connection(WorkerContext& worker, const SockAddr& source, const SockAddr& destination,
               bool resumed);
  ~L4Connection() override;

  static L4Connection* make(WorkerContext& worker, io::Fd fd, const SockAddr& source,
                            const SockAddr& destination, const discovery::ServiceEntry* fixed,
                            bool resumed);
  // Starts towards the next endpoint. False: ended (or handed over).
  bool attempt();
  Result<std::unique_ptr<io::Stream>> open_upstream();
  void hand_over();
  // Passes early client bytes to the upstream as far as it takes them. False: that showed that it
  // is connected; the connection goes on, or is over.
  bool feed_upstream();
  // These may end (delete) the connection.
  void read_early();
  void established();
  void endpoint_failed(const Error& error);  // tries the next one or gives up
  void lost(const Error& error);
  bool read_early_once();
  void release_endpoint();

  void on_pump_end(EndReason reason, const Error* error) override;
  void on_client_readable_early() override;
  void on_upstream_connected() override;
  void on_upstream_failed_early(const Error& error) override;
  void on_connect_timeout() override;

  // What is only needed when a first endpoint failed.
  struct Failures {
    std::vector<const discovery::Endpoint*> endpoints;
    Error last;
  };

  // The service as it was when the connection came; port_ and endpoint_ point into it.
  std::shared_ptr<const discovery::ServiceEntry> service_;
  const discovery::Port* port_ = nullptr;
  const discovery::Endpoint* endpoint_ = nullptr;
  std::unique_ptr<Failures> failures_;
  std::unique_ptr<Buffer> early_;  // all client bytes so far, while not connected
  uint32_t early_sent_ = 0;        // of these, what the present upstream took
  uint8_t attempts_ = 0;
  bool remote_ = false;
  p2p::PathKind path_ = p2p::PathKind::kNone;
};

}  // namespace edgemesh::proxy
