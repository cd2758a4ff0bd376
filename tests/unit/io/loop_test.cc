#include "core/io/loop.h"

#include <gtest/gtest.h>

#include <signal.h>

#include <thread>

#include "core/io/end_of_turn.h"

namespace edgemesh::io {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(LoopTest, RunsTimersInTheOrderOfTheirDeadlines) {
  ManualClock clock;
  auto loop = *Loop::create(clock);
  std::string order;
  Timer c(*loop, [&] { order += 'c'; });
  Timer a(*loop, [&] { order += 'a'; });
  Timer b(*loop, [&] { order += 'b'; });
  c.start(milliseconds(30));
  a.start(milliseconds(10));
  b.start(milliseconds(10));

  loop->run_once();
  EXPECT_EQ(order, "");
  clock.advance(milliseconds(10));
  loop->run_once();
  EXPECT_EQ(order, "ab");
  clock.advance(milliseconds(20));
  loop->run_once();
  EXPECT_EQ(order, "abc");
}

TEST(LoopTest, AStoppedTimerNeverFires) {
  ManualClock clock;
  auto loop = *Loop::create(clock);
  int fired = 0;
  Timer first(*loop, [&] { ++fired; });
  auto second = std::make_unique<Timer>(*loop, [&] { ++fired; });
  first.start(milliseconds(1));
  second->start(milliseconds(1));
  first.stop();
  second.reset();
  clock.advance(seconds(1));
  loop->run_once();
  EXPECT_EQ(fired, 0);
}

TEST(LoopTest, ATimerMayDestroyItselfInItsCallback) {
  ManualClock clock;
  auto loop = *Loop::create(clock);
  std::unique_ptr<Timer> timer;
  int fired = 0;
  timer = std::make_unique<Timer>(*loop, [&, witness = std::make_shared<int>(7)] {
    timer.reset();
    fired += *witness;
  });
  timer->start_repeating(milliseconds(1));
  clock.advance(seconds(1));
  loop->run_once();
  clock.advance(seconds(1));
  loop->run_once();
  EXPECT_EQ(fired, 7);
}

TEST(LoopTest, ARepeatingTimerFiresOnceATurnUntilStopped) {
  ManualClock clock;
  auto loop = *Loop::create(clock);
  int fired = 0;
  Timer timer(*loop, [&] {
    if (++fired == 3) timer.stop();
  });
  timer.start_repeating(milliseconds(5));
  for (int i = 0; i < 6; ++i) {
    clock.advance(milliseconds(5));
    loop->run_once();
  }
  EXPECT_EQ(fired, 3);
  EXPECT_FALSE(timer.active());
}

TEST(LoopTest, AThousandTimersFireSortedAfterRandomStops) {
  ManualClock clock;
  auto loop = *Loop::create(clock);
  std::vector<int> fired;
  std::vector<std::unique_ptr<Timer>> timers;
  for (int i = 0; i < 1000; ++i) {
    int when = (i * 7919) % 1000;
    timers.push_back(std::make_unique<Timer>(*loop, [&fired, when] { fired.push_back(when); }));
    timers.back()->start(milliseconds(when));
  }
  for (size_t i = 0; i < timers.size(); i += 3) timers[i]->stop();
  clock.advance(seconds(2));
  loop->run_once();
  EXPECT_EQ(fired.size(), 666u);
  EXPECT_TRUE(std::is_sorted(fired.begin(), fired.end()));
}

TEST(LoopTest, PostedTasksRunOnTheLoopInOrder) {
  auto loop = *Loop::create();
  std::vector<int> got;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) loop->post([&got, i] { got.push_back(i); });
  });
  EXPECT_TRUE(loop->run_until([&] { return got.size() == 1000; }, seconds(5)));
  other.join();
  EXPECT_TRUE(std::is_sorted(got.begin(), got.end()));
}

TEST(LoopTest, StopFromAnotherThreadEndsRun) {
  auto loop = *Loop::create();
  std::thread other([&] { loop->stop(); });
  loop->run();
  other.join();
}

TEST(LoopTest, DeferredTasksRunAfterTheTurnAndMayDeferAgain) {
  auto loop = *Loop::create();
  std::string order;
  loop->post([&] {
    loop->defer([&] {
      order += '2';
      loop->defer([&] { order += '3'; });
    });
    order += '1';
  });
  EXPECT_TRUE(loop->run_until([&] { return order.size() == 3; }, seconds(5)));
  EXPECT_EQ(order, "123");
}

TEST(LoopTest, EndOfTurnRunsAfterTheTasksOnceATurn) {
  struct Call final : EndOfTurn {
    ~Call() override = default;
    void end_of_turn() override {
      *order += name;
      if (then) then();
    }
    std::string* order = nullptr;
    char name = 0;
    std::function<void()> then;
  };
  auto loop = *Loop::create();
  std::string order;
  Call a, b;
  auto c = std::make_unique<Call>();
  auto d = std::make_unique<Call>();
  for (auto [call, name] : {std::pair{&a, 'a'}, {&b, 'b'}, {c.get(), 'c'}, {d.get(), 'd'}}) {
    call->order = &order;
    call->name = name;
    call->schedule(*loop);
    call->schedule(*loop);
  }
  loop->defer([&] { order += 't'; });
  a.then = [&] {
    a.schedule(*loop);  // for the next turn
    b.cancel();
  };
  c->then = [&] {
    d.reset();
    c.reset();
  };
  loop->run_once();
  EXPECT_EQ(order, "tac");
  a.then = nullptr;
  loop->run_once(std::chrono::hours(1));  // it does not sleep while something waits
  EXPECT_EQ(order, "taca");
  loop->run_once();
  EXPECT_EQ(order, "taca");
  a.schedule(*loop);
  loop.reset();  // before the object
  EXPECT_EQ(order, "tacaa");
  a.cancel();
}

TEST(LoopTest, OffloadedWorkComesBackToTheLoop) {
  auto loop = *Loop::create();
  std::thread::id worked, finished;
  bool done = false;
  loop->offload([&] { worked = std::this_thread::get_id(); },
                [&] {
                  finished = std::this_thread::get_id();
                  done = true;
                });
  ASSERT_TRUE(loop->run_until([&] { return done; }, seconds(5)));
  EXPECT_NE(worked, std::this_thread::get_id());
  EXPECT_EQ(finished, std::this_thread::get_id());
}

TEST(LoopTest, SignalsArriveAsCalls) {
  auto loop = *Loop::create();
  int got = 0;
  auto watch = SignalWatch::start(*loop, SIGUSR1, [&] { ++got; });
  ASSERT_TRUE(watch);
  loop->run_once();
  raise(SIGUSR1);
  EXPECT_TRUE(loop->run_until([&] { return got == 1; }, seconds(5)));
}

}  // namespace
}  // namespace edgemesh::io
