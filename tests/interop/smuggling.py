"""Request smuggling: raw requests to us with nginx, haproxy or a strict server behind us, and through nginx and
haproxy to us. Whoever is in front and the server behind have to agree on how many requests there were and what was
in them, answers have to stay in step, and the next client's request on the same connections has to be its own.

    EDGEMESH_INTEROP_RUN=smuggling tests/interop/clients.sh [WORD...]
"""

import json
import re
import socket
import sys
import threading

import lib
from lib import HAPROXY_DEFAULTS, wait
from smuggling_cases import CUT, HTTP1, HTTP2, REJECT, frame, h2_wire

QUIET = 0.35  # seconds without a byte: nothing more comes


class Strict:
    """A server that takes requests by the letter only, and keeps what it understood: (number of the case, body)."""

    def __init__(self):
        self.seen, self.wrong, self.lock = [], [], threading.Lock()
        self.socket = socket.create_server(("127.0.0.1", lib.port()), backlog=256)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.socket.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        data = b""
        with client:
            while True:
                try:
                    got = self.parse(data)
                    while got is None:
                        more = client.recv(65536)
                        if not more:
                            if data:
                                self.note_wrong("cut off", data)
                            return
                        data += more
                        got = self.parse(data)
                    method, target, body, used = got
                    data = data[used:]
                    number = re.search(r"\?(\d+)", target)
                    with self.lock:
                        self.seen.append((int(number.group(1)) if number else -1, body))
                    answer = json.dumps({"target": target, "body": body}).encode()
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) +
                                   (b"" if method == "HEAD" else answer))
                except ValueError as error:
                    self.note_wrong(str(error), data)
                    return
                except OSError:
                    return

    def note_wrong(self, why, data):
        with self.lock:
            self.wrong.append((why, data[:300]))

    @staticmethod
    def parse(data):
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        lines = data[:end].decode("latin-1").split("\r\n")
        first = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-~]*|\*|[!-~]+:\d+) HTTP/1\.[01]", lines[0])
        if not first:
            raise ValueError("request line")
        fields = []
        for line in lines[1:]:
            match = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)", line)
            if not match:
                raise ValueError(f"field {line!r}")
            fields.append((match.group(1).lower(), match.group(2).strip(" \t")))
        lengths = [v for n, v in fields if n == "content-length"]
        codings = [v for n, v in fields if n == "transfer-encoding"]
        if sum(n == "host" for n, _ in fields) != 1 and lines[0].endswith("1.1"):
            raise ValueError("Host")
        if len(lengths) + len(codings) > 1:
            raise ValueError("lengths")
        at = end + 4
        if codings:
            if codings[0].lower() != "chunked":
                raise ValueError("coding")
            return Strict.chunks(first, data, at)
        if lengths and not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
            raise ValueError("Content-Length")
        size = int(lengths[0]) if lengths else 0
        if len(data) < at + size:
            return None
        return first.group(1), first.group(2), data[at:at + size].decode("latin-1"), at + size

    @staticmethod
    def chunks(first, data, at):
        body = b""
        while True:
            end = data.find(b"\r\n", at)
            if end < 0:
                return None
            line = re.fullmatch(rb"([0-9A-Fa-f]{1,15})((?:;[^\r\n\0]*)?)", data[at:end])
            if not line:
                raise ValueError("chunk size")
            size, at = int(line.group(1), 16), end + 2
            if size == 0:
                break
            if len(data) < at + size + 2:
                return None
            if data[at + size:at + size + 2] != b"\r\n":
                raise ValueError("chunk end")
            body, at = body + data[at:at + size], at + size + 2
        end = data.find(b"\r\n\r\n", at - 2)
        if end < 0:
            return None
        for line in data[at:end].split(b"\r\n"):
            if line and not re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f]*", line):
                raise ValueError("trailer")
        return first.group(1), first.group(2), body.decode("latin-1"), end + 4


