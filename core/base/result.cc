#include "core/base/result.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace edgemesh {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid argument";
    case ErrorCode::kNotFound: return "not found";
    case ErrorCode::kAlreadyExists: return "already exists";
    case ErrorCode::kConflict: return "conflict";
    case ErrorCode::kGone: return "gone";
    case ErrorCode::kPermissionDenied: return "permission denied";
    case ErrorCode::kUnauthenticated: return "unauthenticated";
    case ErrorCode::kTimeout: return "timeout";
    case ErrorCode::kUnavailable: return "unavailable";
    case ErrorCode::kConnectionRefused: return "connection refused";
    case ErrorCode::kConnectionReset: return "connection reset";
    case ErrorCode::kResourceExhausted: return "resource exhausted";
    case ErrorCode::kProtocol: return "protocol error";
    case ErrorCode::kCancelled: return "cancelled";
    case ErrorCode::kIo: return "i/o error";
    case ErrorCode::kInternal: return "internal error";
  }
  return "unknown";
}

Error Error::with_context(std::string_view context) const {
  return Error{code, fmt::format("{}: {}", context, message), sys};
}

namespace {
ErrorCode code_of(int err) {
  switch (err) {
    case ECONNREFUSED: return ErrorCode::kConnectionRefused;
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED: return ErrorCode::kConnectionReset;
    case ETIMEDOUT: return ErrorCode::kTimeout;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN: return ErrorCode::kUnavailable;
    case EPERM:
    case EACCES: return ErrorCode::kPermissionDenied;
    case ENOENT: return ErrorCode::kNotFound;
    case EEXIST: return ErrorCode::kAlreadyExists;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS: return ErrorCode::kResourceExhausted;
    case EINVAL: return ErrorCode::kInvalidArgument;
    default: return ErrorCode::kIo;
  }
}
}  // namespace

Error Error::from_errno(std::string_view what, int err) {
  return Error{code_of(err), fmt::format("{}: {}", what, std::strerror(err)), err};
}

void check_failed(const char* expr, const char* file, int line) {
  std::fprintf(stderr, "check failed: %s at %s:%d\n", expr, file, line);
  std::abort();
}

}  // namespace edgemesh
