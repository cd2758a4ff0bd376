#include "core/base/log.h"

#include <fmt/chrono.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>

#include "core/base/log_output.h"

namespace edgemesh::log {

namespace {

struct State {
  std::mutex sink_mutex;  // guards the sink, and is held while it runs
  std::function<void(std::string_view)> sink;
  std::mutex mutex;  // guards the levels; never held while a line is written
  std::map<std::string, Level, std::less<>> components;
};

State& state() {
  static auto* s = new State;  // never destroyed: threads may log until the end
  return *s;
}

std::atomic<int> g_level{static_cast<int>(Level::kInfo)};
std::atomic<bool> g_has_components{false};
std::atomic<bool> g_has_sink{false};
std::atomic<Format> g_format{Format::kText};

void append_json_string(std::string& out, std::string_view text) {
  out.push_back('"');
  for (char c : text) {
    auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (u < 0x20) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", u);
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
}

std::string timestamp() {
  auto now = std::chrono::system_clock::now();
  auto us = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}Z", fmt::gmtime(static_cast<std::time_t>(us / 1000000)),
                     us % 1000000);
}

}  // namespace

std::string_view to_string(Level level) {
  switch (level) {
    case Level::kError: return "error";
    case Level::kWarn: return "warn";
    case Level::kInfo: return "info";
    case Level::kDebug: return "debug";
    case Level::kTrace: return "trace";
  }
  return "?";
}

std::optional<Level> parse_level(std::string_view text) {
  for (auto level : {Level::kError, Level::kWarn, Level::kInfo, Level::kDebug, Level::kTrace})
    if (text == to_string(level)) return level;
  return std::nullopt;
}

void set_level(Level level) {
  std::lock_guard lock(state().mutex);
  state().components.clear();
  g_has_components = false;
  g_level = static_cast<int>(level);
}

void set_level(std::string_view component, Level level) {
  std::lock_guard lock(state().mutex);
  state().components[std::string(component)] = level;
  g_has_components = true;
}

void set_format(Format format) { g_format = format; }
Level level() { return static_cast<Level>(g_level.load()); }

void set_sink(std::function<void(std::string_view)> sink) {
  std::lock_guard lock(state().sink_mutex);
  g_has_sink = sink != nullptr;
  state().sink = std::move(sink);
}


bool enabled(Level level, std::string_view component) {
  if (g_has_components.load(std::memory_order_relaxed)) {
    std::lock_guard lock(state().mutex);
    auto it = state().components.find(component);
    if (it != state().components.end()) return level <= it->second;
  }
  return static_cast<int>(level) <= g_level.load(std::memory_order_relaxed);
}

void write(Level level, std::string_view component, fmt::string_view format, fmt::format_args args) {
  std::string message = fmt::vformat(format, args);
  std::string line;
  if (g_format.load() == Format::kJson) {
    line = fmt::format(R"({{"ts":"{}","level":"{}","component":"{}","msg":)", timestamp(),
                       to_string(level), component);
    append_json_string(line, message);
    line.push_back('}');
  } else {
    // A peer's text must not be able to start a line of its own.
    for (char& c : message)
      if (c == '\n' || c == '\r') c = ' ';
    line = fmt::format("{} {:5} {}: {}", timestamp(), to_string(level), component, message);
  }
  if (g_has_sink.load(std::memory_order_relaxed)) {
    std::lock_guard lock(state().sink_mutex);
    if (state().sink) return state().sink(line);
  }
  if (component == kQueuedComponent && level >= Level::kInfo) return LogOutput::instance().queue(line);
  LogOutput::instance().write(line);
}

}  // namespace edgemesh::log
