#include "agent/edged/node/image_collector.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "kube/json_util.h"

namespace edgemesh::edged {

std::optional<ImageCollector::Usage> ImageCollector::usage_of(const std::string& path) {
  struct statvfs disk {};
  if (statvfs(path.c_str(), &disk) != 0 || disk.f_blocks == 0) return std::nullopt;
  return Usage{static_cast<int64_t>(disk.f_blocks * disk.f_frsize),
               static_cast<int64_t>(disk.f_bavail * disk.f_frsize)};
}

ImageCollector::ImageCollector(io::Loop& loop, cri::RuntimeClient& runtime, Options options)
    : loop_(loop),
      runtime_(runtime),
      options_(std::move(options)),
      timer_(loop, [this] { look(); }) {
  if (!options_.usage) options_.usage = usage_of;
}

ImageCollector::~ImageCollector() {
  *alive_ = false;
}

void ImageCollector::start() {
  timer_.start_repeating(options_.every);
}

// What the runtime makes sandboxes of, in its configuration; no container has that image.
void ImageCollector::look() {
  if (std::exchange(busy_, true)) return;
  auto round = std::make_shared<Round>();
  runtime_.status(true, [this, alive = alive_, round](Result<cri::pb::StatusResponse> status) {
    if (!*alive) return;
    if (!status) return finish();
    if (const auto it = status->info().find("config"); it != status->info().end()) {
      const auto config = nlohmann::json::parse(it->second, nullptr, false);
      round->sandbox_image = kube::text_at(config, "sandboxImage");
    }
    ask_containers(round);
  });
}

void ImageCollector::ask_containers(const RoundPtr& round) {
  runtime_.list_containers(
      {}, [this, alive = alive_, round](Result<cri::pb::ListContainersResponse> list) {
        if (!*alive) return;
        if (!list) return finish();
        for (const auto& container : list->containers()) {
          round->in_use.insert(container.image_ref());
          round->in_use.insert(container.image().image());
        }
        ask_images(round);
      });
}

void ImageCollector::ask_images(const RoundPtr& round) {
  runtime_.list_images([this, alive = alive_, round](Result<cri::pb::ListImagesResponse> list) {
    if (!*alive) return;
    if (!list) return finish();
    std::map<std::string, Known> now;
    for (const auto& image : list->images()) {
      bool used = round->in_use.contains(image.id());
      for (const auto* names : {&image.repo_tags(), &image.repo_digests()}) {
        for (const std::string& name : *names)
          used = used || name == round->sandbox_image || round->in_use.contains(name);
      }
      if (used) round->in_use.insert(image.id());
      const auto before = images_.find(image.id());
      const bool fresh = used || before == images_.end();
      now[image.id()] = {fresh ? loop_.now() : before->second.used,
                         static_cast<int64_t>(image.size())};
    }
    images_ = std::move(now);
    // Without its name nothing tells the sandboxes' image from others: none is taken.
    if (round->sandbox_image.empty()) return finish();
    ask_disk(round);
  });
}

void ImageCollector::ask_disk(const RoundPtr& round) {
  runtime_.image_fs_info([this, alive = alive_, round](Result<cri::pb::ImageFsInfoResponse> info) {
    if (!*alive) return;
    if (!info || info->image_filesystems().empty()) return finish();
    const auto usage = options_.usage(info->image_filesystems(0).fs_id().mountpoint());
    if (!usage || usage->bytes <= 0) return finish();
    const int64_t used = usage->bytes - usage->free;
    if (used < usage->bytes / 100 * options_.high_percent) return finish();
    round->too_much = used - usage->bytes / 100 * options_.low_percent;
    refused_.clear();
    remove_next(round);
  });
}

void ImageCollector::remove_next(const RoundPtr& round) {
  auto oldest = images_.end();
  for (auto it = images_.begin(); it != images_.end(); ++it) {
    if (round->in_use.contains(it->first) || refused_.contains(it->first) ||
        loop_.now() - it->second.used < options_.least_age)
      continue;
    if (oldest == images_.end() || it->second.used < oldest->second.used) oldest = it;
  }
  if (round->too_much <= 0 || oldest == images_.end()) {
    if (round->too_much > 0)
      EM_LOG(kWarn, "edged", "the images' disk is {} bytes too full, and every image is in use",
             round->too_much);
    return finish();
  }
  const std::string id = oldest->first;
  EM_LOG(kInfo, "edged", "image {} is removed: the disk is getting full", id);
  runtime_.remove_image(id, [this, alive = alive_, round, id](Result<> done) {
    if (!*alive) return;
    if (done) {
      round->too_much -= images_[id].bytes;
      images_.erase(id);
    } else {
      EM_LOG(kWarn, "edged", "image {}: {}", id, done.error().message);
      refused_.insert(id);
    }
    remove_next(round);
  });
}

}  // namespace edgemesh::edged
