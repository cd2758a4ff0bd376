// Result<T>: a value or an Error. Every function that can fail returns one; nothing throws across a
// module border (C callbacks of libuv, nghttp2 and GLib cannot be unwound).
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace edgemesh {

// What a caller can act on. "Would block" is never an error.
enum class ErrorCode {
  kInvalidArgument,    // the caller's or the peer's input is wrong
  kNotFound,           // no such thing
  kAlreadyExists,      // create of what exists
  kConflict,           // optimistic lock lost
  kGone,               // history no longer held (watch too old)
  kPermissionDenied,   // known identity, not allowed
  kUnauthenticated,    // identity missing or not proven
  kTimeout,            // deadline passed
  kUnavailable,        // try later or elsewhere
  kConnectionRefused,  // the peer answered with a refusal
  kConnectionReset,    // an open connection broke
  kResourceExhausted,  // one of our limits was reached
  kProtocol,           // the peer broke the protocol
  kCancelled,          // we gave up on purpose
  kIo,                 // the operating system failed us; `sys` tells how
  kInternal,           // a bug of ours
};

std::string_view to_string(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // for a person: what failed, and what to do where that is known
  int sys = 0;          // errno, 0 when none

  // The same error, its message prefixed: "connect 10.0.0.3:80: connection refused".
  [[nodiscard]] Error with_context(std::string_view context) const;
  // Error from errno, message "<what>: <strerror>"; the code is derived from errno.
  static Error from_errno(std::string_view what, int err);
};

template <class T = void>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
  Result(tl::expected<T, Error> other) : tl::expected<T, Error>(std::move(other)) {}  // NOLINT
};

// return fail(ErrorCode::kNotFound, "no service {}", name);
template <class... Args>
tl::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...), 0});
}
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }
inline tl::unexpected<Error> fail_errno(std::string_view what, int err) {
  return tl::unexpected<Error>(Error::from_errno(what, err));
}

#define EM_CONCAT_INNER(a, b) a##b
#define EM_CONCAT(a, b) EM_CONCAT_INNER(a, b)

// EM_TRY(auto value, expression_returning_result);  returns the error from the enclosing function.
#define EM_TRY_IMPL(tmp, decl, ...)                                  \
  auto tmp = (__VA_ARGS__);                                          \
  if (!tmp) return ::edgemesh::fail(std::move(tmp).error());         \
  decl = std::move(tmp).value()
#define EM_TRY(decl, ...) EM_TRY_IMPL(EM_CONCAT(em_try_, __LINE__), decl, __VA_ARGS__)
// EM_TRY_VOID(expression);  for Result<void> or to ignore the value.
#define EM_TRY_VOID(...)                                                        \
  do {                                                                          \
    if (auto em_try_v = (__VA_ARGS__); !em_try_v)                               \
      return ::edgemesh::fail(std::move(em_try_v).error());                     \
  } while (0)

// Invariants. EM_CHECK holds in every build and ends the process: only for bugs of ours, never for
// what a peer or a file can cause.
[[noreturn]] void check_failed(const char* expr, const char* file, int line);
#define EM_CHECK(cond) \
  ((cond) ? static_cast<void>(0) : ::edgemesh::check_failed(#cond, __FILE__, __LINE__))
#ifdef NDEBUG
#define EM_ASSERT(cond) static_cast<void>(0)
#else
#define EM_ASSERT(cond) EM_CHECK(cond)
#endif

}  // namespace edgemesh
