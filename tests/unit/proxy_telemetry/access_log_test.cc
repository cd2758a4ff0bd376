#include "proxy/telemetry/access_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "proxy/telemetry/json_text.h"
#include "tests/support/temp_dir.h"

namespace edgemesh::proxy {
namespace {

std::string read(const std::string& path) {
  std::ifstream in(path);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

class AccessLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    writer = *AccessLogWriter::start();
    lane = &writer->add_lane();
    request.method = "GET";
    request.path = "/a?b=c";
    request.authority = "shop.example";
    request.version = HttpVersion::kHttp11;
    request.add("user-agent", "curl/8");
    facts.facts = &known;
    facts.request = &request;
    facts.response = &answer;
    facts.start = std::chrono::system_clock::time_point(std::chrono::milliseconds(1700000000042));
    facts.duration_us = 12'345;
    facts.status = 200;
    facts.bytes_received = 3;
    facts.bytes_sent = 5;
    facts.response_flags = "-";
    facts.upstream = &upstream;
    path = dir.path() + "/access.log";
  }
  std::shared_ptr<const AccessLogger> logger(model::AccessLog spec) {
    spec.path = path;
    auto made = AccessLogger::make({spec}, *writer);
    EXPECT_TRUE(made) << made.error().message;
    return made ? *made : nullptr;
  }
  std::string logged(model::AccessLog spec) {
    const auto made = logger(std::move(spec));
    made->log(*lane, facts);
    writer->flush();
    std::string text = read(path);
    std::filesystem::remove(path);
    writer->reopen();
    writer->flush();
    return text;
  }
  test::TempDir dir;
  std::string path;
  std::unique_ptr<AccessLogWriter> writer;
  AccessLogWriter::Lane* lane = nullptr;
  Head request, answer;
  Facts known;
  SockAddr upstream = *SockAddr::parse("10.1.2.3:8080");
  LogFacts facts;
};

TEST_F(AccessLogTest, DefaultFormatIsEnvoys) {
  EXPECT_EQ(logged({}),
            "[2023-11-14T22:13:20.042Z] \"GET /a?b=c HTTP/1.1\" 200 - 3 5 12 - \"-\" \"curl/8\" \"-\" "
            "\"shop.example\" \"10.1.2.3:8080\"\n");
}

TEST_F(AccessLogTest, TextGetsOneLineBreak) {
  model::AccessLog spec;
  spec.format = "%RESPONSE_CODE% 100%%";
  EXPECT_EQ(logged(spec), "200 100%\n");
  spec.format = "a\n%RESPONSE_CODE%\n";
  EXPECT_EQ(logged(spec), "a\n200\n");
}

TEST_F(AccessLogTest, ValuesBeginNoLine) {
  known.server_name = "a\nb\x1b[31m";
  model::AccessLog spec;
  spec.format = "%REQUESTED_SERVER_NAME%\tx";
  EXPECT_EQ(logged(spec), "a?b?[31m\tx\n");
}

TEST_F(AccessLogTest, MinStatus) {
  model::AccessLog spec;
  spec.format = "%RESPONSE_CODE%";
  spec.min_status = 400;
  const auto made = logger(spec);
  for (const int status : {200, 399, 400, 0, 503}) {
    facts.status = status;
    made->log(*lane, facts);
  }
  writer->flush();
  EXPECT_EQ(read(path), "400\n503\n");
}

TEST_F(AccessLogTest, Json) {
  model::AccessLog spec;
  spec.json = {{"code", "%RESPONSE_CODE%"},
               {"took", "%DURATION%"},
               {"route", "%ROUTE_NAME%"},
               {"agent \"x\"", "%REQ(USER-AGENT)%"},
               {"both", "%RESPONSE_CODE%/%ROUTE_NAME%"},
               {"who", "mesh"},
               {"attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"}};
  EXPECT_EQ(logged(spec),
            R"({"code":200,"took":12,"route":null,"agent \"x\"":"curl/8","both":"200/-",)"
            R"("who":"mesh","attempts":0})"
            "\n");
  facts.duration_us = -1;
  spec.json.resize(2);
  EXPECT_EQ(logged(spec), "{\"code\":200,\"took\":null}\n");
}

