#include <algorithm>
#include <random>

#include "agent/bootstrap.h"
#include "core/base/log.h"

namespace edgemesh::agent {

namespace {

// The wall clock may jump: it is looked at regularly instead of sleeping until a date.
constexpr Duration kCheckInterval = std::chrono::minutes(1);
constexpr Duration kFirstRetry = std::chrono::seconds(2);
constexpr Duration kLateRetry = std::chrono::minutes(5);
constexpr int kQuickRetries = 5;  // 2, 4, 8, 16, 32 s

}  // namespace

Renewal::Renewal(io::Loop& loop, BootstrapOptions options, std::string state_dir, Identity identity,
                 std::function<void(const Identity&)> on_renewed)
    : loop_(loop),
      options_(std::move(options)),
      state_dir_(std::move(state_dir)),
      identity_(std::move(identity)),
      on_renewed_(std::move(on_renewed)),
      timer_(loop, [this] { check(); }) {}

int64_t Renewal::wall_seconds() const {
  return std::chrono::duration_cast<std::chrono::seconds>(
             loop_.clock().wall_now().time_since_epoch())
      .count();
}

void Renewal::plan() {
  std::random_device random;
  const double share = std::uniform_real_distribution<double>(0.7, 0.9)(random);
  const auto life = static_cast<double>(identity_.not_after - identity_.not_before);
  due_ = identity_.not_before + static_cast<int64_t>(life * share);
  failures_ = 0;
}

void Renewal::start() {
  plan();
  if (identity_.expired(wall_seconds())) {
    EM_LOG(kWarn, "identity", "the certificate of node {} has run out; asking {} for a new one",
           identity_.node, options_.server.to_string());
  }
  timer_.start(Duration::zero());
}

void Renewal::kick() {
  if (failures_ > 0 && running_ == nullptr) timer_.start(Duration::zero());
}

void Renewal::check() {
  if (running_ != nullptr) return;
  if (wall_seconds() >= due_) return attempt();
  timer_.start(kCheckInterval);
}

void Renewal::attempt() {
  running_ = std::make_unique<Bootstrap>(loop_, options_);
  running_->renew(identity_, [this](Result<Identity> result) {
    // The callback may not destroy what calls it any later than now, nor keep it.
    loop_.defer([done = std::move(running_)] {});
    on_result(std::move(result));
  });
}

void Renewal::on_result(Result<Identity> result) {
  if (result) {
    if (auto saved = save_identity(state_dir_, *result); !saved) result = fail(saved.error());
  }
  if (result) {
    identity_ = std::move(*result);
    last_error_.clear();
    plan();
    EM_LOG(kInfo, "identity", "the certificate of node {} is renewed", identity_.node);
    timer_.start(kCheckInterval);
    on_renewed_(identity_);
    return;
  }
  last_error_ = result.error().message;
  const Duration wait = failures_ < kQuickRetries ? kFirstRetry * (1 << failures_) : kLateRetry;
  ++failures_;
  EM_LOG(kWarn, "identity", "renewing the certificate failed: {}; next try in {}", last_error_,
         config::format_duration(wait));
  timer_.start(wait);
}

}  // namespace edgemesh::agent
