#include "agent/edged/images.h"

#include "core/base/log.h"

namespace edgemesh::edged {
namespace {

constexpr size_t kMaxPulls = 3;
constexpr size_t kMaxMessage = 1024;

}  // namespace

Images::Images(io::Loop& loop, cri::RuntimeClient& runtime, OnChange on_change)
    : loop_(loop), runtime_(runtime), on_change_(std::move(on_change)) {}

Images::~Images() {
  *alive_ = false;
}

ImageState Images::need(const ImageNeed& need) {
  const Key key{need.pod_uid, need.container};
  auto it = entries_.find(key);
  const bool other = it != entries_.end() && (it->second.need.image != need.image ||
                                              it->second.need.attempt != need.attempt);
  if (it == entries_.end() || other) {
    entries_[key] = Entry{.need = need};
    look(key);
    return entries_[key].state;
  }
  Entry& entry = it->second;
  if (entry.state.kind == ImageState::Kind::kFailed) {
    if (entry.state.retry_at <= loop_.now()) {
      entry.need = need;  // with the logins of now
      const ImageState shown = entry.state;
      entry.state.kind = ImageState::Kind::kBusy;
      look(key);
      return {ImageState::Kind::kBusy, shown.reason, shown.message};
    }
    if (entry.state.reason == "ErrImagePull") {
      ImageState waiting = entry.state;
      waiting.reason = "ImagePullBackOff";
      waiting.message =
          fmt::format("Back-off pulling image \"{}\": {}", need.image, entry.state.message);
      return waiting;
    }
  }
  return entry.state;
}

void Images::done(const std::string& pod_uid, const std::string& container) {
  entries_.erase({pod_uid, container});
}

void Images::forget_pod(const std::string& pod_uid) {
  for (auto it = entries_.lower_bound({pod_uid, ""});
       it != entries_.end() && it->first.first == pod_uid;)
    it = entries_.erase(it);
}

void Images::look(const Key& key) {
  const std::string image = entries_.at(key).need.image;
  runtime_.image_status(
      image, [this, alive = alive_, key, image](Result<cri::pb::ImageStatusResponse> answer) {
        if (!*alive) return;
        if (!answer) return on_status(key, image, fail(answer.error()));
        on_status(key, image, answer->has_image());
      });
}

void Images::on_status(const Key& key, const std::string& image, Result<bool> present) {
  const auto it = entries_.find(key);
  if (it == entries_.end() || it->second.need.image != image) return;
  Entry& entry = it->second;
  if (!present) {
    fail_entry(entry, "ImageInspectError", present.error().message, loop_.now() + Backoff::kFirst);
    return on_change_(key.first);
  }
  entry.present = *present;
  if (*present && entry.need.policy != PullPolicy::kAlways) {
    entry.state = {ImageState::Kind::kReady, "", ""};
    return on_change_(key.first);
  }
  if (entry.need.policy == PullPolicy::kNever) {
    fail_entry(
        entry, "ErrImageNeverPull",
        fmt::format("Container image \"{}\" is not present with pull policy of Never", image),
        loop_.now() + Backoff::kFirst);
    return on_change_(key.first);
  }
  entry.auth = 0;
  pull(key);
}

void Images::pull(const Key& key) {
  const Entry& entry = entries_.at(key);
  cri::pb::PullImageRequest request;
  request.mutable_image()->set_image(entry.need.image);
  if (entry.auth < entry.need.auths.size()) *request.mutable_auth() = entry.need.auths[entry.auth];
  const std::string id = request.SerializeAsString();
  auto [it, fresh] = pulls_.try_emplace(id);
  it->second.waiting.insert(key);
  if (!fresh) return;
  it->second.request = std::move(request);
  queue_.push_back(id);
  pump();
}

void Images::pump() {
  while (running_ < kMaxPulls && !queue_.empty()) {
    const std::string id = std::move(queue_.front());
    queue_.pop_front();
    Pull& pull = pulls_.at(id);
    // Nobody waits for it any more.
    std::erase_if(pull.waiting, [&](const Key& key) {
      const auto it = entries_.find(key);
      return it == entries_.end() || it->second.need.image != pull.request.image().image();
    });
    if (pull.waiting.empty()) {
      pulls_.erase(id);
      continue;
    }
    ++running_;
    EM_LOG(kInfo, "edged", "pulling image {}", pull.request.image().image());
    runtime_.pull_image(pull.request, [this, alive = alive_, id](Result<std::string> result) {
      if (*alive) on_pulled(id, std::move(result));
    });
  }
}

void Images::on_pulled(const std::string& id, Result<std::string> result) {
  --running_;
  auto node = pulls_.extract(id);
  pump();
  if (node.empty()) return;
  const std::string image = node.mapped().request.image().image();
  for (const Key& key : node.mapped().waiting) settle(key, image, result);
}

void Images::settle(const Key& key, const std::string& image, const Result<std::string>& result) {
  const auto it = entries_.find(key);
  if (it == entries_.end() || it->second.need.image != image) return;
  Entry& entry = it->second;
  if (result) {
    entry.state = {ImageState::Kind::kReady, "", ""};
    backoff_.forget(image);
    return on_change_(key.first);
  }
  if (entry.auth + 1 < entry.need.auths.size()) {
    ++entry.auth;
    return pull(key);
  }
  if (entry.present) {
    EM_LOG(kWarn, "edged", "image {} cannot be pulled, the one on this node is used: {}", image,
           result.error().message);
    entry.state = {ImageState::Kind::kReady, "", ""};
    return on_change_(key.first);
  }
  const TimePoint now = loop_.now();
  backoff_.next(image, now, now);
  fail_entry(entry, "ErrImagePull", result.error().message, now + backoff_.wait_of(image));
  EM_LOG(kWarn, "edged", "image {} cannot be pulled: {}", image, result.error().message);
  on_change_(key.first);
}

void Images::fail_entry(Entry& entry, std::string reason, std::string message, TimePoint retry_at) {
  if (message.size() > kMaxMessage) message.resize(kMaxMessage);
  entry.state = {ImageState::Kind::kFailed, std::move(reason), std::move(message), retry_at};
}

}  // namespace edgemesh::edged
