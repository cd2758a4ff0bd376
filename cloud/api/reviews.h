// Reviews: objects that are posted, answered and kept nowhere: who am I (SelfSubjectReview), may I
// (SelfSubjectAccessReview), what may I (SelfSubjectRulesReview), may someone else
// (SubjectAccessReview, LocalSubjectAccessReview), whose token is this (TokenReview). As `kubectl
// auth` asks. Threads: the API's loop.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "cloud/api/gate.h"

namespace edgemesh::cloud {

// As authentication.k8s.io's UserInfo.
nlohmann::json user_json(const ApiUser& user);

// What is answered to `body` in its place.
ApiResult<nlohmann::json> answer_review(const Gate& gate, const ResourceInfo& resource,
                                        std::string_view ns, const ApiUser& caller,
                                        nlohmann::json body,
                                        std::chrono::system_clock::time_point now);

}  // namespace edgemesh::cloud
