"""An application for the lab: answers datagrams on one port.

    udp_server.py NAME PORT [ADDRESS]
A DNS query gets an answer with one TXT record, the NAME; "HELLO" gets "hello from NAME", "WHO" the
address that it came from; everything else comes back as it is.
"""

import socket
import struct
import sys


def dns_answer(query, name):
    """The query with one TXT record (RFC 1035 4.1), or None when it is no plain query."""
    if len(query) < 17 or query[2] & 0xF8 or query[4:6] != b"\0\1":
        return None
    end = 12
    while end < len(query) and query[end]:
        end += query[end] + 1
    question = query[12:end + 5]
    if len(question) < 5 or query[end + 3:end + 5] != b"\0\1":
        return None
    text = name.encode()
    record = b"\xc0\x0c" + struct.pack("!HHIHB", 16, 1, 0, len(text) + 1, len(text)) + text
    return query[:2] + b"\x84\0\0\1\0\1\0\0\0\0" + question + record


def main(name, port, address="0.0.0.0"):
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.bind((address, int(port)))
    print("ready", flush=True)
    while True:
        data, client = s.recvfrom(65536)
        if data == b"WHO":
            answer = f"{client[0]} {client[1]}".encode()
        else:
            answer = f"hello from {name}".encode() if data == b"HELLO" else dns_answer(data, name) or data
        try:
            s.sendto(answer, client)
        except OSError:
            pass


try:
    main(*sys.argv[1:])
except KeyboardInterrupt:
    pass
