// docs/proxy.md names every word that the reader of the configuration knows.
#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

namespace edgemesh::proxy::model {
namespace {

namespace fs = std::filesystem;
const fs::path kSource = EDGEMESH_SOURCE_DIR;

std::string text_of(const fs::path& file) {
  std::ostringstream out;
  out << std::ifstream(file).rdbuf();
  return out.str();
}

bool word_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-';
}

// Keys and words of choices: literals of such characters that begin an argument or an entry of a
// table.
std::set<std::string> words_of(const std::string& source) {
  std::set<std::string> out;
  for (size_t at = source.find('"'); at != std::string::npos; at = source.find('"', at + 1)) {
    const size_t before = at == 0 ? at : source.find_last_not_of(" \n", at - 1);
    if (before >= source.size() ||
        std::string_view("({,").find(source[before]) == std::string_view::npos)
      continue;
    size_t end = at + 1;
    while (end < source.size() && word_char(source[end])) ++end;
    if (end < source.size() && source[end] == '"' && end > at + 1 &&
        std::isalnum(static_cast<unsigned char>(source[at + 1])) != 0) {
      out.insert(source.substr(at + 1, end - at - 1));
    }
  }
  return out;
}

TEST(ProxyDocs, NameEveryKeyAndChoice) {
  const std::string page = text_of(kSource / "docs/proxy.md");
  ASSERT_FALSE(page.empty());
  size_t words = 0;
  for (const auto& entry : fs::directory_iterator(kSource / "proxy/model")) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".cc") || name.find("config") == std::string::npos) continue;
    for (const auto& word : words_of(text_of(entry.path()))) {
      ++words;
      const bool named = page.find("`" + word + "`") != std::string::npos ||
                         page.find("." + word + "`") != std::string::npos;
      EXPECT_TRUE(named) << name << " reads '" << word << "', docs/proxy.md does not name it";
    }
  }
  EXPECT_GT(words, 300U);  // the pattern still finds them
}

}  // namespace
}  // namespace edgemesh::proxy::model
