#include "bench/tools/hub_node.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace edgemesh::bench {
namespace {

constexpr double kStep = 5.0;  // of connect, TLS, answer
constexpr double kPing = 1.5, kDeadAfter = 4.4, kKeepalive = 15.0;
constexpr size_t kQueriesInFlight = 256;
constexpr size_t kFloodBytes = 256 << 10;  // waiting to be sent

// The text behind `"key":"`; messages are made by encoders that set no blanks.
std::string_view field(std::string_view text, std::string_view key, size_t from = 0) {
  const std::string lead = fmt::format("\"{}\":\"", key);
  const size_t at = text.find(lead, from);
  if (at == std::string_view::npos) return {};
  const size_t begin = at + lead.size();
  return text.substr(begin, text.find('"', begin) - begin);
}

}  // namespace

double seconds_now() {
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

SimNode::SimNode(Fleet& fleet, size_t index, std::string name, std::string certificate_der)
    : fleet_(fleet), index_(index), name_(std::move(name)), der_(std::move(certificate_der)) {}

SimNode::~SimNode() {
  drop();
}

std::string SimNode::id() {
  return fmt::format("{}-{}", name_, ++ids_);
}

void SimNode::connect() {
  if (phase_ != Phase::kDown) return;
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return fail("socket");
  const int one = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  ::setsockopt(fd_, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  sockaddr_in from{};
  from.sin_family = AF_INET;
  from.sin_addr.s_addr =
      htonl(0x7F000002U + static_cast<uint32_t>(index_ % static_cast<size_t>(fleet_.sources)));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(fleet_.port);
  ::inet_pton(AF_INET, fleet_.address.c_str(), &to.sin_addr);
  if (::bind(fd_, reinterpret_cast<sockaddr*>(&from), sizeof from) != 0) return fail("bind");
  begun_ = seconds_now();
  step_at_ = fleet_.patience;
  phase_ = Phase::kConnect;
  ++fleet_.connecting;
  if (::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0 && errno != EINPROGRESS)
    return fail("connect");
  epoll_event event{};
  event.events = watched_ = EPOLLOUT;
  event.data.ptr = this;
  ::epoll_ctl(fleet_.epoll, EPOLL_CTL_ADD, fd_, &event);
}

void SimNode::drop() {
  if (phase_ == Phase::kDown && fd_ < 0) return;
  if (phase_ == Phase::kOpen) {
    --fleet_.open;
    if (synced_) --fleet_.synced;
  } else if (phase_ != Phase::kDown) {
    --fleet_.connecting;
  }
  phase_ = Phase::kDown;
  synced_ = false;
  SSL_free(ssl_);
  ssl_ = nullptr;
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  std::string().swap(in_);
  std::string().swap(out_);
  out_at_ = 0;
  waiting_.clear();
}

void SimNode::fail(const char* what) {
  const bool was_open = phase_ == Phase::kOpen;
  ++(was_open ? fleet_.closed : fleet_.failed);
  fleet_.last_error = fmt::format("{}: {}, errno {}", name_, what, errno);
  drop();
  if (was_open && seconds_now() - opened_at_ > 60) backoff_ = 0.5;
  retry_later();
}

void SimNode::retry_later() {
  const double jitter = std::uniform_real_distribution<double>(0.5, 1.5)(fleet_.random);
  retry_at_ = seconds_now() + std::min(backoff_ * jitter, 30.0);
  backoff_ = std::min(backoff_ * 2, 30.0);
}

void SimNode::tick(double now) {
  if (phase_ == Phase::kDown) {
    if (enabled_ && now >= retry_at_) connect();
    return;
  }
  if (phase_ != Phase::kOpen) {
    if (fleet_.patience - step_at_ > kStep)
      fail(phase_ == Phase::kConnect ? "no connection"
           : phase_ == Phase::kTls   ? "no TLS"
                                     : "no answer");
    return;
  }
  if (silent_) return;
  if (fleet_.patience - step_at_ > kDeadAfter && !deaf_ && !flooding_)
    return fail("the hub was silent");
  if (now >= ping_at_) {
    ping_at_ = now + kPing;
    send_frame(9, fmt::format("{:.6f}", now));
  }
  if (phase_ == Phase::kOpen && now >= keepalive_at_) {
    keepalive_at_ = now + kKeepalive;
    send_text(fmt::format(
        R"({{"header":{{"msg_id":"{}","timestamp":0}},"route":{{"source":"websocket","group":"resource",)"
        R"("operation":"keepalive","resource":"node"}},"content":"ping"}})",
        id()));
  }
}

void SimNode::on_event(uint32_t events) {
  if (silent_) return;
  if (phase_ == Phase::kConnect) {
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      errno = error;
      return fail("connect");
    }
    phase_ = Phase::kTls;
    step_at_ = fleet_.patience;
    ssl_ = SSL_new(fleet_.tls);
    const auto* bytes = reinterpret_cast<const unsigned char*>(der_.data());
    X509* certificate = d2i_X509(nullptr, &bytes, static_cast<long>(der_.size()));
    SSL_use_certificate(ssl_, certificate);
    X509_free(certificate);
    SSL_set_fd(ssl_, fd_);
    SSL_set_connect_state(ssl_);
  }
  if (phase_ == Phase::kTls) return handshake();
  if ((events & EPOLLOUT) != 0) flush();
  if (phase_ != Phase::kDown && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !deaf_)
    read_some();
  if (phase_ == Phase::kOpen && flooding_) send_queries();
}

void SimNode::handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  if (result != 1) {
    const int reason = SSL_get_error(ssl_, result);
    if (reason != SSL_ERROR_WANT_READ && reason != SSL_ERROR_WANT_WRITE) return fail("TLS");
    return watch();
  }
  phase_ = Phase::kUpgrade;
  step_at_ = fleet_.patience;
  out_ = fmt::format(
      "GET /e632aba927ea4ac2b575ec1603d56f10/{0}/events HTTP/1.1\r\nHost: cloud\r\nConnection: "
      "Upgrade\r\n"
      "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
      "AAAAAAAAAAAAAAAAAAAAAA==\r\n"
      "node_id: {0}\r\nproject_id: e632aba927ea4ac2b575ec1603d56f10\r\nConnectionUse: msg\r\n\r\n",
      name_);
  flush();
}