def exchange(number, data, quiet=QUIET):
    """What comes back, until the end or until nothing more comes."""
    out = b""
    with socket.create_connection(("127.0.0.1", number), 5) as s:
        s.settimeout(quiet)
        try:
            s.sendall(data)
            while True:
                got = s.recv(65536)
                if not got:
                    break
                out += got
        except (TimeoutError, OSError):
            pass
    return out


def h1_answers(text, to_head=False):
    """[(status, body)] of what came, final answers only. `to_head`: the first is the answer to HEAD."""
    out = []
    while text:
        end = text.find(b"\r\n\r\n")
        if end < 0:
            break
        head, text = text[:end].decode("latin-1"), text[end + 4:]
        status = int(head.split(" ")[1])
        if status < 200:
            continue
        length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
        if to_head:
            body, to_head = b"", False
        elif re.search(r"(?i)\r\ntransfer-encoding: *chunked", head):
            body = b""
            while True:
                size, _, text = text.partition(b"\r\n")
                n = int(size, 16)
                body, text = body + text[:n], text[n + 2:]
                if n == 0:
                    break
        else:
            n = int(length.group(1)) if length else len(text)
            body, text = text[:n], text[n:]
        out.append((status, body))
    return out


def h2_answers(data, _):
    """Bodies by stream; their status is in the body's form."""
    bodies = {}
    while len(data) >= 9:
        size, kind, stream = int.from_bytes(data[:3], "big"), data[3], int.from_bytes(data[5:9], "big")
        if kind == 0:
            bodies[stream] = bodies.get(stream, b"") + data[9:9 + size]
        data = data[9 + size:]
    return [(200 if b.startswith(b"{") else 400, b) for _, b in sorted(bodies.items())]


