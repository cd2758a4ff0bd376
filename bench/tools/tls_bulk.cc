// TLS 1.3 over TCP, as plain as it gets: what the tunnel is measured against. One thread, blocking.
//   tls_bulk --listen ADDR:PORT [--congestion bbr]             serves one connection after the other
//   tls_bulk --to ADDR:PORT [--seconds 5] [--congestion bbr]   sends; prints one JSON object
// The receiver says every 100 ms how much it has; the rate is of received bytes, without the first
// quarter of the time (slow start counts with --all).
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <signal.h>

#include <vector>

#include "bench/tools/net_util.h"

namespace {

using namespace edgemesh::bench;

constexpr size_t kBlock = 256 * 1024;

void set_congestion(int fd, const std::string& name) {
  if (name.empty()) return;
  if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(), static_cast<socklen_t>(name.size())) != 0) {
    die("congestion control " + name);
  }
}

// A self-signed certificate: encryption is what costs here, not trust.
void use_new_certificate(SSL_CTX* ctx) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* cert = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert), 0);
  X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
  X509_set_pubkey(cert, key);
  X509_sign(cert, key, EVP_sha256());
  SSL_CTX_use_certificate(ctx, cert);
  SSL_CTX_use_PrivateKey(ctx, key);
  X509_free(cert);
  EVP_PKEY_free(key);
}

SSL_CTX* make_context(const SSL_METHOD* method) {
  SSL_CTX* ctx = SSL_CTX_new(method);
  SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
  // Tickets would make the socket readable without anything for the application in it.
  SSL_CTX_set_num_tickets(ctx, 0);
  // The cipher that the tunnel uses too.
  SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256");
  return ctx;
}

// Reads to the end and reports the running count in 8 bytes now and then.
void receive(SSL* ssl) {
  std::vector<char> buffer(kBlock);
  uint64_t count = 0;
  double reported = now_s();
  for (;;) {
    const int n = SSL_read(ssl, buffer.data(), static_cast<int>(buffer.size()));
    if (n <= 0) return;
    count += static_cast<uint64_t>(n);
    if (const double now = now_s(); now - reported >= 0.1) {
      reported = now;
      if (SSL_write(ssl, &count, sizeof count) <= 0) return;
    }
  }
}

int serve(const Address& address, const std::string& congestion) {
  const int listener = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  set_congestion(listener, congestion);
  if (bind(listener, address.get(), address.len) != 0 || listen(listener, 16) != 0) die("listen");
  SSL_CTX* ctx = make_context(TLS_server_method());
  use_new_certificate(ctx);
  std::puts("ready");
  std::fflush(stdout);
  for (;;) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    set_no_delay(fd);
    SSL* ssl = SSL_new(ctx);
    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1) receive(ssl);
    SSL_free(ssl);
    close(fd);
  }
}

// A report of the receiver, if there is one.
bool read_report(SSL* ssl, int fd, uint64_t& count) {
  pollfd p{fd, POLLIN, 0};
  if (SSL_pending(ssl) == 0 && poll(&p, 1, 0) != 1) return false;
  return SSL_read(ssl, &count, sizeof count) == static_cast<int>(sizeof count);
}

int send(const Address& address, const std::string& congestion, double seconds, bool all) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  set_congestion(fd, congestion);
  const double start = now_s();
  if (connect(fd, address.get(), address.len) != 0) die("connect");
  set_no_delay(fd);
  SSL_CTX* ctx = make_context(TLS_client_method());
  SSL* ssl = SSL_new(ctx);
  SSL_set_fd(ssl, fd);
  if (SSL_connect(ssl) != 1) die("TLS handshake");
  const double handshake_ms = (now_s() - start) * 1e3;
  const std::vector<char> block(kBlock, 'x');
  const double begin = now_s();
  const double warm = all ? begin : begin + seconds / 4;
  uint64_t first = 0, last = 0;
  double first_at = begin, last_at = begin;
  while (now_s() - begin < seconds) {
    if (SSL_write(ssl, block.data(), static_cast<int>(block.size())) <= 0) die("write");
    while (read_report(ssl, fd, last)) {
      last_at = now_s();
      if (last_at <= warm) {
        first = last;
        first_at = last_at;
      }
    }
  }
  const double mbit = last_at > first_at ? static_cast<double>(last - first) * 8e-6 / (last_at - first_at) : 0;
  std::printf("{\"mbit\": %.1f, \"handshake_ms\": %.1f}\n", mbit, handshake_ms);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  auto args = parse_args(argc, argv);
  const std::string congestion = args.contains("congestion") ? args["congestion"] : "";
  if (args.contains("listen")) return serve(Address::parse(args["listen"]), congestion);
  if (!args.contains("to")) {
    std::fprintf(stderr, "usage: tls_bulk --listen ADDR:PORT | --to ADDR:PORT [--seconds S] [--congestion NAME]\n");
    return 2;
  }
  const double seconds = args.contains("seconds") ? std::atof(args["seconds"].c_str()) : 5;
  return send(Address::parse(args["to"]), congestion, seconds, args.contains("all"));
}
