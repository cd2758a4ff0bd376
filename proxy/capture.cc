#include "proxy/capture.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "core/base/log.h"
#include "proxy/capture_watch.h"
#include "proxy/host_network.h"

namespace edgemesh::proxy {

namespace {

constexpr Duration kTick = std::chrono::seconds(2);
constexpr Duration kFullCheck = std::chrono::seconds(30);
constexpr Duration kSettle = std::chrono::milliseconds(100);  // other programs write in bursts

IpAddr default_dns_address() {
  return IpAddr::v4((169u << 24) | (254u << 16) | (96u << 8) | 16u);
}

bool has_family(const CaptureConfig& config, bool v6) {
  return std::any_of(config.service_cidrs.begin(), config.service_cidrs.end(),
                     [v6](const Cidr& c) { return c.base.is_v6() == v6; });
}

Result<> check_config(const CaptureConfig& config) {
  for (const Cidr& cidr : config.service_cidrs)
    if (cidr.bits < kMinServiceCidrBits)
      return fail(ErrorCode::kInvalidArgument,
                  "service CIDR {} is too wide to be captured (want /{} or longer)",
                  cidr.to_string(), kMinServiceCidrBits);
  return {};
}

bool sysctl_is(const std::string& path, char wanted) {
  io::Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char value = 0;
  return fd.valid() && read(fd.get(), &value, 1) == 1 && value == wanted;
}

// What tools say may have several lines.
std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

void warn_about_settings(CaptureMode mode) {
  if (mode != CaptureMode::kTproxy) return;
  if (sysctl_is("/proc/sys/net/ipv4/conf/all/src_valid_mark", '1'))
    EM_LOG(
        kWarn, "capture",
        "net.ipv4.conf.all.src_valid_mark is 1: connections of pods to services may be dropped by "
        "reverse path filtering; set it to 0, or net.ipv4.conf.*.rp_filter to 0");
  // The last packet of such a handshake belongs to no socket, and only first packets go to the
  // listener.
  if (sysctl_is("/proc/sys/net/ipv4/tcp_syncookies", '2'))
    EM_LOG(
        kWarn, "capture",
        "net.ipv4.tcp_syncookies is 2 (always): captured connections would be reset; set it to 1");
}

}  // namespace

struct CheckResult {
  Result<bool> changed = false;
  bool new_cidrs = false;  // what changed was asked for
};

// What the check on the pool needs; it may outlive the Capture for the length of one check.
struct CheckState {
  CheckState(io::Executor& executor, CaptureConfig c) : network(executor), config(std::move(c)) {}

  std::mutex mutex;  // guards everything below; the loop's thread takes it at the beginning and the
                     // end alone
  HostNetwork network;
  CaptureConfig config;
  CaptureMode mode = CaptureMode::kTproxy;
  bool closed = false;

  // Other programs (Docker, kubeadm) switch it on at any time. Nothing has to be there for it.
  void look_at_bridges() {
    const bool before = config.bridged_v4 || config.bridged_v6;
    // Their rules cost IPv6 datagrams of the largest size: none where they serve nobody.
    const bool there = config.has_bridge ? config.has_bridge() : host_has_bridge();
    auto is_on = [&](const char* name) {
      return there && sysctl_is(config.bridge_settings + name, '1');
    };
    config.bridged_v4 = is_on("/bridge-nf-call-iptables");
    config.bridged_v6 = is_on("/bridge-nf-call-ip6tables");
    if (before || mode != CaptureMode::kTproxy || !(config.bridged_v4 || config.bridged_v6)) return;
    EM_LOG(kWarn, "capture",
           "net.bridge.bridge-nf-call-iptables is 1: UDP of pods on bridges to services is not "
           "captured, TCP is by REDIRECT; set it to 0 where nothing else needs it");
  }

  // With the mutex held.
  Result<bool> ensure_all() {
    look_at_bridges();
    EM_TRY(bool changed, network.ensure_dns_addresses(config));
    for (bool v6 : {false, true}) {
      if (!has_family(config, v6)) continue;
      // Routing first: marked packets without their route would leave the host.
      EM_TRY(bool routing, network.ensure_routing(config, mode, v6));
      EM_TRY(bool rules, network.ensure_rules(config, mode, v6));
      changed = changed || routing || rules;
    }
    return changed;
  }

