// Time as an interface, so that tests turn the clock by hand and never sleep.
// Thread-safe: both clocks may be read from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace edgemesh {

using Duration = std::chrono::nanoseconds;
// Monotonic; the epoch is arbitrary.
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
  virtual std::chrono::system_clock::time_point wall_now() const = 0;
  // True for a clock that moves only by hand: a loop must then not sleep on timers.
  virtual bool manual() const { return false; }
};

// The process-wide system clock.
Clock& system_clock();

class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(Duration(ns_.load())); }
  std::chrono::system_clock::time_point wall_now() const override {
    return std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(
            std::chrono::seconds(1'700'000'000) + Duration(ns_.load())));
  }
  bool manual() const override { return true; }
  void advance(Duration by) { ns_ += by.count(); }

 private:
  std::atomic<int64_t> ns_{1'000'000'000};
};

}  // namespace edgemesh
