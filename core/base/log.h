// Log facade: EM_LOG(kInfo, "hub", "connected to {}", addr). One line an event, text or JSON, to
// stderr (or a sink that a test sets). Thread-safe. Levels are changed at run time, for all
// components or for one. Error: someone must act. Never above debug on the data path.
#pragma once

#include <fmt/core.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace edgemesh::log {

enum class Level : int { kError = 0, kWarn = 1, kInfo = 2, kDebug = 3, kTrace = 4 };
enum class Format { kText, kJson };

std::string_view to_string(Level level);
std::optional<Level> parse_level(std::string_view text);

void set_level(Level level);                               // every component
void set_level(std::string_view component, Level level);   // one component
void set_format(Format format);
Level level();

// The sink gets whole lines without the newline. An empty function restores stderr.
void set_sink(std::function<void(std::string_view)> sink);

bool enabled(Level level, std::string_view component);
void write(Level level, std::string_view component, fmt::string_view format, fmt::format_args args);

template <class... Args>
void write_fmt(Level level, std::string_view component, fmt::format_string<Args...> format,
               Args&&... args) {
  write(level, component, format, fmt::make_format_args(args...));
}

}  // namespace edgemesh::log

#define EM_LOG(lvl, component, ...)                                                       \
  do {                                                                                    \
    if (::edgemesh::log::enabled(::edgemesh::log::Level::lvl, component))                 \
      ::edgemesh::log::write_fmt(::edgemesh::log::Level::lvl, component, __VA_ARGS__);    \
  } while (0)