  // The service CIDRs are these from now on; true when they were others. What is no longer wanted
  // goes out, the rest is for ensure_all(). An error leaves the old ones, so that the next try
  // begins anew.
  Result<bool> take_cidrs(const std::vector<Cidr>& cidrs) {
    if (config.service_cidrs == cidrs) return false;
    CaptureConfig next = config;
    next.service_cidrs = cidrs;
    for (bool v6 : {false, true}) {
      if (!has_family(config, v6)) continue;
      // Routing rules name the old CIDRs; what is still wanted is written again.
      network.remove_routing(config, v6);
      if (!has_family(next, v6)) EM_TRY_VOID(network.remove_rules(v6));
    }
    config = std::move(next);
    return true;
  }

  CheckResult check(const std::vector<Cidr>& cidrs);

  void remove_all() {
    for (bool v6 : {false, true}) {
      if (!has_family(config, v6)) continue;
      if (auto removed = network.remove_rules(v6); !removed)
        EM_LOG(kError, "capture", "rules could not be removed: {}", removed.error().message);
      network.remove_routing(config, v6);
    }
    network.remove_dns_addresses(config);
  }
};

CheckResult CheckState::check(const std::vector<Cidr>& cidrs) {
  CheckResult out;
  auto taken = take_cidrs(cidrs);
  if (taken) out.new_cidrs = *taken;
  out.changed = taken ? ensure_all() : std::move(taken);
  return out;
}

struct Capture::Impl {
  Impl(io::Loop& l, io::Executor& executor, CaptureConfig config)
      : loop(l),
        wanted(config.service_cidrs),
        state(std::make_shared<CheckState>(executor, std::move(config))),
        tick(l, [this] { on_tick(); }),
        settle(l, [this] { check_in_background(); }) {}

  Result<> install();
  void start_watching();
  void on_tick();
  void check_in_background();
  void finished(const CheckResult& result);

  io::Loop& loop;
  std::vector<Cidr> wanted;
  CaptureMode mode = CaptureMode::kTproxy;
  std::string udp_missing;    // why
  bool silent_tools = false;  // they write what the kernel does not tell of
  std::shared_ptr<CheckState> state;
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);
  std::unique_ptr<CaptureWatch> watch;
  io::Timer tick;
  io::Timer settle;
  TimePoint last_check{};
  bool checking = false;
  bool again = false;  // something changed while a check ran
  bool failed = false;
  bool leave = false;
  uint64_t repairs = 0;
  std::string last_error;
};

Result<> Capture::Impl::install() {
  std::lock_guard lock(state->mutex);
  EM_TRY_VOID(check_config(state->config));
  EM_TRY_VOID(state->network.check_tools(has_family(state->config, false),
                                         has_family(state->config, true)));
  CaptureMode asked = state->config.mode;
  state->mode = asked == CaptureMode::kRedirect ? CaptureMode::kRedirect : CaptureMode::kTproxy;
  auto done = state->ensure_all();
  if (!done && asked == CaptureMode::kAuto && done.error().code == ErrorCode::kIo) {
    udp_missing = "TPROXY cannot be used: " + one_line(done.error().message);
    state->remove_all();
    state->mode = CaptureMode::kRedirect;
    done = state->ensure_all();
  }
  if (!done) {
    state->remove_all();
    return fail(done.error());
  }
  mode = state->mode;
  for (bool v6 : {false, true}) {
    if (has_family(state->config, v6) && !state->network.tells_of_changes(v6)) silent_tools = true;
  }
  if (asked == CaptureMode::kRedirect)
    udp_missing = "capture.mode is redirect, which does not tell where a datagram was sent to";
  if (!udp_missing.empty())
    EM_LOG(kWarn, "capture", "UDP to services is not captured, TCP is by REDIRECT: {}",
           udp_missing);
  warn_about_settings(state->mode);
  EM_LOG(kInfo, "capture", "{}: capturing by {}", *done ? "rules written" : "rules were in place",
         to_string(state->mode));
  return {};
}