TEST_F(AccessLogTest, JsonOfManyLongValuesStaysWhole) {
  const std::string quotes(100'000, '\x01');
  request.add("x-long", quotes);
  model::AccessLog spec;
  for (int i = 0; i < 50; ++i) spec.json.push_back({"m" + std::to_string(i), "%REQ(x-long)%"});
  const std::string line = logged(spec);
  EXPECT_LE(line.size(), AccessLogWriter::kMaxLine);
  EXPECT_TRUE(line.starts_with("{\"m0\":\"\\u0001"));
  EXPECT_TRUE(line.ends_with(",\"m49\":null}\n"));
}

TEST_F(AccessLogTest, LongTextIsCut) {
  request.add("x-long", std::string(200'000, 'x'));
  model::AccessLog spec;
  spec.format = "%REQ(x-long)%";
  const std::string line = logged(spec);
  EXPECT_EQ(line.size(), AccessLogWriter::kMaxLine);
  EXPECT_EQ(line.back(), '\n');
}

TEST_F(AccessLogTest, WrongFormatNamesTheLog) {
  model::AccessLog spec;
  spec.path = path;
  spec.format = "%NOT_KNOWN%";
  const auto made = AccessLogger::make({spec}, *writer);
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find(path), std::string::npos);
  EXPECT_NE(made.error().message.find("NOT_KNOWN"), std::string::npos);
  EXPECT_EQ(*AccessLogger::make({}, *writer), nullptr);
}

TEST_F(AccessLogTest, ReopenAfterRename) {
  model::AccessLog spec;
  spec.format = "%RESPONSE_CODE%";
  const auto made = logger(spec);
  made->log(*lane, facts);
  writer->flush();
  std::filesystem::rename(path, path + ".1");
  facts.status = 201;
  made->log(*lane, facts);
  writer->reopen();
  writer->flush();
  facts.status = 202;
  made->log(*lane, facts);
  writer->flush();
  EXPECT_EQ(read(path + ".1"), "200\n201\n");
  EXPECT_EQ(read(path), "202\n");
}

TEST_F(AccessLogTest, StopWritesWhatIsLeft) {
  model::AccessLog spec;
  spec.format = "%RESPONSE_CODE%";
  {
    const auto made = logger(spec);
    for (int i = 0; i < 1000; ++i) made->log(*lane, facts);
  }
  writer.reset();
  EXPECT_EQ(read(path).size(), 4000u);
}

TEST_F(AccessLogTest, FileIsSharedAndGoesWithItsLastOwner) {
  auto a = *writer->file(path);
  EXPECT_EQ(a, *writer->file(path));
  const std::weak_ptr<LogFile> watch = a;
  lane->put(*a, "last\n");
  a.reset();
  writer->flush();
  writer->flush();
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(read(path), "last\n");
  EXPECT_EQ(*writer->file("-"), *writer->file("/dev/stdout"));
  EXPECT_FALSE(writer->file(""));
}

TEST_F(AccessLogTest, ManyWorkersLoseNothingButWhatIsCounted) {
  constexpr int kWorkers = 3, kLines = 20'000;
  auto file = *writer->file(path);
  std::vector<std::thread> workers;
  for (int w = 0; w < kWorkers; ++w) {
    workers.emplace_back([&, mine = &writer->add_lane(), w] {
      for (int i = 0; i < kLines; ++i)
        mine->put(*file, fmt::format("{} {} {}\n", w, i, std::string(static_cast<size_t>(i % 97), 'x')));
    });
  }
  for (auto& worker : workers) worker.join();
  writer->flush();
  const auto stats = writer->stats();
  EXPECT_EQ(stats.lines + stats.dropped, uint64_t{kWorkers} * kLines);
  EXPECT_EQ(stats.failed, 0u);
  std::ifstream in(path);
  std::string line;
  uint64_t count = 0;
  int last[kWorkers] = {-1, -1, -1};
  while (std::getline(in, line)) {
    int w = -1, i = -1;
    ASSERT_EQ(std::sscanf(line.c_str(), "%d %d", &w, &i), 2) << line;
    ASSERT_TRUE(w >= 0 && w < kWorkers && i > last[w]) << line;
    EXPECT_EQ(line, fmt::format("{} {} {}", w, i, std::string(static_cast<size_t>(i % 97), 'x')));
    last[w] = i;
    ++count;
  }
  EXPECT_EQ(count, stats.lines);
}

TEST_F(AccessLogTest, FullPipeDropsAndDoesNotHoldTheWorker) {
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  io::Fd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK));
  ASSERT_TRUE(reader.valid());
  auto file = *writer->file(path);
  const std::string line(1000, 'x');
  for (int i = 0; i < 5000; ++i) lane->put(*file, line);
  EXPECT_GT(writer->stats().dropped, 1000u);
  reader.reset();  // whoever waits to write sees the end of the pipe
  writer->flush();
  EXPECT_GT(writer->stats().failed, 0u);
}

TEST_F(AccessLogTest, FileThatCannotBeOpened) {
  auto file = *writer->file(dir.path() + "/none/access.log");
  lane->put(*file, "x\n");
  writer->flush();
  EXPECT_EQ(writer->stats().failed, 1u);
  std::filesystem::create_directory(dir.path() + "/none");
  lane->put(*file, "y\n");
  writer->flush();
  EXPECT_EQ(writer->stats().failed, 2u);  // not tried again so soon
  writer->reopen();
  writer->flush();
  lane->put(*file, "z\n");
  writer->flush();
  EXPECT_EQ(read(file->path), "z\n");
}

TEST(JsonText, Escapes) {
  std::string out;
  append_json("a\"b\\c\n\x01\x7f\xc3\xa9\xff\xe2\x82\xac\xed\xa0\x80\xf0\x9f\x98\x80\xc3", &out);
  EXPECT_EQ(out,
            "a\\\"b\\\\c\\n\\u0001\\u007f\xc3\xa9\\ufffd\xe2\x82\xac\\ufffd\\ufffd\\ufffd"
            "\xf0\x9f\x98\x80\\ufffd");
}

}  // namespace
}  // namespace edgemesh::proxy
