"""Requests that two parsers may understand differently.

A case: (name, bytes, expected). `expected` is what the first that speaks our HTTP may make of it when it comes to us
directly: REJECT (no request gets through), a list of bodies of the requests that get through, or ANY (whatever it
is, all have to agree). NNNN in the bytes is replaced by the case's number of four digits.
"""

import struct

REJECT, ANY, CUT = "reject", "any", "cut"


def post(fields, body, path="/a?NNNN", line=None):
    return ((line or f"POST {path} HTTP/1.1\r\n") + "Host: h\r\n" + fields + "\r\n").encode("latin-1") + body.encode("latin-1")


SMUGGLED = "GET /smuggled?NNNN HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
END = "0\r\n\r\n"


def get(fields, after="", line="GET /a?NNNN HTTP/1.1\r\n", host="Host: h\r\n"):
    return (line + host + fields + "\r\n" + after).encode("latin-1")


def chunked(body):
    return post(CHUNKED, body)


LENGTHS = [
    ("CL.TE", post(f"Content-Length: {len(END + SMUGGLED)}\r\n" + CHUNKED, END + SMUGGLED)),
    ("TE.CL", post(CHUNKED + "Content-Length: 4\r\n", f"{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n" + END)),
    ("CL.TE, length zero", post("Content-Length: 0\r\n" + CHUNKED, END)),
    ("CL and TE of an HTTP/1.0 request", post("Content-Length: 5\r\n" + CHUNKED, END, line="POST /a?NNNN HTTP/1.0\r\n")),
    ("TE in an HTTP/1.0 request", post(CHUNKED, END + SMUGGLED, line="POST /a?NNNN HTTP/1.0\r\n")),
    ("two unequal CL", post("Content-Length: 0\r\n" + f"Content-Length: {len(SMUGGLED)}\r\n", SMUGGLED)),
    ("two unequal CL, the other way", post(f"Content-Length: {len(SMUGGLED)}\r\n" + "Content-Length: 0\r\n", SMUGGLED)),
    ("two equal CL", post("Content-Length: 2\r\nContent-Length: 2\r\n", "hi")),
    ("CL list", post("Content-Length: 2, 2\r\n", "hi")),
    ("CL list, unequal", post(f"Content-Length: 0, {len(SMUGGLED)}\r\n", SMUGGLED)),
    ("CL negative", post("Content-Length: -1\r\n", SMUGGLED)),
    ("CL with a plus", post("Content-Length: +2\r\n", "hi")),
    ("CL hex", post("Content-Length: 0x2\r\n", "hi")),
    ("CL with a suffix", post("Content-Length: 2a\r\n", "hi")),
    ("CL with a space inside", post("Content-Length: 1 0\r\n", "0123456789")),
    ("CL with an underscore", post("Content_Length: 40\r\nContent-Length: 0\r\n", SMUGGLED), ["", ""]),
    ("CL empty", post("Content-Length:\r\n", SMUGGLED)),
    ("CL of 2^64 + 2", post("Content-Length: 18446744073709551618\r\n", "hi")),
    ("CL of 2^63", post("Content-Length: 9223372036854775808\r\n", "hi")),
    ("CL with a decimal point", post("Content-Length: 2.0\r\n", "hi")),
    ("CL in quotes", post("Content-Length: \"2\"\r\n", "hi")),
    ("CL named by Connection", post("Connection: close, content-length\r\nContent-Length: 2\r\n", "hi"), ["hi"]),
    ("TE named by Connection", post("Connection: transfer-encoding\r\n" + CHUNKED, "2\r\nhi\r\n" + END), ANY),
    ("CL with leading zeros", post("Content-Length: 0002\r\n", "hi"), ANY),
    ("CL with white space around it", post("Content-Length: \t 2 \t\r\n", "hi"), ["hi"]),
]

