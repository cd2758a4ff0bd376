#include "cloud/mesh_log.h"

#include <gtest/gtest.h>

#include <set>

namespace edgemesh::cloud {
namespace {

MeshLog::Encode text(const std::string& what) {
  return [what](uint64_t position) {
    return std::make_shared<const std::string>(what + "@" + std::to_string(position));
  };
}

struct Taken {
  std::vector<std::string> changes;
  int begins = 0;
  int ends = 0;
};

// Everything the cursor gives now.
Taken drain(MeshCursor& cursor, const MeshLog& log) {
  Taken taken;
  while (const Frame frame = cursor.next(log)) {
    if (frame->find("sync/begin") != std::string::npos) {
      ++taken.begins;
      taken.changes.clear();
    } else if (frame->find("sync/end") != std::string::npos) {
      ++taken.ends;
    } else {
      taken.changes.push_back(*frame);
    }
  }
  return taken;
}

class MeshLogTest : public ::testing::Test {
 protected:
  MeshLog log_{"e1", 3};
  MeshCursor cursor_;
};

TEST_F(MeshLogTest, GivesNothingBeforeANodeAsks) {
  log_.put("a", "1", text("a"));

  EXPECT_EQ(cursor_.next(log_), nullptr);
}

TEST_F(MeshLogTest, GivesEverythingToANodeThatKnowsNothing) {
  log_.put("a", "1", text("a"));
  log_.put("b", "2", text("b"));
  log_.remove("a", text("-a"));

  cursor_.request(log_, "", "", "r");
  const Taken taken = drain(cursor_, log_);

  EXPECT_TRUE(cursor_.full());
  EXPECT_EQ(taken.changes, std::vector<std::string>{"b@2"});
  EXPECT_EQ(taken.begins, 1);
  EXPECT_EQ(taken.ends, 1);
  EXPECT_TRUE(cursor_.live());
}

TEST_F(MeshLogTest, GivesOnlyWhatChangedSinceAPosition) {
  log_.put("a", "1", text("a"));
  log_.put("b", "2", text("b"));
  const std::string position = std::to_string(log_.head());
  log_.put("b", "3", text("b"));
  log_.put("b", "4", text("b"));
  log_.remove("a", text("-a"));

  cursor_.request(log_, "e1", position, "r");
  const Taken taken = drain(cursor_, log_);

  EXPECT_FALSE(cursor_.full());
  EXPECT_EQ(taken.changes, (std::vector<std::string>{"b@4", "-a@5"}));
}

TEST_F(MeshLogTest, GivesChangesAsTheyComeAfterTheSync) {
  cursor_.request(log_, "", "", "r");
  drain(cursor_, log_);

  log_.put("a", "1", text("a"));
  EXPECT_FALSE(log_.put("a", "1", text("a")));  // the same version again
  log_.remove("a", text("-a"));

  EXPECT_EQ(drain(cursor_, log_).changes, std::vector<std::string>{"-a@2"});
  EXPECT_EQ(cursor_.next(log_), nullptr);
  EXPECT_FALSE(log_.remove("a", text("-a")));
}

TEST_F(MeshLogTest, StartsAnewWhenThePositionMeansNothingHere) {
  log_.put("a", "1", text("a"));
  for (const auto& [epoch, position] : std::vector<std::pair<const char*, const char*>>{
           {"e0", "1"}, {"e1", "99"}, {"e1", ""}, {"e1", "-1"}, {"e1", "1x"}}) {
    cursor_.request(log_, epoch, position, "r");
    EXPECT_TRUE(cursor_.full()) << epoch << " " << position;
  }
}

TEST_F(MeshLogTest, StartsAnewForANodeBehindTheOldestTombstone) {
  for (int i = 0; i < 10; ++i) log_.put(std::to_string(i), "1", text("x"));
  cursor_.request(log_, "", "", "r");
  drain(cursor_, log_);

  for (int i = 0; i < 5; ++i) log_.remove(std::to_string(i), text("-x"));
  const Taken taken = drain(cursor_, log_);

  EXPECT_EQ(log_.objects(), 5U);
  EXPECT_EQ(log_.floor(), 12U);
  EXPECT_EQ(taken.begins, 1);
  EXPECT_EQ(taken.ends, 1);
  EXPECT_EQ(taken.changes.size(), 5U);
  MeshCursor late;
  late.request(log_, "e1", "11", "r");
  EXPECT_TRUE(late.full());
}

TEST_F(MeshLogTest, GoesOnAfterARestartWhereItWas) {
  const MeshLog::EncodeDeleted gone = [](const std::string& key, uint64_t position) {
    return std::make_shared<const std::string>("-" + key + "@" + std::to_string(position));
  };
  log_.put("same", "1", text("same"));
  log_.put("changed", "2", text("changed"));
  log_.put("removed", "3", text("removed"));
  log_.put("before", "4", text("before"));
  log_.remove("before", text("-before"));
  const std::string saved = log_.save();
  log_.put("lost", "9", text("lost"));  // after the last save

  MeshLog log("e2", 3);
  ASSERT_TRUE(log.restore(saved, gone));
  log.put("same", "1", text("same"));
  log.put("changed", "5", text("changed"));
  log.put("new", "6", text("new"));
  log.finish_restore(gone);

  EXPECT_EQ(log.epoch(), "e1");
  EXPECT_EQ(log.objects(), 3U);
  // A node that had everything that was saved.
  cursor_.request(log, "e1", "5", "r");
  EXPECT_FALSE(cursor_.full());
  EXPECT_EQ(drain(cursor_, log).changes,
            (std::vector<std::string>{"changed@1000006", "new@1000007", "-removed@1000008"}));
  // One that was away for longer also hears of the older deletion.
  cursor_.request(log, "e1", "4", "r");
  EXPECT_EQ(drain(cursor_, log).changes.front(), "-before@5");
  // One that got a change which was not saved.
  cursor_.request(log, "e1", "6", "r");
  EXPECT_TRUE(cursor_.full());
}

TEST_F(MeshLogTest, RefusesAFileThatIsNotALog) {
  const MeshLog::EncodeDeleted gone = [](const std::string&, uint64_t) { return nullptr; };
  const std::string head = "edgemesh-mesh-log 1 e1 5 0\n";
  for (const std::string& bad :
       {std::string(), std::string("x"), std::string("edgemesh-mesh-log 2 e1 5 0\n"),
        std::string("edgemesh-mesh-log 1 e1 5 9\n"), std::string("edgemesh-mesh-log 1 e1 5\n"),
        head + "6 1 a\n", head + "1 1\n", head + "x 1 a\n", head + "1 - a\n1 - b\n"}) {
    EXPECT_FALSE(log_.restore(bad, gone)) << bad;
    EXPECT_EQ(log_.head(), 0U);
  }
}

// A node that reads slowly while objects come and go ends with what there is.
TEST_F(MeshLogTest, ASlowNodeEndsWithTheSameObjects) {
  std::set<std::string> held;
  const auto step = [&] {
    const Frame frame = cursor_.next(log_);
    if (frame == nullptr) return false;
    if (frame->find("\"full\":true") != std::string::npos) held.clear();
    const std::string name = frame->substr(0, frame->find('@'));
    if (frame->find("sync/") != std::string::npos) return true;
    name[0] == '-' ? static_cast<void>(held.erase(name.substr(1)))
                   : static_cast<void>(held.insert(name));
    return true;
  };
  cursor_.request(log_, "", "", "r");

  std::set<std::string> truth;
  unsigned random = 7;
  for (int i = 0; i < 5000; ++i) {
    random = random * 1664525 + 1013904223;
    const std::string key = std::to_string((random >> 16) % 40);
    if ((random >> 8) % 3 == 0) {
      log_.remove(key, text("-" + key));
      truth.erase(key);
    } else {
      log_.put(key, std::to_string(i), text(key));
      truth.insert(key);
    }
    if (i % 7 == 0) step();
  }
  while (step()) {
  }

  EXPECT_EQ(held, truth);
}

}  // namespace
}  // namespace edgemesh::cloud