void SimNode::watch() {
  if (fd_ < 0) return;
  uint32_t wanted = deaf_ ? 0U : static_cast<uint32_t>(EPOLLIN);
  if (out_at_ < out_.size() || (phase_ == Phase::kTls && SSL_want_write(ssl_))) wanted |= EPOLLOUT;
  if (silent_) wanted = 0;
  if (wanted == watched_) return;
  epoll_event event{};
  event.events = watched_ = wanted;
  event.data.ptr = this;
  ::epoll_ctl(fleet_.epoll, EPOLL_CTL_MOD, fd_, &event);
}

void SimNode::flush() {
  while (out_at_ < out_.size() && !silent_) {
    ERR_clear_error();
    const size_t n = std::min<size_t>(out_.size() - out_at_, 16384);
    const int wrote = SSL_write(ssl_, out_.data() + out_at_, static_cast<int>(n));
    if (wrote <= 0) {
      const int reason = SSL_get_error(ssl_, wrote);
      if (reason != SSL_ERROR_WANT_WRITE && reason != SSL_ERROR_WANT_READ) return fail("write");
      break;
    }
    out_at_ += static_cast<size_t>(wrote);
  }
  if (out_at_ == out_.size()) {
    std::string().swap(out_);
    out_at_ = 0;
  }
  watch();
}

