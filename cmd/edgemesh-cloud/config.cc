#include "cmd/edgemesh-cloud/config.h"

#include <charconv>

#include "core/base/net_addr.h"

namespace edgemesh::cmd {
namespace {

bool is_host_name(std::string_view text) {
  if (text.empty() || text.size() > 253 || text.front() == '-' || text.front() == '.') return false;
  for (const char c : text) {
    const bool ok = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.';
    if (!ok) return false;
  }
  return true;
}

Result<> check_cidrs(const std::vector<std::string>& cidrs) {
  for (const std::string& text : cidrs) {
    if (auto cidr = Cidr::parse(text); !cidr) {
      return fail(ErrorCode::kInvalidArgument,
                  "mesh.service_cidrs: '{}' is not allowed (want a block as 10.96.0.0/12)", text);
    }
  }
  return {};
}

}  // namespace

Result<std::pair<std::string, uint16_t>> split_host_port(const std::string& text, uint16_t port) {
  if (const auto addr = SockAddr::parse(text)) return std::pair(addr->ip.to_string(), addr->port);
  if (const auto ip = IpAddr::parse(text)) return std::pair(ip->to_string(), port);
  const size_t colon = text.rfind(':');
  const std::string host = text.substr(0, colon);
  if (colon != std::string::npos) {
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + colon + 1, end, port);
    if (error != std::errc() || rest != end || port == 0) port = 0;
  }
  if (!is_host_name(host) || port == 0) {
    return fail(ErrorCode::kInvalidArgument, "'{}' is not allowed (want HOST:PORT)", text);
  }
  return std::pair(host, port);
}

Result<std::chrono::seconds> parse_lifetime(const std::string& text, const char* what) {
  int64_t total = 0;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    int64_t number = -1;
    const auto [rest, error] = std::from_chars(at, end, number);
    const char unit = error == std::errc() && rest != end ? *rest : '?';
    const int64_t factor = unit == 's' ? 1 : unit == 'm' ? 60 : unit == 'h' ? 3600 : unit == 'd' ? 86400 : 0;
    if (number < 0 || number > 1'000'000 || factor == 0) {
      return fail(ErrorCode::kInvalidArgument, "{}: '{}' is not allowed (want 30m, 24h or 7d)", what,
                  text);
    }
    total += number * factor;
    at = rest + 1;
  }
  if (total < 60) {
    return fail(ErrorCode::kInvalidArgument, "{}: '{}' is not allowed (want 1m or more)", what, text);
  }
  return std::chrono::seconds(total);
}

Result<> validate(const CloudConfig& config) {
  if (config.state_dir.empty()) {
    return fail(ErrorCode::kInvalidArgument, "state_dir: '' is not allowed (want a directory)");
  }
  for (const std::string& name : config.advertise) {
    if (!IpAddr::parse(name) && !is_host_name(name)) {
      return fail(ErrorCode::kInvalidArgument,
                  "advertise: '{}' is not allowed (want an address or a host name)", name);
    }
  }
  EM_TRY_VOID(check_cidrs(config.service_cidrs));
  for (const std::string& server : config.stun) {
    if (auto ok = split_host_port(server, 3478); !ok) {
      return fail(ok.error().with_context("mesh.stun"));
    }
  }
  if (config.turn_server.empty() != config.turn_secret_file.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "a TURN server needs both its address (--turn, mesh.turn.server) and its secret "
                "(--turn-secret-file, mesh.turn.secret_file)");
  }
  if (!config.turn_server.empty()) {
    if (auto ok = split_host_port(config.turn_server, 3478); !ok) {
      return fail(ok.error().with_context("mesh.turn.server"));
    }
  }
  return {};
}

}  // namespace edgemesh::cmd
