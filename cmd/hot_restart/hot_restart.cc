#include "cmd/hot_restart/hot_restart.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "core/base/log.h"

extern char** environ;

namespace edgemesh::cmd {

namespace {

constexpr std::string_view kHello = "edgemesh-handover 1", kSocket = "socket ", kEnd = "end",
                           kReady = "ready", kFlow = "flow ", kDraining = "draining";
constexpr size_t kMaxMessage = 1024;
constexpr size_t kMaxSockets = 4096;
constexpr size_t kMaxFlows = 1'000'000;  // the system's limit of descriptors is less
constexpr Duration kStartLimit = std::chrono::seconds(60);

// One packet, with a descriptor when `socket` is not -1. False: the peer takes no more now, or
// `errno`.
bool send_packet(int fd, std::string_view text, int socket = -1) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (socket >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(head), &socket, sizeof socket);
  }
  ssize_t n;
  do n = sendmsg(fd, &message, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n == static_cast<ssize_t>(text.size());
}

struct Packet {
  std::string text;  // empty: the peer ended
  io::Fd socket;
};

Result<Packet> receive_packet(int fd) {
  char text[kMaxMessage];
  iovec part{text, sizeof text};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n;
  do n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0) return fail_errno("hot restart", errno);
  Packet out;
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
       head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
    // Alignment leaves room for more than the one that is wanted: the others are closed.
    for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= head->cmsg_len; at += sizeof(int)) {
      int socket = -1;
      std::memcpy(&socket, CMSG_DATA(head) + at, sizeof socket);
      io::Fd taken(socket);
      if (!out.socket.valid()) out.socket = std::move(taken);
    }
  }
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
    return fail(ErrorCode::kProtocol, "hot restart: a message that is too large");
  out.text.assign(text, static_cast<size_t>(n));
  return out;
}

Result<Packet> await_packet(int fd, std::chrono::milliseconds patience) {
  pollfd wait{fd, POLLIN, 0};
  int ready;
  do ready = poll(&wait, 1, static_cast<int>(patience.count()));
  while (ready < 0 && errno == EINTR);
  if (ready == 0)
    return fail(ErrorCode::kTimeout, "hot restart: the process before says nothing for {} ms",
                patience.count());
  EM_TRY(Packet packet, receive_packet(fd));
  if (packet.text.empty())
    return fail(ErrorCode::kUnavailable, "hot restart: the process before has ended");
  return packet;
}

std::string flow_text(const proxy::HandedFlow& flow) {
  // Of the first of an address's sockets nothing is said: versions with one alone understand it.
  return fmt::format("{}{} {} {} {}{}", kFlow, flow.listener.to_string(),
                     flow.key.client.to_string(), flow.key.destination.to_string(),
                     flow.endpoint.to_string(),
                     flow.queue == 0 ? std::string() : fmt::format(" {}", flow.queue));
}

Result<proxy::HandedFlow> parse_flow(Packet packet) {
  proxy::HandedFlow flow;
  flow.socket = std::move(packet.socket);
  std::string_view rest = std::string_view(packet.text).substr(kFlow.size());
  for (SockAddr* into : {&flow.listener, &flow.key.client, &flow.key.destination, &flow.endpoint}) {
    const size_t end = std::min(rest.find(' '), rest.size());
    EM_TRY(*into, SockAddr::parse(rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (!rest.empty()) {
    const char* end = rest.data() + rest.size();
    auto [at, error] = std::from_chars(rest.data(), end, flow.queue);
    if (error == std::errc() && at == end) rest = {};
  }
  if (!rest.empty() || !flow.socket.valid())
    return fail(ErrorCode::kProtocol, "hot restart: not understood: {}", packet.text);
  return flow;
}

}  // namespace

// ---- The successor.

Result<std::unique_ptr<Predecessor>> Predecessor::find() {
  const char* text = std::getenv(kHandoverVariable);
  if (text == nullptr) return std::unique_ptr<Predecessor>();
  const std::string value = text;
  unsetenv(kHandoverVariable);
  int fd = -1;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), fd);
  int type = 0;
  socklen_t size = sizeof type;
  if (error != std::errc() || end != value.data() + value.size() || fd < 3 ||
      getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET)
    return fail(ErrorCode::kInvalidArgument, "{}={} is no socket of a process before this one",
                kHandoverVariable, value);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return std::unique_ptr<Predecessor>(new Predecessor(io::Fd(fd)));
}

Result<> Predecessor::receive(proxy::InheritedSockets* sockets) {
  EM_TRY(const Packet hello, await_packet(fd_.get(), patience_));
  if (hello.text != kHello)
    return fail(ErrorCode::kProtocol, "hot restart: the process before speaks another version: {}",
                hello.text);
  for (size_t i = 0; i <= kMaxSockets; ++i) {
    EM_TRY(Packet packet, await_packet(fd_.get(), patience_));
    if (packet.text == kEnd) return {};
    if (!packet.text.starts_with(kSocket) || !packet.socket.valid())
      return fail(ErrorCode::kProtocol, "hot restart: not understood: {}", packet.text);
    sockets->add(packet.text.substr(kSocket.size()), std::move(packet.socket));
  }
  return fail(ErrorCode::kResourceExhausted, "hot restart: more than {} sockets", kMaxSockets);
}

Result<> Predecessor::take_over(std::vector<proxy::HandedFlow>* flows) {
  // One that has ended drops what it is told.
  static_cast<void>(send_packet(fd_.get(), kReady));
  while (flows->size() < kMaxFlows) {
    EM_TRY(Packet packet, await_packet(fd_.get(), patience_));
    if (packet.text == kDraining) return {};
    if (!packet.text.starts_with(kFlow))
      return fail(ErrorCode::kProtocol, "hot restart: not understood: {}", packet.text);
    EM_TRY(auto flow, parse_flow(std::move(packet)));
    flows->push_back(std::move(flow));
  }
  return fail(ErrorCode::kResourceExhausted, "hot restart: more than {} flows", kMaxFlows);
}

