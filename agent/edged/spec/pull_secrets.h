// Names of images, and logins of registries from the secrets that a pod's imagePullSecrets name.
// Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "proto/cri.pb.h"

namespace edgemesh::edged {

// "registry.example:5000" of "registry.example:5000/a/b:1"; "docker.io" of "busybox".
std::string registry_of(std::string_view image);

// With host, folder and tag, as runtimes list it: "docker.io/library/busybox:latest".
std::string full_image_name(std::string_view image);

// The logins in a secret (of type kubernetes.io/dockerconfigjson or dockercfg) that are for the
// image's registry. What cannot be read has none.
std::vector<::runtime::v1::AuthConfig> logins_in(const nlohmann::json& secret,
                                                 std::string_view image);

}  // namespace edgemesh::edged
