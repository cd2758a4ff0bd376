// The terminal of `edgemesh top`: it is left as it was found, however the command ends.
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "cmd/edgemesh/admin_client.h"
#include "cmd/edgemesh/top.h"

namespace edgemesh::cli {

namespace {

using Clock = std::chrono::steady_clock;
volatile sig_atomic_t stopped = 0;

void write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text.remove_prefix(static_cast<size_t>(n));
  }
}

// Ends at SIGINT, SIGTERM or SIGHUP what waits.
class StopSignals {
 public:
  StopSignals() {
    struct sigaction action {};
    action.sa_handler = [](int) { stopped = 1; };
    for (const int signal : kSignals) sigaction(signal, &action, nullptr);
  }
  static constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
};

// The other screen, no cursor, keys at once.
class Screen {
 public:
  Screen() {
    keys_ = tcgetattr(STDIN_FILENO, &before_) == 0;
    if (keys_) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    write_all("\x1b[?1049h\x1b[?25l");
  }
  ~Screen() {
    write_all("\x1b[?25h\x1b[?1049l");
    if (keys_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;
  bool has_keys() const { return keys_; }

 private:
  termios before_{};
  bool keys_ = false;
};

// False: it is over. `keys`: q ends it.
bool wait_until(Clock::time_point end, bool keys) {
  while (stopped == 0) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0) return true;
    pollfd in{keys ? STDIN_FILENO : -1, POLLIN, 0};
    if (poll(&in, 1, static_cast<int>(left)) <= 0) continue;
    char key = 0;
    const ssize_t n = read(STDIN_FILENO, &key, 1);
    if (n == 0) keys = false;
    if (n == 1 && (key == 'q' || key == 'Q')) return false;
  }
  return false;
}

Result<TrafficSnapshot> ask(const Common& common) {
  EM_TRY(auto answer, call_admin(common.admin, "GET", "/traffic"));
  return parse_traffic(answer);
}

void draw(const std::vector<TopRow>& rows, const std::string& head) {
  winsize size{};
  ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
  const bool known = size.ws_col > 0 && size.ws_row > 0;  // some terminals do not say
  write_all("\x1b[H" + top_screen(rows, head, known ? size.ws_col : 80, known ? size.ws_row : 24));
}

void show_rows(const std::vector<TopRow>& rows, const Common& common) {
  write_all(common.json() ? top_json(rows).dump() + "\n" : top_text(rows));
}

Result<> run(const TopFlags& flags, const Common& common, bool live, bool keys) {
  const auto interval =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(flags.interval));
  EM_TRY(auto before, ask(common));
  if (live) draw({}, "edgemesh top  " + common.admin);
  for (auto next = Clock::now() + interval; wait_until(next, keys); next += interval) {
    EM_TRY(auto now, ask(common));
    const auto rows = top_rows(before, now);
    before = std::move(now);
    if (live) {
      draw(rows, fmt::format("edgemesh top  {}  every {} s  q: quit", common.admin, flags.interval));
    } else {
      show_rows(rows, common);
    }
    if (flags.once) break;
    next = std::max(next, Clock::now());
  }
  return {};
}

}  // namespace

Result<> top(const TopFlags& flags, const Common& common) {
  const StopSignals signals;
  const bool live = !flags.once && !common.json() && isatty(STDOUT_FILENO) != 0;
  if (!live) return run(flags, common, false, false);
  const Screen screen;
  return run(flags, common, true, screen.has_keys());
}

}  // namespace edgemesh::cli
