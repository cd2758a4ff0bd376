#include "core/io/resolver.h"

#include <ares.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <climits>
#include <map>
#include <mutex>

namespace edgemesh::io {

namespace {

constexpr size_t kHeaderBytes = 12;
constexpr size_t kOptBytes = 11;
constexpr int kEdnsPayload = 1232;
// How often c-ares looks for tries that are over, while something is in flight.
constexpr Duration kTick = std::chrono::milliseconds(20);

Error ares_error(int status) {
  switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
    case ARES_ENONAME:
      return {ErrorCode::kNotFound, "the name has no such address", 0};
    case ARES_ETIMEOUT: return {ErrorCode::kTimeout, "no DNS server answered in time", 0};
    case ARES_EBADNAME:
    case ARES_EBADQUERY:
    case ARES_EBADFAMILY:
      return {ErrorCode::kInvalidArgument, "not a valid DNS name or query", 0};
    case ARES_ECANCELLED:
    case ARES_EDESTRUCTION: return {ErrorCode::kCancelled, "the look-up was cancelled", 0};
    default:
      return {ErrorCode::kUnavailable, fmt::format("DNS servers failed: {}", ares_strerror(status)), 0};
  }
}

Result<> init_library() {
  static std::once_flag once;
  static int status = ARES_SUCCESS;
  std::call_once(once, [] { status = ares_library_init(ARES_LIB_INIT_ALL); });
  if (status != ARES_SUCCESS) return fail(ErrorCode::kInternal, "c-ares: {}", ares_strerror(status));
  return {};
}

std::string csv_of(const std::vector<SockAddr>& servers) {
  std::string csv;
  for (const SockAddr& s : servers) {
    if (!csv.empty()) csv += ',';
    csv += s.to_string();
  }
  return csv;
}

bool ends_with_opt(std::span<const uint8_t> message) {
  if (message.size() < kHeaderBytes + 5 + kOptBytes) return false;
  const uint8_t* opt = message.data() + message.size() - kOptBytes;
  return message[11] == 1 && opt[0] == 0 && opt[1] == 0 && opt[2] == 41 && opt[9] == 0 && opt[10] == 0;
}

}  // namespace

struct Resolver::Impl {
  // A socket of c-ares. Its events are edge-triggered and c-ares reads a TCP socket once a call, so
  // the read is repeated until the socket is empty.
  struct Socket : FdWatch::Handler {
    Socket(Impl& owner_, int fd_) : owner(owner_), fd(fd_) {}
    void on_fd(bool readable, bool writable) override { owner.on_socket(fd, readable, writable); }
    Impl& owner;
    int fd;
    FdWatch watch;
  };
  struct Request {
    Impl* impl;
    OnResolved on_addresses;
    OnAnswer on_answer;
  };

  Impl(Loop& l, Options o) : loop(l), options(std::move(o)), tick(l, [this] { on_tick(); }) {}
  ~Impl() {
    closed = true;
    if (channel != nullptr) ares_destroy(channel);
  }

  Result<> open();
  void on_state(int fd, bool wants_read, bool wants_write);
  void on_socket(int fd, bool readable, bool writable);
  void on_tick();
  void arm();
  Request* new_request();
  // Ends the request: by a later task when c-ares called back from within one of our methods.
  void finish_answer(Request* request, Result<std::span<const uint8_t>> result);
  void finish_addresses(Request* request, Result<std::vector<IpAddr>> result,
                        Duration ttl = Duration::zero());
  static void ares_answered(void* arg, int status, int timeouts, unsigned char* data, int size);
  static void ares_resolved(void* arg, int status, int timeouts, ares_addrinfo* info);

  Loop& loop;
  Options options;
  ares_channel channel = nullptr;
  std::map<int, std::unique_ptr<Socket>> sockets;
  Timer tick;
  size_t requests = 0;
  bool in_call = false;
  bool closed = false;
  std::weak_ptr<Impl> self;
};

