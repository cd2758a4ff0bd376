// Which coding an answer gets (RFC 9110 12.5.3, 8.4), and what that does to its head. Pure functions.
#pragma once

#include "proxy/compress/encoder.h"
#include "proxy/http/head.h"
#include "proxy/model/filter.h"

namespace edgemesh::proxy {

// What the client takes of what is offered, by its weights; zstd before gzip where they are equal.
Coding choose_coding(const model::Compression& spec, const Head& request);

// Whether this answer may be coded: not coded yet, whole, of a type that is worth it, long enough, not
// forbidden by Cache-Control: no-transform (RFC 9110 7.7).
bool may_encode(const model::Compression& spec, const Head& request, const Head& answer);

// Content-Coding in, length and what depends on the bytes out. Vary is added by add_vary(), also to
// answers that would be coded for another client.
void note_encoded(const model::Compression& spec, Coding coding, Head* answer);
void add_vary(Head* answer);

}  // namespace edgemesh::proxy
