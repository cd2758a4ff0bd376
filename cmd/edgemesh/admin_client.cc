#include "cmd/edgemesh/admin_client.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "core/http/client.h"
#include "core/io/loop.h"

namespace edgemesh::cli {

Result<nlohmann::json> call_admin(const std::string& admin, const std::string& method,
                                  const std::string& target, Duration limit) {
  EM_TRY(auto loop, io::Loop::create());
  http::Client client(*loop, {});
  std::optional<Result<http::Response>> answer;
  http::ClientRequest request{.method = method, .url = "http://" + admin + target};
  request.timeout = limit;
  client.request(std::move(request), [&](Result<http::Response> r) { answer = std::move(r); });
  loop->run_until([&] { return answer.has_value(); }, limit + std::chrono::seconds(1));
  if (!answer)
    return fail(ErrorCode::kTimeout, "the agent at {} did not answer in time", admin);
  if (!*answer) {
    const Error& error = answer->error();
    if (error.code == ErrorCode::kConnectionRefused)
      return fail(ErrorCode::kUnavailable,
                  "no agent answers at {}; is edgemesh-agent running? (systemctl status "
                  "edgemesh-agent; --admin ADDR names another)",
                  admin);
    return fail(error.with_context(fmt::format("ask the agent at {}", admin)));
  }
  const http::Response& response = **answer;
  auto body = nlohmann::json::parse(response.body, nullptr, false);
  if (response.status != 200) {
    std::string reason = response.body;
    if (body.is_object() && body.contains("error") && body["error"].is_string()) reason = body["error"];
    return fail(response.status == 404 ? ErrorCode::kNotFound : ErrorCode::kUnavailable, "{}", reason);
  }
  if (body.is_discarded())
    return fail(ErrorCode::kProtocol, "the agent at {} answered {} with something that is not JSON",
                admin, target);
  return body;
}

}  // namespace edgemesh::cli
