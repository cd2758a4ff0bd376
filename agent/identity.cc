#include "agent/identity.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <functional>

#include "core/io/fd.h"
#include "core/tls/x509.h"

namespace edgemesh::agent {

namespace {
constexpr std::string_view kNodePrefix = "system:node:";
}

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
  io::Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno(path, errno);
  std::string out;
  char buffer[16384];
  for (;;) {
    ssize_t n = read(fd.get(), buffer, sizeof buffer);
    if (n < 0) return fail_errno(path, errno);
    if (n == 0) return out;
    out.append(buffer, static_cast<size_t>(n));
    if (out.size() > max_bytes)
      return fail(ErrorCode::kResourceExhausted, "{}: larger than {} bytes", path, max_bytes);
  }
}

Result<> write_file(const std::string& path, std::string_view content, int mode) {
  std::error_code ec;
  auto folder = std::filesystem::path(path).parent_path();
  if (!folder.empty() && std::filesystem::create_directories(folder, ec))
    std::filesystem::permissions(folder, std::filesystem::perms::owner_all, ec);
  std::string temporary = path + ".new";
  io::Fd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!fd.valid()) return fail_errno(temporary, errno);
  if (fchmod(fd.get(), static_cast<mode_t>(mode)) != 0) return fail_errno(temporary, errno);
  while (!content.empty()) {
    ssize_t n = write(fd.get(), content.data(), content.size());
    if (n < 0) return fail_errno(temporary, errno);
    content.remove_prefix(static_cast<size_t>(n));
  }
  if (fsync(fd.get()) != 0) return fail_errno(temporary, errno);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) return fail_errno(path, errno);
  return {};
}

Result<Identity> load_identity(const std::string& state_dir) {
  Identity out;
  auto cert = read_file(state_dir + "/node.crt");
  if (!cert) {
    if (cert.error().code == ErrorCode::kNotFound)
      return fail(ErrorCode::kNotFound,
                  "this node has not joined ({}/node.crt is missing); run: edgemesh join --cloud "
                  "HOST:10002 --token TOKEN",
                  state_dir);
    return fail(cert.error());
  }
  out.cert_pem = *cert;
  EM_TRY(out.key_pem, read_file(state_dir + "/node.key"));
  EM_TRY(out.ca_pem, read_file(state_dir + "/ca.crt"));
  auto info = tls::parse_cert_pem(out.cert_pem);
  if (!info) return fail(info.error().with_context(state_dir + "/node.crt"));
  if (!info->common_name.starts_with(kNodePrefix))
    return fail(ErrorCode::kInvalidArgument, "{}/node.crt is not a node's certificate (CN '{}'); join again",
                state_dir, info->common_name);
  if (!tls::key_matches(out.key_pem, out.cert_pem))
    return fail(ErrorCode::kInvalidArgument, "{}: node.key does not belong to node.crt; join again", state_dir);
  out.node = info->common_name.substr(kNodePrefix.size());
  out.not_before = info->not_before;
  out.not_after = info->not_after;
  return out;
}

Result<> save_identity(const std::string& state_dir, const Identity& identity) {
  EM_TRY_VOID(write_file(state_dir + "/ca.crt", identity.ca_pem, 0644));
  EM_TRY_VOID(write_file(state_dir + "/node.key", identity.key_pem, 0600));
  return write_file(state_dir + "/node.crt", identity.cert_pem, 0644);
}

int64_t renewal_time(const Identity& identity) {
  int64_t life = identity.not_after - identity.not_before;
  auto spread = static_cast<int64_t>(std::hash<std::string>()(identity.cert_pem) % 1000);
  return identity.not_before + life * (7000 + 2 * spread) / 10000;
}

}  // namespace edgemesh::agent