class Way:
    """A front, whatever is behind it, and the strict server at the end."""

    def __init__(self, name, front, strict, ours):
        self.name, self.front, self.strict, self.ours = name, front, strict, ours
        self.failed, self.count = [], 0
        self.through = 0

    def run(self, words):
        for number, (name, data, expected) in enumerate(HTTP1, 1000):
            if not words or any(w in name for w in words):
                self.one(number, name, data.replace(b"NNNN", str(number).encode()), expected, h1_answers)
        for number, (name, requests, expected) in enumerate(HTTP2, 2000):
            if self.ours and (not words or any(w in name for w in words)):
                self.one(number, "h2: " + name, h2_wire(requests, number), expected, h2_answers)

    def one(self, number, name, data, expected, read):
        self.count += 1
        strict = self.strict
        with strict.lock:
            strict.seen.clear()
            strict.wrong.clear()
        raw = exchange(self.front, data)
        complaints, head_only = [], "HEAD with" in name
        try:
            answers = read(raw, head_only)
        except (ValueError, IndexError) as error:
            return self.failed.append(f"{name}: answers cannot be read: {error} {raw[:300]!r}")
        good = [json.loads(b) if b else None for s, b in answers if s == 200]
        # Whoever comes next gets the answers to what it asked.
        probe = exchange(self.front, f"GET /p?{5000 + number} HTTP/1.1\r\nHost: h\r\n\r\n".encode() +
                         f"GET /q?{5000 + number} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode(), 5)
        targets = [json.loads(b).get("target") for s, b in h1_answers(probe) if s == 200]
        if targets != [f"/p?{5000 + number}", f"/q?{5000 + number}"]:
            complaints.append(f"the next client got {probe[:300]!r}")
        with strict.lock:
            seen = [s for s in strict.seen if s[0] != 5000 + number]
            wrong = list(strict.wrong)
        if [w for w in wrong if w[0] != "cut off"]:
            complaints.append(f"the server behind was given {wrong}")
        if any(n != number for n, _ in seen):
            complaints.append(f"the server saw {seen}")
        if expected == CUT:
            if good or [b for _, b in seen] not in ([], [""]):
                complaints.append(f"{good} {seen}")
        elif not head_only and len(seen) != len(good):
            complaints.append(f"{len(good)} answers, {len(seen)} requests were understood: {seen}")
        if not head_only and expected != CUT and sorted(b for _, b in seen) != sorted(g["body"] for g in good if g):
            complaints.append(f"bodies differ: {seen} {good}")
        if self.ours and expected == REJECT and seen:
            complaints.append(f"it was taken: {seen}")
        bodies = [e.replace("NNNN", str(number)) for e in expected] if isinstance(expected, list) else None
        if self.ours and bodies is not None and sorted(b for _, b in seen) != sorted(bodies):
            complaints.append(f"{seen}, not {bodies}; {raw[:300]!r}")
        self.through += len(seen)
        if complaints:
            self.failed.append(f"{name}: {'; '.join(complaints)}")


def config(fronts):
    """Listeners, each with the cluster of the same index behind it."""
    text = "listeners:\n"
    for listen, _ in fronts:
        text += (f"- name: l{listen}\n  address: 127.0.0.1:{listen}\n  chains:\n  - name: c\n"
                 f"    http: {{routes: r{listen}, headTimeout: 3s}}\n")
    text += "routes:\n"
    for listen, _ in fronts:
        text += (f"- name: r{listen}\n  hosts:\n  - name: all\n    domains: [\"*\"]\n    routes:\n"
                 f"    - {{name: all, match: {{prefix: /}}, cluster: c{listen}, upgrades: [websocket]}}\n")
    text += "clusters:\n"
    for listen, to in fronts:
        text += f"- {{name: c{listen}, endpoints: [{{address: \"127.0.0.1:{to}\"}}]}}\n"
    return text


def main():
    stricts = [Strict() for _ in range(5)]
    ours = [lib.port() for _ in range(5)]
    behind_n, behind_h, before_n, before_h = (lib.port() for _ in range(4))

    def nginx_server(listen, to):
        return (f"upstream u{listen} {{ server 127.0.0.1:{to}; keepalive 2; }}\nserver {{ listen 127.0.0.1:{listen}; location / {{ "
                f"proxy_pass http://u{listen}; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host; }} }}\n")

    def haproxy_server(listen, to):
        return f"listen l{listen}\n  bind 127.0.0.1:{listen}\n  http-reuse always\n  server s 127.0.0.1:{to}\n"

    lib.nginx("smuggling", nginx_server(behind_n, stricts[1].port) + nginx_server(before_n, ours[3]))
    lib.haproxy("smuggling", "global\n  maxconn 1000\n" + HAPROXY_DEFAULTS + haproxy_server(behind_h, stricts[2].port) +
                haproxy_server(before_h, ours[4]))
    proxy = lib.proxy(config([(ours[0], stricts[0].port), (ours[1], behind_n), (ours[2], behind_h), (ours[3], stricts[3].port),
                              (ours[4], stricts[4].port)]), ours)
    for number in (behind_n, behind_h, before_n, before_h):
        wait(lambda n=number: lib.listening(n), 10)
    ways = [Way("us, a strict server", ours[0], stricts[0], True), Way("us, nginx, a strict server", ours[1], stricts[1], True),
            Way("us, haproxy, a strict server", ours[2], stricts[2], True), Way("nginx, us, a strict server", before_n, stricts[3], False),
            Way("haproxy, us, a strict server", before_h, stricts[4], False)]
    threads = [threading.Thread(target=way.run, args=(sys.argv[1:],)) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for way in ways:
        print(f"  {way.name}: {way.count - len(way.failed)} of {way.count} cases; {way.through} requests got through")
        for line in way.failed:
            print(f"    FAILED  {line[:1500]}")
    assert proxy.alive() and not proxy.text, proxy.describe()
    failed = sum(len(w.failed) for w in ways)
    print(f"{sum(w.count for w in ways) - failed} passed, {failed} failed ({len(HTTP1)} cases in HTTP/1, {len(HTTP2)} in HTTP/2)")
    sys.exit(1 if failed else 0)


main()
