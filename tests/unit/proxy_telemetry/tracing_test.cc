#include "proxy/telemetry/tracing.h"

#include <gtest/gtest.h>

#include <string>

namespace edgemesh::proxy {
namespace {

using Sampling = TraceContext::Sampling;
constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kSpan[] = "b7ad6b7169203331";
constexpr TraceRandom kRandom{0x1111111111111111, 0x2222222222222222, 0x3333333333333333};

std::string parent(const std::string& version = "00", const std::string& flags = "01") {
  return version + "-" + kTrace + "-" + kSpan + "-" + flags;
}
template <size_t N>
std::string hex(const std::array<uint8_t, N>& bytes) {
  std::string out(2 * N, '\0');
  put_hex(bytes.data(), N, out.data());
  return out;
}
TraceContext of(const std::string& traceparent) {
  Head head;
  head.add("traceparent", traceparent);
  return extract(head);
}

TEST(TraceParent, Valid) {
  const auto context = of(parent());
  ASSERT_TRUE(context.has_ids);
  EXPECT_EQ(hex(context.trace_id), kTrace);
  EXPECT_EQ(hex(context.span_id), kSpan);
  EXPECT_EQ(context.sampling, Sampling::kYes);
  EXPECT_EQ(of(parent("00", "00")).sampling, Sampling::kNo);
  EXPECT_EQ(of(parent("00", "02")).sampling, Sampling::kNo);  // a bit that we do not know
  EXPECT_EQ(of(parent("00", "ff")).sampling, Sampling::kYes);
}

TEST(TraceParent, LaterVersions) {
  EXPECT_TRUE(of(parent("cc")).has_ids);
  EXPECT_TRUE(of(parent("cc") + "-what-the-future-will-be-like").has_ids);
  EXPECT_FALSE(of(parent("cc") + ".what").has_ids);
  EXPECT_FALSE(of(parent("ff")).has_ids);
  EXPECT_FALSE(of(parent("00") + "-more").has_ids);
}

TEST(TraceParent, Invalid) {
  const std::string good = parent();
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_FALSE(of(good.substr(0, i)).has_ids) << i;
    std::string bad = good;
    bad[i] = 'G';
    EXPECT_FALSE(of(bad).has_ids) << i;
    bad[i] = good[i] == '-' ? '_' : 'A';  // capitals are not allowed
    EXPECT_FALSE(of(bad).has_ids) << i;
  }
  EXPECT_FALSE(of("00-" + std::string(32, '0') + "-" + kSpan + "-01").has_ids);
  EXPECT_FALSE(of("00-" + std::string(kTrace) + "-" + std::string(16, '0') + "-01").has_ids);
  EXPECT_FALSE(of(" " + good).has_ids);
  EXPECT_FALSE(of(good + " ").has_ids);
  Head twice;
  twice.add("traceparent", good);
  twice.add("TraceParent", good);
  EXPECT_FALSE(extract(twice).has_ids);
}

bool keeps_state(std::initializer_list<std::string> states) {
  Head head;
  head.add("traceparent", parent());
  for (const auto& state : states) head.add("tracestate", state);
  return !extract(head).drop_state;
}

TEST(TraceState, Rules) {
  EXPECT_TRUE(keeps_state({}));
  EXPECT_TRUE(keeps_state({"foo=1,bar=2", "rojo=00f067aa0ba902b7"}));
  EXPECT_TRUE(keeps_state({"foo=1 \t , \t bar=2,", ""}));
  EXPECT_TRUE(keeps_state({"fw529a3039@dt=FfFr"}));
  EXPECT_FALSE(keeps_state({"foo"}));
  EXPECT_FALSE(keeps_state({"=1"}));
  EXPECT_FALSE(keeps_state({"foo="}));
  EXPECT_FALSE(keeps_state({"FOO=1"}));
  EXPECT_FALSE(keeps_state({"foo=1=2"}));
  EXPECT_FALSE(keeps_state({std::string(257, 'k') + "=1"}));
  std::string many;
  for (int i = 0; i < 32; ++i) many += "k" + std::to_string(i) + "=v,";
  EXPECT_TRUE(keeps_state({many}));
  EXPECT_FALSE(keeps_state({many, "one=more"}));
  EXPECT_FALSE(keeps_state({"k=" + std::string(250, 'x'), "l=" + std::string(250, 'x'), "m=12345678901"}));
}

TEST(B3, Single) {
  const auto b3 = [](const std::string& text) {
    Head head;
    head.add("b3", text);
    return extract(head);
  };
  const std::string ids = std::string(kTrace) + "-" + kSpan;
  EXPECT_EQ(hex(b3(ids).trace_id), kTrace);
  EXPECT_EQ(b3(ids).sampling, Sampling::kUndecided);
  EXPECT_EQ(b3(ids + "-1").sampling, Sampling::kYes);
  EXPECT_EQ(b3(ids + "-0").sampling, Sampling::kNo);
  EXPECT_TRUE(b3(ids + "-d").debug);
  EXPECT_TRUE(b3(ids + "-1-" + kSpan).has_ids);
  EXPECT_EQ(hex(b3(std::string(kSpan) + "-" + kSpan).trace_id), "0000000000000000" + std::string(kSpan));
  EXPECT_EQ(b3("0").sampling, Sampling::kNo);
  EXPECT_FALSE(b3("0").has_ids);
  for (const std::string& bad :
       {std::string(), std::string("2"), ids + "-", ids + "-2", ids + "-true", ids + "-1-", ids + "-1-x",
        ids + "-1-" + kSpan + "-", std::string(kTrace), std::string(kTrace) + "-", "-" + ids,
        std::string(31, 'a') + "-" + kSpan}) {
    EXPECT_EQ(b3(bad).forms, 0) << bad;
    EXPECT_EQ(b3(bad).sampling, Sampling::kUndecided) << bad;
  }
}

TEST(B3, Fields) {
  Head head;
  head.add("X-B3-TraceId", kTrace);
  EXPECT_EQ(extract(head).forms, 0);  // a span is missing
  head.add("X-B3-SpanId", kSpan);
  EXPECT_TRUE(extract(head).has_ids);
  EXPECT_EQ(extract(head).sampling, Sampling::kUndecided);
  head.add("X-B3-Sampled", "0");
  EXPECT_EQ(extract(head).sampling, Sampling::kNo);
  head.add("X-B3-Flags", "1");
  EXPECT_TRUE(extract(head).sampled());
  Head only_decision;
  only_decision.add("x-b3-sampled", "1");
  EXPECT_TRUE(extract(only_decision).sampled());
  EXPECT_FALSE(extract(only_decision).has_ids);
}

TEST(BeginSpan, GoesOnWithTheSendersTrace) {
  Head head;
  head.add("traceparent", parent());
  head.add("tracestate", "foo=1");
  TraceContext context;
  ASSERT_TRUE(begin_span(head, 0, kRandom, &context));
  EXPECT_EQ(hex(context.parent_id), kSpan);
  EXPECT_TRUE(context.sampled());
  inject(context, &head);
  EXPECT_EQ(head.get("traceparent"), "00-" + std::string(kTrace) + "-3333333333333333-01");
  EXPECT_EQ(head.get("tracestate"), "foo=1");
  EXPECT_FALSE(head.has("b3"));
  EXPECT_EQ(head.fields().size(), 2u);
  Head no;
  no.add("traceparent", parent("00", "00"));
  ASSERT_TRUE(begin_span(no, model::kAlways, kRandom, &context));
  EXPECT_FALSE(context.sampled());  // the sender's word counts
}

TEST(BeginSpan, NothingWithoutAShare) {
  Head head;
  TraceContext context;
  EXPECT_FALSE(begin_span(head, 0, kRandom, &context));
  head.add("traceparent", "00-nonsense");
  EXPECT_FALSE(begin_span(head, 0, kRandom, &context));
  ASSERT_TRUE(begin_span(head, model::kAlways, kRandom, &context));
  head.add("tracestate", "old=1");
  inject(context, &head);
  EXPECT_EQ(head.get("traceparent"), "00-11111111111111112222222222222223-3333333333333333-01");
  EXPECT_FALSE(head.has("tracestate"));  // of the trace that was not valid
}

TEST(BeginSpan, ShareOfAll) {
  Head head;
  int sampled = 0;
  uint64_t x = 88172645463325252ULL;
  for (int i = 0; i < 100'000; ++i) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    TraceContext context;
    ASSERT_TRUE(begin_span(head, 100'000, {1, x, 1}, &context));
    sampled += context.sampled();
  }
  EXPECT_NEAR(sampled, 10'000, 500);
}

TEST(Inject, B3InTheFormItCame) {
  Head head;
  head.add("b3", std::string(kTrace) + "-" + kSpan + "-d");
  TraceContext context;
  ASSERT_TRUE(begin_span(head, 0, kRandom, &context));
  inject(context, &head);
  EXPECT_EQ(head.get("b3"), std::string(kTrace) + "-3333333333333333-d");
  EXPECT_TRUE(head.has("traceparent"));
  Head fields;
  fields.add("x-b3-traceid", kTrace);
  fields.add("x-b3-spanid", kSpan);
  fields.add("x-b3-sampled", "1");
  ASSERT_TRUE(begin_span(fields, 0, kRandom, &context));
  inject(context, &fields);
  EXPECT_EQ(fields.get("x-b3-traceid"), kTrace);
  EXPECT_EQ(fields.get("x-b3-spanid"), "3333333333333333");
  EXPECT_EQ(fields.get("x-b3-parentspanid"), kSpan);
  EXPECT_EQ(fields.get("x-b3-sampled"), "1");
  EXPECT_FALSE(fields.has("b3"));
}

}  // namespace
}  // namespace edgemesh::proxy
