#include "p2p/signal.h"

#include <gtest/gtest.h>

namespace edgemesh::p2p {
namespace {

Signal offer() {
  Signal s;
  s.kind = Signal::Kind::kOffer;
  s.instance = "0123456789abcdef";
  s.session = "00ff";
  s.ufrag = "aB+/";
  s.pwd = "0123456789abcdefghijkl";
  s.candidates = {"candidate:1 1 UDP 2015363327 10.0.0.1 4000 typ host"};
  s.done = true;
  s.direct = {{IpAddr::v4(0x0a000001), 15008}};
  s.nat = "none";
  return s;
}

TEST(SignalTest, TravelsUnchanged) {
  Signal s = offer();

  auto back = parse_signal(encode_signal(s));

  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->kind, s.kind);
  EXPECT_EQ(back->instance, s.instance);
  EXPECT_EQ(back->session, s.session);
  EXPECT_EQ(back->ufrag, s.ufrag);
  EXPECT_EQ(back->pwd, s.pwd);
  EXPECT_EQ(back->candidates, s.candidates);
  EXPECT_EQ(back->done, s.done);
  EXPECT_EQ(back->direct, s.direct);
  EXPECT_EQ(back->nat, s.nat);
}

struct BadCase {
  const char* name;
  void (*spoil)(Signal&);
};
class BadSignalTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadSignalTest, IsRefused) {
  Signal s = offer();
  GetParam().spoil(s);
  EXPECT_FALSE(parse_signal(encode_signal(s)));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadSignalTest,
    testing::Values(
        BadCase{"no_instance", [](Signal& s) { s.instance.clear(); }},
        BadCase{"instance_no_hex", [](Signal& s) { s.instance = "xyz"; }},
        BadCase{"no_session", [](Signal& s) { s.session.clear(); }},
        BadCase{"long_session", [](Signal& s) { s.session.assign(65, 'a'); }},
        BadCase{"short_ufrag", [](Signal& s) { s.ufrag = "abc"; }},
        BadCase{"short_pwd", [](Signal& s) { s.pwd = "abc"; }},
        BadCase{"odd_pwd", [](Signal& s) { s.pwd[3] = '\n'; }},
        BadCase{"long_candidate", [](Signal& s) { s.candidates[0].append(300, '1'); }},
        BadCase{"odd_candidate", [](Signal& s) { s.candidates[0] = "a=candidate"; }},
        BadCase{"line_break", [](Signal& s) { s.candidates[0] += "\r\na=x"; }},
        BadCase{"many_candidates", [](Signal& s) { s.candidates.resize(65, s.candidates[0]); }},
        BadCase{"many_addresses", [](Signal& s) { s.direct.resize(17, s.direct[0]); }},
        BadCase{"port_zero", [](Signal& s) { s.direct[0].port = 0; }},
        BadCase{"any_address", [](Signal& s) { s.direct[0].ip = IpAddr(); }},
        BadCase{"long_nat", [](Signal& s) { s.nat.assign(33, 'n'); }}),
    [](const auto& param) { return std::string(param.param.name); });

TEST(SignalTest, RefusesWhatIsNoSignal) {
  for (const char* text : {"", "null", "[]", "{}", "{\"v\":2}", "{\"v\":1}", "{\"v\":\"1\",\"kind\":\"bye\"}",
                           "{\"v\":1,\"kind\":\"hello\",\"instance\":\"0\"}",
                           "{\"v\":1,\"kind\":\"bye\",\"instance\":7}",
                           "{\"v\":1,\"kind\":\"bye\",\"instance\":\"0\",\"candidates\":{}}",
                           "{\"v\":1,\"kind\":\"bye\",\"instance\":\"0\",\"candidates\":[1]}",
                           "{\"v\":1,\"kind\":\"bye\",\"instance\":\"0\",\"done\":1}"})
    EXPECT_FALSE(parse_signal(text)) << text;
  EXPECT_FALSE(parse_signal(std::string(kMaxSignalBytes + 1, ' ')));
}

TEST(SignalTest, ByeNeedsNoSession) {
  EXPECT_TRUE(parse_signal("{\"v\":1,\"kind\":\"bye\",\"instance\":\"0a\"}"));
}

}  // namespace
}  // namespace edgemesh::p2p