void SimNode::read_some() {
  static thread_local char buffer[65536];
  for (;;) {
    ERR_clear_error();
    const int got = SSL_read(ssl_, buffer, sizeof buffer);
    if (got <= 0) {
      const int reason = SSL_get_error(ssl_, got);
      if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) break;
      return fail("the hub closed");
    }
    if (phase_ == Phase::kOpen) step_at_ = fleet_.patience;
    in_.append(buffer, static_cast<size_t>(got));
    if (phase_ == Phase::kUpgrade && !take_upgrade()) {
      if (phase_ == Phase::kDown) return;
      continue;
    }
    take_frames();
    if (phase_ == Phase::kDown) return;
  }
  if (in_.empty()) std::string().swap(in_);
  flush();
}

bool SimNode::take_upgrade() {
  const size_t end = in_.find("\r\n\r\n");
  if (end == std::string::npos) return false;
  if (!in_.starts_with("HTTP/1.1 101")) {
    fleet_.last_error = in_.substr(0, 200);
    errno = 0;
    fail(fmt::format("refused: {}", in_.substr(9, 60)).c_str());
    return false;
  }
  in_.erase(0, end + 4);
  opened();
  return phase_ == Phase::kOpen;
}

void SimNode::opened() {
  --fleet_.connecting;
  ++fleet_.open;
  phase_ = Phase::kOpen;
  const double now = opened_at_ = seconds_now();
  step_at_ = fleet_.patience;
  ping_at_ = now + kPing * std::uniform_real_distribution<double>(0.1, 1)(fleet_.random);
  keepalive_at_ = now;
  inventory();
  const std::string info = fmt::format(
      R"({{"name":"{0}","addresses":["10.{1}.{2}.{3}"],"zone":"","directPort":10010,"natKind":"easy","version":"load"}})",
      name_, index_ >> 16, (index_ >> 8) & 255, index_ & 255);
  const auto mesh = [&](const char* operation, const char* resource, std::string_view content) {
    send_text(fmt::format(
        R"({{"header":{{"msg_id":"{}","timestamp":0}},"route":{{"source":"mesh","group":"mesh",)"
        R"("operation":"{}","resource":"{}"}},"content":{}}})",
        id(), operation, resource, content));
  };
  mesh("update", "node", info);
  mesh("get", "sync", fmt::format(R"({{"resourceVersion":"{}","epoch":"{}"}})", version_, epoch_));
}

void SimNode::inventory() {
  std::string list;
  for (const auto& [resource, rest] : held_) {
    if (!list.empty()) list += ',';
    list += fmt::format(R"({{"resource":"{}",{}}})", resource, rest);
  }
  send_text(fmt::format(
      R"({{"header":{{"msg_id":"{}","timestamp":0}},"route":{{"source":"meta","group":"mesh",)"
      R"("operation":"get","resource":"objects"}},"content":{{"objects":[{}]}}}})",
      id(), list));
}

void SimNode::take_frames() {
  size_t at = 0;
  while (in_.size() - at >= 2) {
    const auto* head = reinterpret_cast<const uint8_t*>(in_.data()) + at;
    uint64_t size = head[1] & 127;
    size_t lead = 2;
    if (size == 126) {
      if (in_.size() - at < 4) break;
      size = static_cast<uint64_t>(head[2] << 8 | head[3]);
      lead = 4;
    } else if (size == 127) {
      if (in_.size() - at < 10) break;
      size = 0;
      for (int i = 2; i < 10; ++i) size = size << 8 | head[i];
      lead = 10;
    }
    if (in_.size() - at - lead < size) break;
    on_frame(head[0] & 15, std::string_view(in_).substr(at + lead, size));
    if (phase_ != Phase::kOpen) return;
    at += lead + size;
  }
  in_.erase(0, at);
}

void SimNode::on_frame(int opcode, std::string_view payload) {
  if (opcode == 1) return on_text(payload);
  if (opcode == 9) return send_frame(10, payload);
  if (opcode == 8) return fail("goodbye");
  if (opcode != 10) return;
  double sent = 0;
  const auto [end, error] = std::from_chars(payload.data(), payload.data() + payload.size(), sent);
  if (error == std::errc() && fleet_.round_trips.size() < 4'000'000)
    fleet_.round_trips.push_back(seconds_now() - sent);
}

