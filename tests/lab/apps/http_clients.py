#!/usr/bin/python3
"""HTTP/1.1 clients that count: http_clients.py HOST:PORT SECONDS [PATH]. Two open a connection for each request, two
keep theirs; with a PATH one asks for it, each time on a new connection, at an easy pace. The last line is JSON:
{"answered", "connections", "failed", "errors": the first five}. A request that got no answer, or another one than 200,
has failed; nothing is tried again."""

import json
import socket
import sys
import threading
import time

HOST, PORT = sys.argv[1].rsplit(":", 1)
PATH = sys.argv[3] if len(sys.argv) > 3 else "/"
END = time.monotonic() + float(sys.argv[2])
counts = {"answered": 0, "connections": 0, "failed": 0, "errors": []}
lock = threading.Lock()


def connect():
    with lock:
        counts["connections"] += 1
    s = socket.create_connection((HOST, int(PORT)), timeout=10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def ask(s, close):
    """One request; True when the connection may have another."""
    s.sendall(b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: localhost\r\n" + (b"Connection: close\r\n" if close else b"") + b"\r\n")
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
                counts["failed"] += 1
                if len(counts["errors"]) < 5:
                    counts["errors"].append(f"{'kept' if keep else 'new'} connection: {error}")
        if not (keep and again) and s is not None:
            s.close()
            s = None
        time.sleep(pause)


LOADS = ((False, 0.002),) if len(sys.argv) > 3 else ((False, 0), (False, 0.002), (True, 0), (True, 0.003))
threads = [threading.Thread(target=client, args=a) for a in LOADS]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(counts), flush=True)
