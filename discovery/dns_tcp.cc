#include "discovery/dns_tcp.h"

#include "discovery/dns_wire.h"

namespace edgemesh::discovery::dns {

namespace {
constexpr size_t kMaxQuery = 4096;
constexpr size_t kMaxPending = 32;
constexpr size_t kMaxOut = 128 * 1024;  // reading stops above
}  // namespace

TcpServer::TcpServer(io::Loop& loop, Options options, OnQuery on_query)
    : loop_(loop), options_(options), on_query_(std::move(on_query)) {}

TcpServer::~TcpServer() {
  auto sessions = std::move(sessions_);
  for (auto& [raw, session] : sessions) session->server_ = nullptr;
}

Result<> TcpServer::listen(const SockAddr& addr) {
  io::ListenOptions options;
  options.backlog = 256;
  EM_TRY(auto listener, io::TcpListener::listen(
                            loop_, addr, [this](io::Fd fd, const SockAddr&) { on_accept(std::move(fd)); },
                            options));
  listeners_.push_back(std::move(listener));
  return {};
}

void TcpServer::on_accept(io::Fd fd) {
  if (sessions_.size() >= options_.max_connections) return;  // closed at once: the client tries later
  auto stream = io::TcpStream::adopt(loop_, std::move(fd));
  if (!stream) return;
  auto session = std::make_shared<TcpSession>(*this, std::move(*stream));
  sessions_.emplace(session.get(), session);
  session->pump();
}

void TcpServer::remove(TcpSession* session) {
  auto it = sessions_.find(session);
  if (it == sessions_.end()) return;
  loop_.defer([gone = std::move(it->second)] {});  // it may be on the stack
  sessions_.erase(it);
}

TcpSession::TcpSession(TcpServer& server, std::unique_ptr<io::Stream> stream)
    : server_(&server), stream_(std::move(stream)), idle_(server.loop_, [this] { close(); }) {
  stream_->set_handler(this);
  idle_.start(server.options_.idle_timeout);
}

void TcpSession::close() {
  if (server_ == nullptr) return;
  idle_.stop();
  std::exchange(server_, nullptr)->remove(this);
  stream_.reset();
}

bool TcpSession::may_read() const {
  return !ended_ && pending_ < kMaxPending && out_.size() - sent_ < kMaxOut;
}

void TcpSession::answer(std::span<const uint8_t> message) {
  if (server_ == nullptr) return;
  --pending_;
  uint8_t length[2];
  put16(length, static_cast<uint16_t>(message.size()));
  out_.insert(out_.end(), length, length + 2);
  out_.insert(out_.end(), message.begin(), message.end());
  if (!pumping_) pump();
}

bool TcpSession::flush() {
  while (sent_ < out_.size()) {
    auto r = stream_->write(std::span<const uint8_t>(out_).subspan(sent_));
    if (r.status == io::IoResult::kWouldBlock) break;
    if (r.status != io::IoResult::kOk) {
      close();
      return false;
    }
    sent_ += r.n;
    idle_.start(server_->options_.idle_timeout);
  }
  if (sent_ == out_.size()) {
    out_.clear();
    if (out_.capacity() > kMaxOut) out_.shrink_to_fit();
    sent_ = 0;
  }
  return true;
}

bool TcpSession::handle_messages() {
  size_t at = 0;
  while (in_.size() - at >= 2 && pending_ < kMaxPending && out_.size() - sent_ < kMaxOut) {
    size_t length = get16(&in_[at]);
    if (length < kHeaderBytes || length > kMaxQuery) {
      close();
      return false;
    }
    if (in_.size() - at < 2 + length) break;
    ++pending_;
    idle_.start(server_->options_.idle_timeout);
    server_->on_query_(std::span<const uint8_t>(in_).subspan(at + 2, length), shared_from_this());
    if (server_ == nullptr) return false;
    at += 2 + length;
  }
  in_.erase(in_.begin(), in_.begin() + static_cast<ptrdiff_t>(at));
  return true;
}

// Handles what came, sends what is ready, reads more; until nothing moves.
void TcpSession::pump() {
  if (server_ == nullptr || pumping_) return;
  auto keep = shared_from_this();
  pumping_ = true;
  for (;;) {
    if (!handle_messages() || !flush()) break;
    if (!may_read()) break;
    uint8_t buffer[kMaxQuery];
    auto r = stream_->read(buffer);
    if (r.status == io::IoResult::kWouldBlock) break;
    if (r.status == io::IoResult::kError) {
      close();
      break;
    }
    if (r.status == io::IoResult::kEof)
      ended_ = true;
    else
      in_.insert(in_.end(), buffer, buffer + r.n);
  }
  pumping_ = false;
  if (server_ == nullptr || !ended_ || pending_ > 0 || !out_.empty()) return;
  stream_->shutdown_write();
  close();
}

}  // namespace edgemesh::discovery::dns