void Capture::Impl::start_watching() {
  watch = CaptureWatch::start(loop, [this] {
    if (!settle.active()) settle.start(kSettle);
  });
  if (!watch->sees_rules() || silent_tools)
    EM_LOG(kInfo, "capture", "no netfilter events here{}: the rules are checked every 2 s",
           silent_tools ? " (iptables is the legacy one)" : "");
  last_check = loop.now();
  tick.start_repeating(kTick);
}

void Capture::Impl::on_tick() {
  const bool look = !watch->sees_rules() || silent_tools || failed;
  if (look || loop.now() - last_check >= kFullCheck) check_in_background();
}

void Capture::Impl::check_in_background() {
  if (checking) {
    again = true;
    return;
  }
  checking = true;
  last_check = loop.now();
  auto result = std::make_shared<CheckResult>();
  loop.offload(
      [state = state, cidrs = wanted, result] {
        std::lock_guard lock(state->mutex);
        if (state->closed) return;
        *result = state->check(cidrs);
      },
      [this, alive = alive, result] {
        if (*alive) finished(*result);
      });
}

void Capture::Impl::finished(const CheckResult& result) {
  checking = false;
  failed = !result.changed;
  if (failed) {
    const std::string& said = result.changed.error().message;
    if (last_error != said) EM_LOG(kError, "capture", "rules could not be checked: {}", said);
    last_error = said;
  } else {
    last_error.clear();
    if (result.new_cidrs) {
      EM_LOG(kInfo, "capture", "capturing {} blocks of service addresses now", wanted.size());
    } else if (*result.changed) {
      ++repairs;
      EM_LOG(kWarn, "capture", "another program had changed the rules or routes; repaired");
    }
  }
  if (std::exchange(again, false) && !settle.active()) settle.start(kSettle);
}

Capture::Capture(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Capture>> Capture::install(io::Loop& loop, io::Executor& executor,
                                                  CaptureConfig config) {
  auto impl = std::make_unique<Impl>(loop, executor, std::move(config));
  EM_TRY_VOID(impl->install());
  impl->start_watching();
  return std::unique_ptr<Capture>(new Capture(std::move(impl)));
}

Capture::~Capture() {
  *impl_->alive = false;
  std::lock_guard lock(impl_->state->mutex);
  impl_->state->closed = true;
  if (!impl_->leave) impl_->state->remove_all();
}

CaptureMode Capture::mode() const {
  return impl_->mode;
}

std::string Capture::udp_missing() const {
  return impl_->udp_missing;
}

Result<> Capture::update(std::vector<Cidr> service_cidrs) {
  if (impl_->wanted == service_cidrs) return {};
  CaptureConfig next;
  next.service_cidrs = std::move(service_cidrs);
  EM_TRY_VOID(check_config(next));
  impl_->wanted = std::move(next.service_cidrs);
  impl_->check_in_background();
  return {};
}

Result<bool> Capture::verify() {
  CheckResult result;
  {
    std::lock_guard lock(impl_->state->mutex);
    result = impl_->state->check(impl_->wanted);
  }
  const bool was_checking = impl_->checking;
  impl_->finished(result);
  impl_->checking = was_checking;
  return result.changed;
}

uint64_t Capture::repairs() const {
  return impl_->repairs;
}
std::string Capture::last_error() const {
  return impl_->last_error;
}
void Capture::leave() {
  impl_->leave = true;
}

Result<> Capture::remove_all(io::Executor& executor, const CaptureConfig& config) {
  HostNetwork network(executor);
  Result<> first{};
  for (bool v6 : {false, true}) {
    if (auto removed = network.remove_rules(v6); !removed && first) first = removed;
    network.remove_routing(config, v6);
  }
  CaptureConfig with_address = config;
  if (with_address.dns_addresses.empty()) with_address.dns_addresses = {default_dns_address()};
  network.remove_dns_addresses(with_address);
  return first;
}

}  // namespace edgemesh::proxy
