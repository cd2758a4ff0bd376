#!/usr/bin/python3
"""HTTP/1.1 clients that count: http_clients.py HOST:PORT SECONDS. Two open a connection for each request, two keep
theirs. The last line is JSON: {"answered", "connections", "failed": [what, ...]}. A request that got no answer, or another
one than 200, has failed; nothing is tried again."""

import json
import socket
import sys
import threading
import time

HOST, PORT = sys.argv[1].rsplit(":", 1)
END = time.monotonic() + float(sys.argv[2])
counts = {"answered": 0, "connections": 0, "failed": []}
lock = threading.Lock()


def connect():
    with lock:
        counts["connections"] += 1
    s = socket.create_connection((HOST, int(PORT)), timeout=10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def ask(s, close):
    """One request; True when the connection may have another."""
    s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"Connection: close\r\n" if close else b"") + b"\r\n")
    data = b""
    while b"\r\n\r\n" not in data:
        piece = s.recv(65536)
        if not piece:
            raise OSError(f"the end after {len(data)} bytes of the head")
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    fields = head.lower().split(b"\r\n")
    if not fields[0].startswith(b"http/1.1 200"):
        raise OSError(f"answered {fields[0]!r}")
    length = next(int(f.split(b":")[1]) for f in fields if f.startswith(b"content-length:"))
    while len(body) < length:
        piece = s.recv(65536)
        if not piece:
            raise OSError(f"the end after {len(body)} of {length} bytes")
        body += piece
    return b"connection: close" not in fields


def client(keep, pause):
    s = None
    while time.monotonic() < END:
        try:
            s = s or connect()
            again = ask(s, close=not keep)
            with lock:
                counts["answered"] += 1
        except OSError as error:
            again = False
            with lock:
                counts["failed"].append(f"{'kept' if keep else 'new'} connection: {error}")
        if not (keep and again) and s is not None:
            s.close()
            s = None
        time.sleep(pause)


threads = [threading.Thread(target=client, args=a) for a in ((False, 0), (False, 0.002), (True, 0), (True, 0.003))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(counts), flush=True)
