"""The client of udp_server.py. Prints one JSON object.

    udp_client.py MODE HOST PORT [ARGS...]
    hello              who answered
    sizes SIZE...      datagrams of these sizes come back whole, one by one
    flows COUNT EACH   COUNT sockets, EACH datagrams on each, every one is answered (a lost one is
                       asked for again, three times)
    keep COUNT SECONDS COUNT sockets ask for so long whom the server sees, without another try; how
                       many answers were lost, and how many sockets the server saw move
Exit code 0: all that was sent came back.
"""

import hashlib
import json
import os
import resource
import select
import socket
import sys
import time


def connect(host, port):
    family, kind, proto, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
    s = socket.socket(family, kind, proto)
    s.connect(where)
    return s


def ask(s, data, tries=4, wait=1.0):
    """(answer, tries that it took)"""
    for attempt in range(1, tries + 1):
        s.send(data)
        s.settimeout(wait)
        try:
            return s.recv(65536), attempt
        except TimeoutError:
            pass
        except ConnectionRefusedError:
            time.sleep(0.2)
    return None, tries


def hello(host, port):
    start = time.monotonic()
    answer, tries = ask(connect(host, port), b"HELLO", tries=10)
    return {"ok": bool(answer) and answer.startswith(b"hello from"), "answer": (answer or b"").decode(),
            "tries": tries, "ms": (time.monotonic() - start) * 1e3}


def sizes(host, port, *wanted):
    s = connect(host, port)
    wrong = []
    for size in map(int, wanted):
        data = (hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))[:size]
        answer, _ = ask(s, data)
        if answer != data:
            wrong.append({"size": size, "got": None if answer is None else len(answer)})
    return {"ok": not wrong, "wrong": wrong}


def flows(host, port, count, each):
    count, each = int(count), int(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, max(count + 100, resource.getrlimit(1)[1])))
    sockets = [connect(host, port) for _ in range(count)]
    poll = select.epoll()
    by_fd = {}
    for i, s in enumerate(sockets):
        s.setblocking(False)
        poll.register(s.fileno(), select.EPOLLIN)
        by_fd[s.fileno()] = i
    start, answered, again, missing = time.monotonic(), 0, 0, set()
    for number in range(each):
        missing = set(range(count))
        for attempt in range(4):
            again += len(missing) if attempt else 0
            waiting = list(missing)
            # No more on their way than any buffer on the way holds.
            for at in range(0, len(waiting), 100):
                for i in waiting[at:at + 100]:
                    sockets[i].send(b"%d %d" % (i, number))
                end = time.monotonic() + (0.05 if attempt == 0 else 1.0)
                while any(i in missing for i in waiting[at:at + 100]) and time.monotonic() < end:
                    for fd, _ in poll.poll(0.02, 200):
                        i = by_fd[fd]
                        if sockets[i].recv(100) == b"%d %d" % (i, number) and i in missing:
                            missing.discard(i)
                            answered += 1
            if not missing:
                break
        if missing:
            break
    return {"ok": not missing, "answered": answered, "again": again, "missing": len(missing),
            "seconds": time.monotonic() - start}


def keep(host, port, count, seconds):
    sockets = [connect(host, port) for _ in range(int(count))]
    seen = [set() for _ in sockets]
    answered = lost = 0
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        for s, sources in zip(sockets, seen):
            answer, _ = ask(s, b"WHO", tries=1)
            answered += answer is not None
            lost += answer is None
            sources.add(answer)
    moved = sum(len(sources) != 1 for sources in seen)
    return {"ok": not lost and not moved, "answered": answered, "lost": lost, "moved": moved}


def main():
    mode, host, port, *rest = sys.argv[1:]
    result = {"hello": hello, "sizes": sizes, "flows": flows, "keep": keep}[mode](host, port, *rest)
    print(json.dumps(result), flush=True)
    os._exit(0 if result["ok"] else 1)


main()
