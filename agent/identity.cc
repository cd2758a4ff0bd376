#include "agent/identity.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/io/fd.h"
#include "core/tls/x509.h"

namespace edgemesh::agent {

namespace {

constexpr std::string_view kNodePrefix = "system:node:";
// Both files of the new pair in one: it takes over by one rename, whatever happens in between.
constexpr const char* kNextFile = "/node.next";

Result<> write_all(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("write " + path, errno);
    content.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

Result<> sync_directory(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  io::Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno("open " + directory, errno);
  if (::fsync(fd.get()) != 0) return fail_errno("fsync " + directory, errno);
  return {};
}

Result<> write_pair(const std::string& dir, std::string_view key_pem, std::string_view cert_pem) {
  EM_TRY_VOID(write_file_atomically(dir + "/node.key", key_pem, 0600));
  return write_file_atomically(dir + "/node.crt", cert_pem, 0644);
}

// Finishes a replacement that was begun.
Result<> recover(const std::string& dir) {
  const std::string next = dir + kNextFile;
  if (::access(next.c_str(), F_OK) != 0) return {};
  EM_TRY(const std::string both, read_file(next));
  const size_t cut = both.find("-----BEGIN CERTIFICATE-----");
  if (cut != std::string::npos)
    EM_TRY_VOID(
        write_pair(dir, std::string_view(both).substr(0, cut), std::string_view(both).substr(cut)));
  if (::unlink(next.c_str()) != 0) return fail_errno("remove " + next, errno);
  return {};
}

}  // namespace

Result<> make_state_dir(const std::string& path) {
  for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST)
      return fail_errno("mkdir " + part, errno);
    if (at == std::string::npos) return {};
  }
}

Result<> write_file_atomically(const std::string& path, std::string_view content, int mode) {
  const std::string temporary = path + ".tmp";
  static_cast<void>(::unlink(temporary.c_str()));  // of a run that was killed
  io::Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                   static_cast<mode_t>(mode)));
  if (!fd.valid()) return fail_errno("create " + temporary, errno);
  EM_TRY_VOID(write_all(fd.get(), content, temporary));
  // The umask must not decide.
  if (::fchmod(fd.get(), static_cast<mode_t>(mode)) != 0)
    return fail_errno("chmod " + temporary, errno);
  if (::fsync(fd.get()) != 0) return fail_errno("fsync " + temporary, errno);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return fail_errno("rename to " + path, errno);
  return sync_directory(path);
}

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
  io::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno(path, errno);
  std::string out;
  char block[16 * 1024];
  for (;;) {
    const ssize_t n = ::read(fd.get(), block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("read " + path, errno);
    if (n == 0) return out;
    out.append(block, static_cast<size_t>(n));
    if (out.size() > max_bytes)
      return fail(ErrorCode::kInvalidArgument, "{}: larger than {} bytes", path, max_bytes);
  }
}

Result<Identity> make_identity(std::string cert_pem, std::string key_pem, std::string ca_pem) {
  EM_TRY(const tls::CertInfo info, tls::parse_cert_pem(cert_pem));
  if (!info.common_name.starts_with(kNodePrefix)) {
    return fail(ErrorCode::kInvalidArgument, "the certificate is of '{}', not of a node ({}<name>)",
                info.common_name, kNodePrefix);
  }
  if (!tls::key_matches(key_pem, cert_pem))
    return fail(ErrorCode::kInvalidArgument, "the key does not belong to the certificate");
  EM_TRY(const std::string der, tls::cert_pem_to_der(cert_pem));
  EM_TRY_VOID(tls::verify_issued_by(der, ca_pem));
  Identity out;
  out.node = info.common_name.substr(kNodePrefix.size());
  for (const std::string& uri : info.sans.uri)
    if (out.trust_domain.empty()) out.trust_domain = tls::trust_domain_of(uri);
  out.cert_pem = std::move(cert_pem);
  out.key_pem = std::move(key_pem);
  out.ca_pem = std::move(ca_pem);
  out.not_before = info.not_before;
  out.not_after = info.not_after;
  return out;
}

Result<Identity> load_identity(const std::string& state_dir) {
  const auto read = [](const std::string& path) {
    auto text = read_file(path);
    if (!text && text.error().code == ErrorCode::kPermissionDenied)
      text.error().message += ": run this as root, or as the user whose file it is";
    return text;
  };
  EM_TRY_VOID(recover(state_dir));
  const std::string cert_file = state_dir + "/node.crt";
  if (::access(cert_file.c_str(), F_OK) != 0 && errno == ENOENT) {
    return fail(ErrorCode::kNotFound,
                "this node has not joined a mesh ({} is missing): run 'edgemesh join --cloud "
                "HOST:PORT --token T'",
                cert_file);
  }
  EM_TRY(std::string cert, read(cert_file));
  EM_TRY(std::string key, read(state_dir + "/node.key"));
  EM_TRY(std::string ca, read(state_dir + "/ca.crt"));
  auto identity = make_identity(std::move(cert), std::move(key), std::move(ca));
  if (!identity) {
    return fail(identity.error().with_context(
        fmt::format("{} (join again with 'edgemesh join' to replace it)", cert_file)));
  }
  return identity;
}

Result<> save_identity(const std::string& state_dir, const Identity& identity) {
  EM_TRY_VOID(make_state_dir(state_dir));
  EM_TRY_VOID(write_file_atomically(state_dir + "/ca.crt", identity.ca_pem, 0644));
  const std::string next = state_dir + kNextFile;
  EM_TRY_VOID(write_file_atomically(next, identity.key_pem + identity.cert_pem, 0600));
  EM_TRY_VOID(write_pair(state_dir, identity.key_pem, identity.cert_pem));
  if (::unlink(next.c_str()) != 0) return fail_errno("remove " + next, errno);
  return {};
}

}  // namespace edgemesh::agent
