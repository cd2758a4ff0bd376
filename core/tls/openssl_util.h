// Owners for OpenSSL objects and its error queue as an Error. For core/tls only.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/tls/context.h"

namespace edgemesh::tls {

template <class T, void (*Free)(T*)>
struct OpensslDelete {
  void operator()(T* p) const { Free(p); }
};
template <class T, void (*Free)(T*)>
using OpensslPtr = std::unique_ptr<T, OpensslDelete<T, Free>>;

inline void free_bio(BIO* bio) {
  BIO_free_all(bio);
}
inline void free_extensions(STACK_OF(X509_EXTENSION) * list) {
  sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
}

using BioPtr = OpensslPtr<BIO, free_bio>;
using KeyPtr = OpensslPtr<EVP_PKEY, EVP_PKEY_free>;
using X509Ptr = OpensslPtr<X509, X509_free>;
using ReqPtr = OpensslPtr<X509_REQ, X509_REQ_free>;
using NamePtr = OpensslPtr<X509_NAME, X509_NAME_free>;
using StorePtr = OpensslPtr<X509_STORE, X509_STORE_free>;
using StoreCtxPtr = OpensslPtr<X509_STORE_CTX, X509_STORE_CTX_free>;
using ExtensionsPtr = OpensslPtr<STACK_OF(X509_EXTENSION), free_extensions>;
using GeneralNamesPtr = OpensslPtr<GENERAL_NAMES, GENERAL_NAMES_free>;
using SslCtxPtr = OpensslPtr<SSL_CTX, SSL_CTX_free>;
using SslPtr = OpensslPtr<SSL, SSL_free>;

// Takes the oldest reason off this thread's error queue and empties the queue.
std::string openssl_reason();
tl::unexpected<Error> fail_openssl(std::string_view what,
                                   ErrorCode code = ErrorCode::kInvalidArgument);

BioPtr bio_over(std::string_view data);
std::string bio_text(BIO* bio);
// A PEM file with a pass phrase must not make OpenSSL ask the terminal for it.
int no_pass_phrase(char* buffer, int size, int write, void* user);

Result<KeyPtr> read_key(std::string_view pem);
Result<X509Ptr> read_cert_pem(std::string_view pem);
Result<X509Ptr> read_cert_der(std::string_view der);
Result<std::string> cert_to_der(X509* cert);
PeerIdentity identity_of(X509* cert);
int64_t asn1_to_unix(const ASN1_TIME* time);
std::vector<std::string> name_entries(const X509_NAME* name, int nid);
struct SanLists {
  std::vector<std::string> uri, dns, ip;
};
SanLists san_lists(const GENERAL_NAMES* names);

// A signing request whose signature was checked: its sender holds the key.
Result<ReqPtr> read_csr_der(std::string_view csr_der);

}  // namespace edgemesh::tls
