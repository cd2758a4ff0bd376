#include "core/tls/x509.h"

#include <gtest/gtest.h>

#include "tests/support/test_pki.h"

namespace edgemesh::tls {
namespace {

using test::TestPki;

TEST(X509Test, SelfSignedCaIsACa) {
  TestPki pki("KubeEdge");

  auto info = parse_cert_pem(pki.ca().cert_pem);

  ASSERT_TRUE(info);
  EXPECT_EQ(info->common_name, "KubeEdge");
  EXPECT_EQ(info->issuer_common_name, "KubeEdge");
  EXPECT_TRUE(info->is_ca);
  EXPECT_TRUE(key_matches(pki.ca().key_pem, pki.ca().cert_pem));
}

TEST(X509Test, SignedRequestCarriesTheSignersSubjectAndTheRequestersKey) {
  TestPki pki;
  std::string key = TestPki::take(generate_key_pem());
  std::string csr = TestPki::take(
      make_csr_der(key, {"system:node:evil", {"system:masters"}, "CN", "Hangzhou", "Zhejiang"},
                   {{"spiffe://x/node/a"}, {"a.example"}, {"10.0.0.1", "fd00::1"}}));

  auto request = parse_csr_der(csr);
  SignOptions options;
  options.subject = {"system:node:a", {"system:nodes"}, "", "", ""};
  options.sans = request->sans;
  options.not_before = 1'700'000'000;
  options.not_after = 1'800'000'000;
  auto der = sign_csr(pki.ca(), csr, options);

  ASSERT_TRUE(der) << der.error().message;
  auto info = parse_cert_der(*der);
  ASSERT_TRUE(info);
  EXPECT_EQ(request->subject.common_name, "system:node:evil");
  EXPECT_EQ(request->subject.province, "Zhejiang");
  EXPECT_EQ(info->common_name, "system:node:a");
  EXPECT_EQ(info->organizations, std::vector<std::string>{"system:nodes"});
  EXPECT_EQ(info->sans.uri, std::vector<std::string>{"spiffe://x/node/a"});
  EXPECT_EQ(info->sans.dns, std::vector<std::string>{"a.example"});
  EXPECT_EQ(info->sans.ip, (std::vector<std::string>{"10.0.0.1", "fd00::1"}));
  EXPECT_EQ(info->not_before, 1'700'000'000);
  EXPECT_EQ(info->not_after, 1'800'000'000);
  EXPECT_FALSE(info->is_ca);
  EXPECT_TRUE(key_matches(key, TestPki::take(cert_der_to_pem(*der))));
  EXPECT_TRUE(verify_issued_by(*der, pki.ca().cert_pem));
}

TEST(X509Test, ChangedRequestIsRefused) {
  std::string key = TestPki::take(generate_key_pem());
  std::string csr = TestPki::take(make_csr_der(key, {"a", {}, "", "", ""}));
  csr[csr.size() / 3] ^= 1;

  EXPECT_FALSE(parse_csr_der(csr));
  EXPECT_FALSE(sign_csr(TestPki().ca(), csr, {}));
  EXPECT_FALSE(parse_csr_der(""));
  EXPECT_FALSE(parse_csr_der(csr + "x"));
}

TEST(X509Test, CertificateOfAnotherCaIsNotIssuedByThisOne) {
  TestPki ours("same name");
  TestPki theirs("same name");
  std::string der = TestPki::take(cert_pem_to_der(theirs.localhost().cert_pem));

  auto result = verify_issued_by(der, ours.ca().cert_pem);

  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kUnauthenticated);
}

TEST(X509Test, PemAndDerConvertBothWays) {
  TestPki pki;
  std::string der = TestPki::take(cert_pem_to_der(pki.ca().cert_pem));

  EXPECT_EQ(TestPki::take(cert_der_to_pem(der)), pki.ca().cert_pem);
  EXPECT_FALSE(cert_der_to_pem("garbage"));
  EXPECT_FALSE(pem_to_der("no pem", "CERTIFICATE"));
  std::string sec1 = TestPki::take(key_pem_to_sec1_der(pki.ca().key_pem));
  EXPECT_TRUE(key_matches(der_to_pem(sec1, "EC PRIVATE KEY"), pki.ca().cert_pem));
}

TEST(X509Test, HashesAndEncodings) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(base64_encode(""), "");
  EXPECT_EQ(base64_encode("ab"), "YWI=");
  for (std::string text : {"", "a", "ab", "abc", "abcd"}) {
    EXPECT_EQ(base64_decode(base64_encode(text)).value(), text);
    EXPECT_EQ(base64url_decode(base64url_encode(text)).value(), text);
  }
  EXPECT_FALSE(base64_decode("a=b="));
  EXPECT_FALSE(base64_decode("abc"));
  EXPECT_FALSE(base64url_decode("ab=="));
  EXPECT_EQ(random_bytes(16).size(), 16u);
  EXPECT_NE(random_bytes(16), random_bytes(16));
}

TEST(X509Test, SpiffeIdsOfOtherDomainsOrFormsAreEmpty) {
  EXPECT_EQ(node_spiffe_id("edgemesh.local", "n1"), "spiffe://edgemesh.local/node/n1");
  EXPECT_EQ(node_from_spiffe_id("spiffe://edgemesh.local/node/n1", "edgemesh.local"), "n1");
  EXPECT_EQ(node_from_spiffe_id("spiffe://other/node/n1", "edgemesh.local"), "");
  EXPECT_EQ(node_from_spiffe_id("spiffe://edgemesh.local/node/", "edgemesh.local"), "");
  EXPECT_EQ(node_from_spiffe_id("spiffe://edgemesh.local/node/a/b", "edgemesh.local"), "");
}

}  // namespace
}  // namespace edgemesh::tls