CODINGS = [
    (f"TE {name}", post(text, f"{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n" + END))
    for name, text in (
        ("xchunked", "Transfer-Encoding: xchunked\r\n"), ("space before the colon", "Transfer-Encoding : chunked\r\n"),
        ("vertical tab", "Transfer-Encoding:\x0bchunked\r\n"), ("form feed", "Transfer-Encoding: \x0cchunked\r\n"),
        ("null", "Transfer-Encoding: chunked\0\r\n"), ("quoted", "Transfer-Encoding: \"chunked\"\r\n"),
        ("single quoted", "Transfer-Encoding: 'chunked'\r\n"), ("twice", CHUNKED + "Transfer-Encoding: identity\r\n"),
        ("twice, the other way", "Transfer-Encoding: identity\r\n" + CHUNKED), ("identity, chunked", "Transfer-Encoding: identity, chunked\r\n"),
        ("chunked, identity", "Transfer-Encoding: chunked, identity\r\n"), ("chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n"),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"), ("folded", "Transfer-Encoding:\r\n chunked\r\n"),
        ("in a folded field", "X: y\r\n Transfer-Encoding: chunked\r\n"), ("after a bare LF", "X: y\nTransfer-Encoding: chunked\r\n"),
        ("after a bare CR", "X: y\rTransfer-Encoding: chunked\r\n"), ("a letter of another alphabet", "Transfer-Encoding: chun\xe9ked\r\n"),
        ("with a parameter", "Transfer-Encoding: chunked;a=b\r\n"), ("a line begun by a space", " Transfer-Encoding: chunked\r\n"),
        ("underscore", "Transfer_Encoding: chunked\r\nTransfer-Encoding: x\r\n"), ("empty", "Transfer-Encoding:\r\n"),
        ("a comma", "Transfer-Encoding: ,chunked\r\n"))
]