Result<> Resolver::Impl::open() {
  EM_TRY_VOID(init_library());
  ares_options o{};
  o.flags = ARES_FLAG_EDNS;
  o.timeout = static_cast<int>(
      std::chrono::duration_cast<std::chrono::milliseconds>(options.timeout).count());
  o.tries = options.tries;
  o.ednspsz = kEdnsPayload;
  o.sock_state_cb_data = this;
  o.sock_state_cb = [](void* data, ares_socket_t fd, int readable, int writable) {
    static_cast<Impl*>(data)->on_state(fd, readable != 0, writable != 0);
  };
  int status = ares_init_options(&channel, &o,
                                 ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                     ARES_OPT_EDNSPSZ | ARES_OPT_SOCK_STATE_CB | ARES_OPT_NOROTATE);
  if (status != ARES_SUCCESS) return fail(ErrorCode::kInternal, "c-ares: {}", ares_strerror(status));
  if (options.mark != 0) {
    auto set_mark = [](ares_socket_t fd, int, void* data) {
      uint32_t mark = static_cast<Impl*>(data)->options.mark;
      // Without the right to set it (tests) the socket works as well.
      [[maybe_unused]] int rc = setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark);
      return 0;
    };
    ares_set_socket_configure_callback(channel, set_mark, this);
  }
  if (!options.servers.empty()) {
    status = ares_set_servers_ports_csv(channel, csv_of(options.servers).c_str());
    if (status != ARES_SUCCESS)
      return fail(ErrorCode::kInvalidArgument, "DNS servers: {}", ares_strerror(status));
    return {};
  }
  ares_addr_port_node* list = nullptr;
  if (ares_get_servers_ports(channel, &list) == ARES_SUCCESS) {
    for (auto* n = list; n != nullptr; n = n->next) {
      IpAddr ip = n->family == AF_INET6 ? IpAddr::v6(&n->addr.addr6) : IpAddr::v4(&n->addr.addr4);
      options.servers.push_back({ip, static_cast<uint16_t>(n->udp_port != 0 ? n->udp_port : 53)});
    }
    ares_free_data(list);
  }
  return {};
}

void Resolver::Impl::on_state(int fd, bool wants_read, bool wants_write) {
  if (!wants_read && !wants_write) {  // c-ares closes it next
    auto it = sockets.find(fd);
    if (it == sockets.end()) return;
    it->second->watch.stop();
    // The socket object may be the one whose event is being handled.
    if (!closed) loop.defer([gone = std::shared_ptr<Socket>(std::move(it->second))] {});
    sockets.erase(it);
    return;
  }
  auto& slot = sockets[fd];
  if (!slot) {
    slot = std::make_unique<Socket>(*this, fd);
    if (!slot->watch.start(loop, fd, slot.get())) sockets.erase(fd);  // the try ends by its timeout
    return;
  }
  // An open socket that may be written to gives no further edge.
  if (wants_write) {
    loop.defer([weak = self, fd] {
      auto impl = weak.lock();
      if (impl && !impl->closed && impl->sockets.count(fd) > 0)
        ares_process_fd(impl->channel, ARES_SOCKET_BAD, fd);
    });
  }
}

void Resolver::Impl::on_socket(int fd, bool readable, bool writable) {
  auto keep = self.lock();
  if (closed) return;
  if (writable) ares_process_fd(channel, ARES_SOCKET_BAD, fd);
  if (!readable) return;
  // FIONREAD, because a peek would take a pending error away from c-ares.
  int waiting = 0;
  auto open = [&] { return !closed && sockets.count(fd) > 0; };
  do {
    if (!open()) return;
    ares_process_fd(channel, fd, ARES_SOCKET_BAD);
  } while (open() && ioctl(fd, FIONREAD, &waiting) == 0 && waiting > 0);
  if (open() && sockets[fd]->watch.peer_ended()) ares_process_fd(channel, fd, ARES_SOCKET_BAD);
}

void Resolver::Impl::on_tick() {
  auto keep = self.lock();
  if (closed) return;
  ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
  if (!closed) arm();
}

void Resolver::Impl::arm() {
  if (requests > 0 && !tick.active()) tick.start(kTick);
}

Resolver::Impl::Request* Resolver::Impl::new_request() {
  ++requests;
  return new Request{this, nullptr, nullptr};
}

void Resolver::Impl::finish_answer(Request* request, Result<std::span<const uint8_t>> result) {
  std::unique_ptr<Request> owned(request);
  --requests;
  if (closed) return;
  if (!in_call) return owned->on_answer(std::move(result));
  std::vector<uint8_t> bytes;
  Error error;
  bool ok = result.has_value();
  if (ok)
    bytes.assign(result->begin(), result->end());
  else
    error = std::move(result).error();
  loop.defer([weak = self, ok, bytes = std::move(bytes), error = std::move(error),
              done = std::move(owned->on_answer)]() mutable {
    auto impl = weak.lock();
    if (!impl || impl->closed) return;
    if (ok)
      done(std::span<const uint8_t>(bytes));
    else
      done(fail(std::move(error)));
  });
}

void Resolver::Impl::finish_addresses(Request* request, Result<std::vector<IpAddr>> result,
                                      Duration ttl) {
  std::unique_ptr<Request> owned(request);
  --requests;
  if (closed) return;
  if (!in_call) return owned->on_addresses(std::move(result), ttl);
  loop.defer([weak = self, result = std::move(result), ttl,
              done = std::move(owned->on_addresses)]() mutable {
    auto impl = weak.lock();
    if (impl && !impl->closed) done(std::move(result), ttl);
  });
}

void Resolver::Impl::ares_answered(void* arg, int status, int, unsigned char* data, int size) {
  auto* request = static_cast<Request*>(arg);
  if (status == ARES_SUCCESS && data != nullptr && size > 0)
    request->impl->finish_answer(request,
                                 std::span<const uint8_t>(data, static_cast<size_t>(size)));
  else
    request->impl->finish_answer(request, fail(ares_error(status)));
}

