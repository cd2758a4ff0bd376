"""Measures a first contact from inside a node: the time to the first byte of an answer, and the time
until the agent says that the path to the peer is a direct one.

    probe.py HOST PORT PEER DIRECT-TIMEOUT-SECONDS [ADMIN-PORT]

Prints {"first_byte_ms", "direct_ms" or null, "path", "first_path", "answer", "started_at"}. The agent publishes
its peers now and then: for the exact time of a change look into its log, from `started_at` (Unix seconds) on.
"""

import http.client
import json
import socket
import sys
import threading
import time

host, port, peer, limit = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
admin = http.client.HTTPConnection("127.0.0.1", int(sys.argv[5]) if len(sys.argv) > 5 else 15000, timeout=5)
out = {"first_byte_ms": None, "direct_ms": None, "path": None, "first_path": None, "answer": None}
lock = threading.Lock()


def path_now():
    with lock:
        admin.request("GET", "/peers")
        body = json.loads(admin.getresponse().read() or b"[]")
    peers = body if isinstance(body, list) else body.get("peers", [])
    return next((p.get("path") for p in peers if p.get("node") == peer), None)


path_now()  # opens the admin connection beforehand
start = time.monotonic()
out["started_at"] = time.time()


def watch():
    while time.monotonic() - start < limit:
        path = path_now()
        if path in ("direct", "punched"):
            out["direct_ms"] = (time.monotonic() - start) * 1e3
            return
        time.sleep(0.002)


watcher = threading.Thread(target=watch)
watcher.start()
try:
    s = socket.create_connection((host, port), timeout=20)
    s.sendall(b"HELLO\n")
    data = s.recv(200)
    out["first_byte_ms"] = (time.monotonic() - start) * 1e3
    out["answer"] = data.decode(errors="replace").strip()
    out["first_path"] = path_now()
except OSError as e:
    out["answer"] = f"{type(e).__name__}: {e}"
watcher.join()
out["path"] = path_now()
print(json.dumps(out))