CHUNKS = [
    (f"chunk size {name}", chunked(size + "\r\nhi\r\n" + END + SMUGGLED))
    for name, size in (("with a plus", "+2"), ("negative", "-2"), ("0x", "0x2"), ("with a space before", " 2"), ("with junk", "2g"),
                       ("empty", ""), ("of 2^64 + 2", "10000000000000002"), ("in quotes", "\"2\""), ("with a null", "2\0"),
                       ("with an underscore", "0_2"), ("with a tab", "\t2"))
] + [
    ("chunk line ends by LF", chunked("2\nhi\r\n" + END)),
    ("chunk line ends by CR", chunked("2\rhi\r\n" + END)),
    ("chunk data longer than its size", chunked("2\r\nhiho\r\n" + END)),
    ("chunk data end by LF", chunked("2\r\nhi\n" + END)),
    ("chunk extension with LF", chunked("2;a=b\nxx\r\nhi\r\n" + END)),
    ("chunk extension with CR", chunked("2;a\rb\r\nhi\r\n" + END)),
    ("chunk extension with a null", chunked("2;a\0b\r\nhi\r\n" + END)),
    ("last chunk of zeros", chunked("2\r\nhi\r\n000\r\n\r\n"), ["hi"]),
    ("chunk extension", chunked("2;a=b\r\nhi\r\n" + END), ["hi"]),
    ("chunk extension quoted, with a CRLF", chunked("2;a=\"\r\n\"\r\nhi\r\n" + END), ANY),
    ("trailer that is CL", chunked("2\r\nhi\r\n0\r\nContent-Length: 50\r\n\r\n" + SMUGGLED), ANY),
    ("trailer that is TE", chunked("2\r\nhi\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED), ANY),
    ("trailer with a space before the colon", chunked("2\r\nhi\r\n0\r\nX : y\r\n\r\n")),
    ("trailer with a bare LF", chunked("2\r\nhi\r\n0\r\nX: y\nZ: z\r\n\r\n")),
    ("trailers end by LF", chunked("2\r\nhi\r\n0\r\nX: y\r\n\n")),
]

HEADS = [
    ("space before a colon", get("X : y\r\n")),
    ("no colon", get("X\r\n")),
    ("empty name", get(": y\r\n")),
    ("name with a null", get("X\0Y: y\r\n")),
    ("value with a null", get("X: a\0b\r\n")),
    ("value with a bare CR", get("X: a\rGET /smuggled?NNNN HTTP/1.1\r\n")),
    ("value with a bare LF", get("X: a\nY: b\r\n")),
    ("head ends by LF LF", b"GET /a?NNNN HTTP/1.1\nHost: h\n\n"),
    ("head ends by LF CRLF", get("X: a\n")),
    ("request line ends by LF", get("", line="GET /a?NNNN HTTP/1.1\n")),
    ("request line begun by a space", get("", line=" GET /a?NNNN HTTP/1.1\r\n")),
    ("two spaces in the request line", get("", line="GET  /a?NNNN HTTP/1.1\r\n")),
    ("tab in the request line", get("", line="GET\t/a?NNNN\tHTTP/1.1\r\n")),
    ("space in the target", get("", line="GET /a?NNNN b HTTP/1.1\r\n")),
    ("CR in the target", get("", line="GET /a?NNNN\rX HTTP/1.1\r\n")),
    ("null in the target", get("", line="GET /a?NNNN\0 HTTP/1.1\r\n")),
    ("no version", b"GET /a?NNNN\r\n\r\n"),
    ("version 1.10", get("", line="GET /a?NNNN HTTP/1.10\r\n")),
    ("version 2.0", get("", line="GET /a?NNNN HTTP/2.0\r\n")),
    ("version in lower case", get("", line="GET /a?NNNN http/1.1\r\n")),
    ("no Host", get("", host="")),
    ("two Hosts", get("", host="Host: h\r\nHost: i\r\n")),
    ("two equal Hosts", get("", host="Host: h\r\nHost: h\r\n")),
    ("Host with a space", get("", host="Host: h i\r\n")),
    ("Host with a slash", get("", host="Host: h/x\r\n")),
    ("Host with userinfo", get("", host="Host: a@h\r\n"), ANY),
    ("Host folded", get("", host="Host:\r\n h\r\n")),
    ("absolute form, another Host", get("", line="GET http://h/a?NNNN HTTP/1.1\r\n", host="Host: i\r\n"), ANY),
    ("absolute form, no Host", get("", line="GET http://h/a?NNNN HTTP/1.1\r\n", host="")),
    ("obs-fold", get("X: a\r\n b\r\n")),
    ("obs-fold before the first field", get("", host=" X: y\r\nHost: h\r\n")),
    ("GET with a body", get(f"Content-Length: {len(SMUGGLED)}\r\n", SMUGGLED), [SMUGGLED]),
    ("GET with a chunked body", get(CHUNKED, f"{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n" + END), [SMUGGLED]),
    ("pipelined requests", get("", SMUGGLED), ["", ""]),
    ("pipelined after a body", post("Content-Length: 2\r\n", "hi" + SMUGGLED), ["hi", ""]),
    ("empty lines between requests", get("", "\r\n\r\n" + SMUGGLED), ANY),
    ("more after Connection: close", get("Connection: close\r\n", SMUGGLED), [""]),
    ("Expect and a body at once", post("Expect: 100-continue\r\nContent-Length: 2\r\n", "hi" + SMUGGLED), ["hi", ""]),
    ("Expect of something else", post("Expect: x\r\nContent-Length: 2\r\n", "hi" + SMUGGLED), ANY),
    ("Expect, mixed up", post("Expect: y 100-continue\r\nContent-Length: 0\r\n", SMUGGLED), ANY),
    ("HEAD with a body", post(f"Content-Length: {len(SMUGGLED)}\r\n", SMUGGLED, line="HEAD /a?NNNN HTTP/1.1\r\n"), ANY),
    ("Upgrade that nobody takes, and a request", get("Connection: upgrade\r\nUpgrade: x\r\n", SMUGGLED), ANY),
    ("Upgrade of a WebSocket of a wrong version", get("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 9\r\n"
                                                      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", SMUGGLED), ANY),
    ("Upgrade with a body", post(f"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: {len(SMUGGLED)}\r\n", SMUGGLED), [SMUGGLED]),
    ("h2c upgrade with wrong settings", get("Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: !\r\n", SMUGGLED), ["", ""]),
    ("h2c upgrade with a body", post("Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
                                     f"Content-Length: {len(SMUGGLED)}\r\n", SMUGGLED), [SMUGGLED]),
    ("Connection names Host", get("Connection: host\r\n"), ANY),
    ("Connection names X-Forwarded-For", get("Connection: x-forwarded-for\r\n"), [""]),
    ("a method with a colon", get("", line="GE:T /a?NNNN HTTP/1.1\r\n")),
    ("CONNECT with a path", get("", SMUGGLED, line="CONNECT /a?NNNN HTTP/1.1\r\n")),
    ("CONNECT that nobody takes, and a request", get("", SMUGGLED, line="CONNECT h:80 HTTP/1.1\r\n"), ANY),
]

HTTP1 = [case if len(case) == 3 else (*case, REJECT) for case in LENGTHS + CODINGS + CHUNKS + HEADS]


# ---- HTTP/2: the fields are literals that are not indexed, so that anything can be written.

def integer(value, bits):
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([value])
    out, value = bytearray([limit]), value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out + bytes([value]))


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def fields(pairs):
    out = b""
    for name, value in pairs:
        name, value = name.encode("latin-1"), value.encode("latin-1")
        out += b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value
    return out


def request(more=(), body=None, method="POST", path="/a?NNNN", authority="h", scheme="http"):
    pairs = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
    pairs = [p for p in pairs if p[1] is not None] + list(more)
    return [(pairs, body)]


TAIL = "\r\n\r\n" + SMUGGLED
HTTP2 = [case if len(case) == 3 else (*case, REJECT) for case in [
    ("CRLF in a value", request([("x", "a\r\nTransfer-Encoding: chunked")], SMUGGLED)),
    ("LF in a value", request([("x", "a\nb: c")])),
    ("CR in a value", request([("x", "a\rb: c")])),
    ("null in a value", request([("x", "a\0b")])),
    ("CRLF in a name", request([("x: y\r\nz", "a")])),
    ("colon in a name", request([("x:y", "a")])),
    ("upper case in a name", request([("X", "a")])),
    ("space in a name", request([("x y", "a")])),
    ("empty name", request([("", "a")])),
    (":path with a space", request(path="/a?NNNN HTTP/1.1\r\nHost: h\r\n\r\nGET /smuggled?NNNN")),
    (":path with one space", request(path="/a?NNNN x")),
    (":path with CRLF", request(path="/a?NNNN" + TAIL)),
    (":path with a tab", request(path="/a?NNNN\tx")),
    (":path without a slash", request(path="a?NNNN")),
    (":path empty", request(path="")),
    ("no :path", request(path=None)),
    (":method with a space", request(method="GET /smuggled?NNNN HTTP/1.1\r\nX: y", path="/a?NNNN")),
    (":method with CRLF", request(method="GET" + TAIL)),
    (":authority with CRLF", request(authority="h\r\nX: y")),
    (":authority with a space", request(authority="h x")),
    (":authority with a slash", request(authority="h/smuggled?NNNN")),
    (":authority and another host", request([("host", "i")])),
    (":scheme with CRLF", request(scheme="http\r\nX: y")),
    (":scheme with a path", request(scheme="http://x/y?")),
    ("two :path", request([(":path", "/smuggled?NNNN")])),
    ("a pseudo-field after others", [([("x", "y"), (":method", "GET"), (":scheme", "http"), (":path", "/a?NNNN"), (":authority", "h")], None)]),
    ("transfer-encoding", request([("transfer-encoding", "chunked")], END + SMUGGLED)),
    ("connection", request([("connection", "close")])),
    ("connection that names a field", request([("connection", "content-length"), ("content-length", "0")])),
    ("upgrade", request([("upgrade", "websocket")])),
    ("keep-alive", request([("keep-alive", "1")])),
    ("proxy-connection", request([("proxy-connection", "close")])),
    ("te other than trailers", request([("te", "chunked")])),
    # The head was passed on before the body came: the server may take it for whole, the client gets no answer.
    ("content-length less than the body", request([("content-length", "0")], SMUGGLED), CUT),
    ("content-length more than the body", request([("content-length", "500")], SMUGGLED)),
    ("two content-lengths", request([("content-length", "2"), ("content-length", "3")], "hi")),
    ("content-length with a plus", request([("content-length", "+2")], "hi")),
    ("content-length list", request([("content-length", "2, 2")], "hi")),
    ("content-length negative", request([("content-length", "-2")], "hi")),
    ("content-length with a newline", request([("content-length", "2\r\nx: y")], "hi")),
    ("a sound request", request([("content-length", "2")], "hi"), ["hi"]),
    ("a sound request without a length", request([], SMUGGLED), [SMUGGLED]),
    ("two sound requests", request([], "a") + request([], SMUGGLED), ["a", SMUGGLED]),
    ("GET with a body without a length", request([], SMUGGLED, method="GET"), [SMUGGLED]),
    ("HEAD with a body", request([], SMUGGLED, method="HEAD"), ANY),
    ("expect", request([("expect", "100-continue")], "hi"), ["hi"]),
    (":path absolute", request(path="http://i/a?NNNN")),
    ("extended CONNECT of an unknown protocol", request([(":protocol", "x")], SMUGGLED, method="CONNECT"), ANY),
    ("a field named like a request line", request([("get /smuggled?NNNN http/1.1", "x")])),
    ("a cookie with CRLF", request([("cookie", "a=b\r\n\r\nGET /smuggled?NNNN HTTP/1.1")])),
]]


def h2_wire(requests, number):
    """Preface, SETTINGS and the requests on streams 1, 3, ... as bytes."""
    out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
    for i, (pairs, body) in enumerate(requests):
        pairs = [(n.replace("NNNN", str(number)), v.replace("NNNN", str(number))) for n, v in pairs]
        out += frame(1, 4 if body is not None else 5, 2 * i + 1, fields(pairs))
        if body is not None:
            out += frame(0, 1, 2 * i + 1, body.replace("NNNN", str(number)).encode("latin-1"))
    return out