void Resolver::Impl::ares_resolved(void* arg, int status, int, ares_addrinfo* info) {
  auto* request = static_cast<Request*>(arg);
  std::vector<IpAddr> found;
  int ttl = INT_MAX;
  for (auto* n = info != nullptr ? info->nodes : nullptr; n != nullptr; n = n->ai_next) {
    auto addr = SockAddr::from_sockaddr(n->ai_addr, static_cast<socklen_t>(n->ai_addrlen));
    if (addr && std::find(found.begin(), found.end(), addr->ip) == found.end())
      found.push_back(addr->ip);
    ttl = std::min(ttl, n->ai_ttl);
  }
  if (info != nullptr) ares_freeaddrinfo(info);
  if (status == ARES_SUCCESS && found.empty()) status = ARES_ENODATA;
  if (status == ARES_SUCCESS)
    request->impl->finish_addresses(request, std::move(found), std::chrono::seconds(ttl));
  else
    request->impl->finish_addresses(request, fail(ares_error(status)));
}

Resolver::Resolver(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) { impl_->self = impl_; }

Result<std::unique_ptr<Resolver>> Resolver::create(Loop& loop, Options options) {
  loop.assert_on_thread();
  auto impl = std::make_shared<Impl>(loop, std::move(options));
  EM_TRY_VOID(impl->open());
  return std::unique_ptr<Resolver>(new Resolver(std::move(impl)));
}

Resolver::~Resolver() {
  impl_->closed = true;
  impl_->tick.stop();
  for (auto& [fd, socket] : impl_->sockets) socket->watch.stop();
  // c-ares may be further up the stack: its channel goes when the turn is over.
  Loop& loop = impl_->loop;
  loop.defer([impl = std::move(impl_)] {});
}

void Resolver::resolve(const std::string& name, Family family, OnAddresses done) {
  resolve_with_ttl(name, family,
                   [done = std::move(done)](Result<std::vector<IpAddr>> result, Duration) {
                     done(std::move(result));
                   });
}

void Resolver::resolve_with_ttl(const std::string& name, Family family, OnResolved done) {
  impl_->loop.assert_on_thread();
  auto* request = impl_->new_request();
  request->on_addresses = std::move(done);
  impl_->in_call = true;
  if (auto literal = IpAddr::parse(name); literal) {
    bool fits = family == Family::kAny || literal->is_v6() == (family == Family::kV6);
    if (fits)
      impl_->finish_addresses(request, std::vector<IpAddr>{*literal});
    else
      impl_->finish_addresses(request, fail(ares_error(ARES_ENODATA)));
  } else if (impl_->requests > impl_->options.max_in_flight) {
    impl_->finish_addresses(request, fail(ErrorCode::kResourceExhausted, "too many look-ups at once"));
  } else {
    ares_addrinfo_hints hints{};
    hints.ai_family = family == Family::kV4 ? AF_INET : family == Family::kV6 ? AF_INET6 : AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    ares_getaddrinfo(impl_->channel, name.c_str(), nullptr, &hints, &Impl::ares_resolved, request);
  }
  impl_->in_call = false;
  impl_->arm();
}

void Resolver::query(std::span<const uint8_t> message, OnAnswer done) {
  impl_->loop.assert_on_thread();
  auto* request = impl_->new_request();
  request->on_answer = std::move(done);
  impl_->in_call = true;
  if (!ends_with_opt(message))
    impl_->finish_answer(request, fail(ErrorCode::kInvalidArgument, "the query has no OPT record"));
  else if (impl_->requests > impl_->options.max_in_flight)
    impl_->finish_answer(request, fail(ErrorCode::kResourceExhausted, "too many queries at once"));
  else
    ares_send(impl_->channel, message.data(), static_cast<int>(message.size()), &Impl::ares_answered,
              request);
  impl_->in_call = false;
  impl_->arm();
}

size_t Resolver::in_flight() const { return impl_->requests; }
const std::vector<SockAddr>& Resolver::servers() const { return impl_->options.servers; }

std::vector<SockAddr> parse_resolv_conf(std::string_view text) {
  constexpr std::string_view kKey = "nameserver";
  constexpr std::string_view kSpace = " \t\r";
  std::vector<SockAddr> servers;
  while (!text.empty()) {
    size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.substr(0, kKey.size()) != kKey) continue;
    line.remove_prefix(kKey.size());
    size_t begin = line.find_first_not_of(kSpace);
    if (begin == 0 || begin == std::string_view::npos) continue;
    line = line.substr(begin, line.find_first_of(kSpace, begin) - begin);
    if (auto ip = IpAddr::parse(line)) servers.push_back({*ip, 53});
  }
  return servers;
}

}  // namespace edgemesh::io
