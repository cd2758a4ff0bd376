"""A peer of our own making: one HTTP/2 CONNECT over mutual TLS. Prints {"status": ...} or {"refused": why}.

    h2_connect.py HOST PORT CERT KEY CA AUTHORITY

Small on purpose (RFC 9113, RFC 7541): it sends literals only and reads the status field alone.
"""

import json
import socket
import ssl
import struct
import sys

STATIC_STATUS = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
HUFFMAN_DIGITS = {d: format(i, "05b") for i, d in enumerate("012")}
HUFFMAN_DIGITS.update({d: format(0x19 + i, "06b") for i, d in enumerate("3456789")})


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header field as literal without indexing, without Huffman coding."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def status_of(block):
    first = block[0]
    while first & 0xE0 == 0x20:  # a change of the table's size
        block = block[1:]
        first = block[0]
    if first & 0x80:
        return STATIC_STATUS.get(first & 0x7F)
    length = block[1] & 0x7F
    value = block[2:2 + length]
    if not block[1] & 0x80:
        return int(value)
    bits, digits = "".join(format(b, "08b") for b in value), ""
    while bits and len(digits) < 3:
        digit, code = next((d, c) for d, c in HUFFMAN_DIGITS.items() if bits.startswith(c))
        digits, bits = digits + digit, bits[len(code):]
    return int(digits)


def exactly(s, n):
    data = b""
    while len(data) < n:
        piece = s.recv(n - len(data))
        if not piece:
            raise ConnectionError("the connection ended")
        data += piece
    return data


def main(host, port, cert, key, ca, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    s = context.wrap_socket(socket.create_connection((host, int(port)), timeout=5))
    fields = literal(":method", "CONNECT") + literal(":authority", authority)
    s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 4, 1, fields))
    while True:
        head = exactly(s, 9)
        payload = exactly(s, int.from_bytes(head[:3], "big"))
        kind, flags = head[3], head[4]
        if kind == 4 and not flags & 1:
            s.sendall(frame(4, 1, 0))
        if kind == 1:
            return {"status": status_of(payload)}
        if kind == 3:
            return {"refused": f"stream reset, code {int.from_bytes(payload, 'big')}"}
        if kind == 7:
            return {"refused": f"goaway, code {int.from_bytes(payload[4:8], 'big')}"}


try:
    print(json.dumps(main(*sys.argv[1:])))
except (OSError, ssl.SSLError) as e:
    print(json.dumps({"refused": f"{type(e).__name__}: {e}"}))