// ---- The predecessor.

HotRestart::HotRestart(io::Loop& loop, std::vector<std::string> argv, Hooks hooks)
    : loop_(loop), argv_(std::move(argv)), hooks_(std::move(hooks)), limit_(loop, [this] {
        give_up(fmt::format("the new process does not serve after {} s",
                            kStartLimit / std::chrono::seconds(1)));
      }) {}

HotRestart::~HotRestart() {
  if (attempt_ != nullptr) *attempt_ = false;
  watch_.stop();
}

void HotRestart::begin() {
  if (child_ > 0 || done_) return;
  if (auto started = start(); !started) give_up(started.error().message);
}

Result<> HotRestart::start() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return fail_errno("socketpair", errno);
  fd_ = io::Fd(pair[0]);
  const io::Fd theirs(pair[1]);
  fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
  // The number that the successor finds it by; dup2 in the child takes off its close-on-exec.
  constexpr int kTheirs = 3;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), kTheirs);
  if (theirs.get() == kTheirs) fcntl(kTheirs, F_SETFD, 0);
  std::vector<char*> argv, env;
  for (const std::string& word : argv_) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  std::string variable = fmt::format("{}={}", kHandoverVariable, kTheirs);
  for (char** entry = environ; *entry != nullptr; ++entry) env.push_back(*entry);
  env.push_back(variable.data());
  env.push_back(nullptr);
  const int error = posix_spawnp(&child_, argv[0], &actions, nullptr, argv.data(), env.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    child_ = -1;
    return fail_errno(argv_[0], error);
  }
  EM_LOG(kInfo, "proxy", "hot restart: process {} takes over when it serves", child_);
  attempt_ = std::make_shared<bool>(true);
  EM_TRY_VOID(copy_sockets());
  limit_.start(kStartLimit);
  EM_TRY_VOID(watch_.start(loop_, fd_.get(), this));
  send_some();
  return {};
}

// Copies: a reload may close the sockets before they are sent.
Result<> HotRestart::copy_sockets() {
  to_send_.clear();
  to_send_.push_back({std::string(kHello), io::Fd()});
  for (const auto& [key, socket] : hooks_.sockets()) {
    io::Fd copy(fcntl(socket, F_DUPFD_CLOEXEC, 3));
    if (!copy.valid()) return fail_errno("a listening socket", errno);
    to_send_.push_back({std::string(kSocket) + key, std::move(copy)});
  }
  to_send_.push_back({std::string(kEnd), io::Fd()});
  return {};
}

void HotRestart::send_some() {
  while (!to_send_.empty()) {
    const auto& [text, socket] = to_send_.front();
    if (!send_packet(fd_.get(), text, socket.get())) {
      watch_.watch_writable(true);
      return;  // a peer that is gone shows when it is read from
    }
    said_all_ = text == kDraining;
    to_send_.pop_front();
  }
  if (said_all_) finish();
}

void HotRestart::send_flows(std::vector<proxy::HandedFlow> flows) {
  for (proxy::HandedFlow& flow : flows) {
    std::string text = flow_text(flow);
    to_send_.push_back({std::move(text), std::move(flow.socket)});
  }
  to_send_.push_back({std::string(kDraining), io::Fd()});
  send_some();
}

void HotRestart::finish() {
  done_ = true;
  limit_.stop();
  watch_.stop();
  EM_LOG(kInfo, "proxy", "hot restart: process {} serves", child_);
  hooks_.drain();
}

void HotRestart::on_fd(bool readable, bool writable) {
  if (writable) send_some();
  if (!readable || done_) return;
  auto packet = receive_packet(fd_.get());
  if (!packet) {
    if (packet.error().sys != EAGAIN) give_up(packet.error().message);
    return;
  }
  if (packet->text.empty()) return give_up("the new process has ended; what it says is in its log");
  if (packet->text != kReady || handing_over_ || !to_send_.empty())
    return give_up("the new process is not understood");
  handing_over_ = true;
  hooks_.give_flows([this, attempt = attempt_](std::vector<proxy::HandedFlow> flows) {
    if (*attempt) send_flows(std::move(flows));
  });
}

void HotRestart::give_up(const std::string& why) {
  EM_LOG(kError, "proxy", "hot restart: {}; this process goes on", why);
  limit_.stop();
  watch_.stop();
  fd_.reset();
  to_send_.clear();
  if (attempt_ != nullptr) *attempt_ = false;
  if (std::exchange(handing_over_, false)) hooks_.take_datagrams_back();
  end_child();
}

void HotRestart::end_child() {
  if (child_ <= 0) return;
  kill(child_, SIGKILL);
  int status = 0;
  while (waitpid(child_, &status, 0) < 0 && errno == EINTR) {
  }
  child_ = -1;
}

void notify_service_manager(const std::string& text) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  sockaddr_un addr{};
  addr.sun_family = AF_UNIX;
  const size_t length = std::strlen(path);
  if (length >= sizeof addr.sun_path) return;
  std::memcpy(addr.sun_path, path, length);
  if (addr.sun_path[0] == '@') addr.sun_path[0] = '\0';
  const io::Fd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return;
  // Who did not get it waits and says so.
  static_cast<void>(sendto(fd.get(), text.data(), text.size(), MSG_NOSIGNAL,
                           reinterpret_cast<const sockaddr*>(&addr),
                           static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length)));
}

}  // namespace edgemesh::cmd
