"""The client of tcp_server.py. Prints one JSON object.

    tcp_client.py MODE HOST PORT [ARGS...]
    hello                        who answered, and when
    download BYTES SEED [RATE]   reads to the end and checks; RATE: bytes a second read (slow reader)
    upload BYTES SEED [RATE]     sends, ends, and compares the server's checksum; RATE: slow writer
    short COUNT PARALLEL         that many connections, each one question and answer
    concurrent COUNT [SECONDS]   all open at once; each echoes twice, SECONDS apart
    halfclose                    ends its own direction, then still reads
    echo SECONDS [INTERVAL]      one connection that echoes a line again and again; longest gap
Exit code 0: no byte was lost or wrong.
"""

import asyncio
import hashlib
import json
import os
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from pattern import chunks, digest  # noqa: E402

TIMEOUT = 120


def connect(host, port, timeout=TIMEOUT):
    s = socket.create_connection((host, int(port)), timeout=timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read_all(s):
    data = b""
    while piece := s.recv(65536):
        data += piece
    return data


def hello(host, port, timeout="20"):
    start = time.monotonic()
    s = connect(host, port, float(timeout))
    connected = time.monotonic()
    s.sendall(b"HELLO\n")
    data = s.recv(100)
    first = time.monotonic()
    data += read_all(s)
    ok = data.startswith(b"hello from")
    return {"ok": ok, "answer": data.decode(errors="replace").strip(), "connect_ms": (connected - start) * 1e3,
            "first_byte_ms": (first - start) * 1e3}


def paced(start, done, rate):
    if rate:
        ahead = done / rate - (time.monotonic() - start)
        if ahead > 0:
            time.sleep(ahead)


def download(host, port, total, seed, rate="0"):
    total, seed, rate = int(total), int(seed), float(rate)
    s = connect(host, port)
    if rate:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    s.sendall(f"SOURCE {total} {seed}\n".encode())
    d, got, start, last, gap = hashlib.sha256(), 0, time.monotonic(), time.monotonic(), 0.0
    while data := s.recv(min(1 << 18, int(rate / 20) or 1 << 18)):
        d.update(data)
        got += len(data)
        now = time.monotonic()
        gap, last = max(gap, now - last), now
        paced(start, got, rate)
    seconds = time.monotonic() - start
    return {"ok": got == total and d.hexdigest() == digest(total, seed), "bytes": got, "seconds": seconds,
            "mbit": got * 8e-6 / seconds, "longest_gap_ms": gap * 1e3}


def upload(host, port, total, seed, rate="0"):
    total, seed, rate = int(total), int(seed), float(rate)
    s = connect(host, port)
    start, sent = time.monotonic(), 0
    s.sendall(b"SINK\n")
    step = max(1, int(rate / 20)) if rate else 1 << 18
    for chunk in chunks(total, seed):
        for i in range(0, len(chunk), step):
            s.sendall(chunk[i:i + step])
            sent += len(chunk[i:i + step])
            paced(start, sent, rate)
    s.shutdown(socket.SHUT_WR)
    answer = read_all(s).decode(errors="replace").split()
    seconds = time.monotonic() - start
    return {"ok": answer == [str(total), digest(total, seed)], "answer": answer, "seconds": seconds,
            "mbit": total * 8e-6 / seconds}


async def one_short(host, port):
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"HELLO\n")
        return (await reader.read(-1)).startswith(b"hello from")
    finally:
        writer.close()


async def short_all(host, port, count, parallel):
    left, good, errors = count, 0, {}

    async def worker():
        nonlocal left, good
        while left > 0:
            left -= 1
            try:
                answered = await asyncio.wait_for(one_short(host, port), 30)
                good += answered
            except (OSError, asyncio.TimeoutError) as e:
                errors[repr(e)] = errors.get(repr(e), 0) + 1

    start = time.monotonic()
    await asyncio.gather(*[worker() for _ in range(parallel)])
    seconds = time.monotonic() - start
    return {"ok": good == count, "good": good, "errors": errors, "per_second": count / seconds}


def short(host, port, count, parallel):
    return asyncio.run(short_all(host, port, int(count), int(parallel)))


async def concurrent_all(host, port, count, seconds):
    gate = asyncio.Semaphore(100)  # connects at a time
    ready, go = 0, asyncio.Event()

    async def one(i):
        nonlocal ready
        async with gate:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"ECHO\n%d first\n" % i)
            if await asyncio.wait_for(reader.readline(), 60) != b"%d first\n" % i:
                return False
        ready += 1
        if ready == count:
            go.set()
        await asyncio.wait_for(go.wait(), 90)
        await asyncio.sleep(seconds)
        writer.write(b"%d second\n" % i)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(-1), 60)
        writer.close()
        return answer == b"%d second\n" % i

    results = await asyncio.gather(*[one(i) for i in range(count)], return_exceptions=True)
    good = sum(1 for r in results if r is True)
    bad = sorted({repr(r) for r in results if r is not True})
    return {"ok": good == count, "good": good, "errors": bad[:5]}


def concurrent(host, port, count, seconds="0"):
    return asyncio.run(concurrent_all(host, port, int(count), float(seconds)))


def halfclose(host, port):
    s = connect(host, port)
    s.sendall(b"LAST\nsome bytes\n")
    s.shutdown(socket.SHUT_WR)
    answer = read_all(s)
    return {"ok": answer == b"after the end\n", "answer": answer.decode(errors="replace")}


def echo(host, port, seconds, interval="0.02"):
    s = connect(host, port, 60)
    s.sendall(b"ECHO\n")
    end, count, longest, longest_at, begin = time.monotonic() + float(seconds), 0, 0.0, 0.0, time.monotonic()
    while time.monotonic() < end:
        line = b"%d\n" % count
        start = time.monotonic()
        s.sendall(line)
        got = b""
        while len(got) < len(line):
            piece = s.recv(4096)
            if not piece:
                return {"ok": False, "count": count, "why": "the connection ended"}
            got += piece
        if got != line:
            return {"ok": False, "count": count, "why": f"sent {line!r}, got {got!r}"}
        took = time.monotonic() - start
        if took > longest:
            longest, longest_at = took, start - begin
        count += 1
        time.sleep(float(interval))
    return {"ok": True, "count": count, "longest_ms": longest * 1e3, "longest_at_s": longest_at}


MODES = {f.__name__: f for f in (hello, download, upload, short, concurrent, halfclose, echo)}
begun = time.monotonic()
try:
    result = MODES[sys.argv[1]](*sys.argv[2:])
except OSError as error:
    result = {"ok": False, "why": f"{type(error).__name__}: {error}"}
result["elapsed_s"] = time.monotonic() - begun
print(json.dumps(result))
sys.exit(0 if result["ok"] else 1)
