#include "p2p/netcheck.h"

#include <gtest/gtest.h>

#include "core/io/tcp.h"
#include "core/io/udp.h"
#include "p2p/stun_message.h"

namespace edgemesh::p2p {
namespace {

using namespace std::chrono_literals;  // NOLINT

// A STUN answer: success with a mapped address, or 401.
std::vector<uint8_t> answer_to(std::span<const uint8_t> request, const SockAddr& mapped) {
  std::vector<uint8_t> out(request.begin(), request.begin() + 20);
  bool allocate = out[1] == kStunAllocate;
  out[0] = 0x01;
  out[1] |= allocate ? 0x10 : 0x00;
  std::vector<uint8_t> attribute;
  if (allocate) {
    attribute = {0, 0x09, 0, 4, 0, 0, 4, 1};
  } else {
    auto port = static_cast<uint16_t>(mapped.port ^ 0x2112);
    attribute = {0, 0x20, 0, 8, 0, 1, static_cast<uint8_t>(port >> 8), static_cast<uint8_t>(port)};
    for (size_t i = 0; i < 4; ++i) attribute.push_back(mapped.ip.bytes()[i] ^ out[4 + i]);
  }
  out[2] = 0;
  out[3] = static_cast<uint8_t>(attribute.size());
  out.insert(out.end(), attribute.begin(), attribute.end());
  return out;
}

class NetcheckTest : public testing::Test {
 protected:
  NetcheckTest() : loop(std::move(*io::Loop::create())) {}
  std::unique_ptr<io::UdpSocket> server(const SockAddr& mapped) {
    auto holder = std::make_shared<io::UdpSocket*>(nullptr);
    auto socket = std::move(*io::UdpSocket::bind(
        *loop, {IpAddr::loopback(), 0},
        [holder, mapped](std::span<const uint8_t> data, size_t, const SockAddr& from) {
          (void)(*holder)->send_to(answer_to(data, mapped), from);
        },
        {}));
    *holder = socket.get();
    return socket;
  }
  NetcheckReport run(NetcheckOptions o) {
    std::optional<NetcheckReport> report;
    auto check = Netcheck::start(*loop, std::move(o), [&](NetcheckReport r) { report = std::move(r); });
    EXPECT_TRUE(loop->run_until([&] { return report.has_value(); }, 5s));
    return report.value_or(NetcheckReport{});
  }
  std::unique_ptr<io::Loop> loop;
};

TEST_F(NetcheckTest, SameMappingIsEndpointIndependent) {
  SockAddr mapped{IpAddr::v4(0xcb007105), 4000};
  auto one = server(mapped);
  auto two = server(mapped);
  NetcheckOptions o;
  o.turn.host = "127.0.0.1";
  o.turn.port = one->local_addr().port;
  o.stun = {two->local_addr().to_string()};
  o.timeout = 1s;

  auto r = run(o);

  EXPECT_EQ(r.nat_kind, "endpoint independent");
  EXPECT_TRUE(r.udp);
  EXPECT_TRUE(r.relay_udp);
  EXPECT_FALSE(r.relay_tcp);
  ASSERT_EQ(r.reflexive.size(), 2U);
  EXPECT_EQ(r.reflexive[0], mapped);
  EXPECT_GT(r.rtt_us, 0);
}

TEST_F(NetcheckTest, DifferentMappingsAreSymmetric) {
  auto one = server({IpAddr::v4(0xcb007105), 4000});
  auto two = server({IpAddr::v4(0xcb007105), 4001});
  NetcheckOptions o;
  o.turn.host = "127.0.0.1";
  o.turn.port = one->local_addr().port;
  o.stun = {two->local_addr().to_string()};
  o.timeout = 1s;

  EXPECT_EQ(run(o).nat_kind, "symmetric");
}

TEST_F(NetcheckTest, SilenceIsReported) {
  NetcheckOptions o;
  o.timeout = 50ms;

  EXPECT_EQ(run(o).nat_kind, "no answer");
}

TEST(StunMessageTest, RefusesWhatIsCutShort) {
  StunId id{};
  auto whole = answer_to(stun_request(kStunBinding, id), {IpAddr::v4(1), 2});
  ASSERT_TRUE(parse_stun_answer(whole));
  for (size_t n = 0; n < whole.size(); ++n) {
    auto r = parse_stun_answer(std::span(whole).first(n));
    EXPECT_FALSE(r) << n;
  }
  EXPECT_FALSE(parse_stun_answer(stun_request(kStunBinding, id)));
}

}  // namespace
}  // namespace edgemesh::p2p
