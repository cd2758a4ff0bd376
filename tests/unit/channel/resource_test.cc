#include "core/channel/resource.h"

#include <gtest/gtest.h>

namespace edgemesh::channel {
namespace {

TEST(ResourceName, IsReadAndWrittenAsOnTheWire) {
  ResourceName name;
  ASSERT_TRUE(ResourceName::parse("default/pod/web", &name));
  EXPECT_EQ(name, (ResourceName{"pod", "default", "web"}));
  EXPECT_EQ(name.text(), "default/pod/web");
  ASSERT_TRUE(ResourceName::parse("null/node/edge-1", &name));
  EXPECT_EQ(name, (ResourceName{"node", "", "edge-1"}));
  EXPECT_EQ(name.text(), "null/node/edge-1");
}

TEST(ResourceName, RefusesWhatHasAnotherForm) {
  ResourceName name;
  for (const char* text :
       {"", "pod", "default/podlist", "/pod/web", "default//web", "default/pod/", "a/b/c/d"}) {
    EXPECT_FALSE(ResourceName::parse(text, &name)) << text;
  }
}

}  // namespace
}  // namespace edgemesh::channel