void SimNode::on_text(std::string_view text) {
  if (!fleet_.marker.empty() && marked_text_ != fleet_.marker &&
      text.find(fleet_.marker) != std::string_view::npos) {
    marked_text_ = fleet_.marker;
    fleet_.marked.push_back(seconds_now());
  }
  const std::string_view parent = field(text, "parent_msg_id");
  const std::string_view group = field(text, "group");
  const std::string_view resource = field(text, "resource");
  if (!parent.empty()) {
    const auto found = waiting_.find(std::string(parent));
    if (found != waiting_.end()) {
      waiting_.erase(found);
      ++fleet_.answers;
      return send_queries();
    }
    if (parent.ends_with("-q")) ++fleet_.strange_answers;
  }
  if (group == "mesh") {
    if (resource == "sync/end") {
      const size_t content = text.find("\"content\":");
      epoch_ = field(text, "epoch", content);
      version_ = field(text, "resourceVersion", content);
      if (!synced_) {
        synced_ = true;
        ++fleet_.synced;
        fleet_.joins.push_back(seconds_now() - begun_);
      }
    }
    return;
  }
  if (field(text, "source") != "edgecontroller" || group != "resource") return;
  const std::string_view version = field(text, "resourceversion");
  objects_.insert(fmt::format("{}@{}", resource, version));
  if (!fleet_.confirm) return;
  ++fleet_.confirmed;
  send_text(fmt::format(
      R"({{"header":{{"msg_id":"{}","parent_msg_id":"{}","timestamp":0}},"route":{{"source":"edgecontroller",)"
      R"("group":"resource","operation":"response","resource":"{}"}},"content":"OK"}})",
      id(), field(text, "msg_id"), resource));
}

// Masked with zeros: masking costs nothing that is to be measured here.
void SimNode::send_frame(int opcode, std::string_view payload) {
  if (phase_ != Phase::kOpen || silent_) return;
  const bool idle = out_.empty();
  out_ += static_cast<char>(0x80 | opcode);
  if (payload.size() < 126) {
    out_ += static_cast<char>(0x80 | payload.size());
  } else if (payload.size() < 65536) {
    out_ += static_cast<char>(0x80 | 126);
    out_ += static_cast<char>(payload.size() >> 8);
    out_ += static_cast<char>(payload.size());
  } else {
    out_ += static_cast<char>(0x80 | 127);
    for (int shift = 56; shift >= 0; shift -= 8) out_ += static_cast<char>(payload.size() >> shift);
  }
  out_.append(4, '\0');
  out_ += payload;
  // What read_some() caused is flushed at its end, together.
  if (idle) watch();
}

void SimNode::send_queries() {
  if (phase_ != Phase::kOpen) return;
  while (flooding_ ? out_.size() - out_at_ < kFloodBytes
                   : queries_left_ > 0 && waiting_.size() < kQueriesInFlight) {
    const std::string msg_id = id() + "-q";
    if (!flooding_) {
      --queries_left_;
      ++fleet_.queries;
      waiting_.insert(msg_id);
    }
    send_text(fmt::format(
        R"({{"header":{{"msg_id":"{}","timestamp":0,"sync":true}},"route":{{"source":"edged","group":"meta",)"
        R"("operation":"query","resource":"default/node/{}"}},"content":null}})",
        msg_id, name_));
  }
  watch();
}

void SimNode::flood(bool on) {
  flooding_ = on;
  if (on) send_queries();
}

void SimNode::stop_reading(bool on) {
  deaf_ = on;
  step_at_ = fleet_.patience;
  watch();
}

void SimNode::silence(bool on) {
  silent_ = on;
  step_at_ = fleet_.patience;
  watch();
}

}  // namespace edgemesh::bench
