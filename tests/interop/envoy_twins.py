"""Envoy and our proxy with the same configuration in the same trouble: the status, the response flags and the other
facts of the access log, and the fields that an endpoint gets, are compared."""

import json
import re
import socket
import struct
import threading
import time

import envoy_config as envoy
import lib

FLAGS = "%REQ(X-CASE)%|%RESPONSE_CODE%|%RESPONSE_FLAGS%"
FACTS = "|".join("%" + name + "%" for name in (
    "REQ(:METHOD)", "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)", "PROTOCOL", "RESPONSE_CODE", "RESPONSE_FLAGS", "BYTES_RECEIVED", "BYTES_SENT",
    "REQ(USER-AGENT)", "REQ(:AUTHORITY)", "UPSTREAM_HOST", "UPSTREAM_CLUSTER", "ROUTE_NAME", "REQUESTED_SERVER_NAME",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_PEER_URI_SAN", "RESP(X-SUM)", "TRAILER(X-SUM)", "REQ(:SCHEME)",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT", "GRPC_STATUS", "CONNECTION_TERMINATION_DETAILS"))


# ---- an endpoint that misbehaves

def _serve(connection):
    with connection:
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65536)
                if not data:
                    return
                head += data
                if head.startswith(b"PRI "):
                    return _serve_h2(connection, head)
            path = head.split()[1].decode().split("/")[-1]
            if path == "slow":
                time.sleep(2)
            elif path == "half":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")
                time.sleep(0.1)
            elif path == "garbage":
                connection.sendall(b"what is this\r\n\r\n")
                time.sleep(0.5)
            elif path == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif path == "busy":
                connection.sendall(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n")
                continue
            elif path != "cut":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            return


def _serve_h2(connection, data):
    """Resets each stream with the code that its path has as its last character: 2, 7."""
    data = data.split(b"SM\r\n\r\n", 1)[1] if b"SM\r\n\r\n" in data else b""
    connection.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    while True:
        while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
            size, kind, stream = int.from_bytes(data[:3], "big"), data[3], data[5:9]
            if kind == 1:
                connection.sendall(bytes([0, 0, 4, 3, 0]) + stream + bytes([0, 0, 0, _serve_h2.code]))
            data = data[9 + size:]
        more = connection.recv(65536)
        if not more:
            return
        data += more


_serve_h2.code = 2


def _start_server():
    server = socket.create_server(("127.0.0.1", lib.port()))

    def accept():
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_quietly, args=(connection,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()[1]


def _quietly(connection):
    try:
        _serve(connection)
    except OSError:
        pass


# ---- the same, for both

ROUTES = {  # path: (ours, Envoy's)
    "/ok": ("cluster: wild", {"cluster": "wild"}),
    "/refused": ("cluster: gone", {"cluster": "gone"}),
    "/refused-again": ("cluster: gone\n      retry: {on: [connect-failure], attempts: 2}",
                       {"cluster": "gone", "retry_policy": {"retry_on": "connect-failure", "num_retries": 2}}),
    "/empty": ("cluster: empty", {"cluster": "empty"}),
    "/named": ("clusterHeader: x-cluster", {"cluster_header": "x-cluster"}),
    "/late/slow": ("cluster: wild\n      timeouts: {route: 300ms}", {"cluster": "wild", "timeout": "0.3s"}),
    "/late-try/slow": ("cluster: wild\n      retry: {on: [5xx], attempts: 1, perTryTimeout: 200ms}",
                       {"cluster": "wild", "retry_policy": {"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.2s"}}),
    "/again/busy": ("cluster: wild\n      retry: {on: [5xx], attempts: 1}",
                    {"cluster": "wild", "retry_policy": {"retry_on": "5xx", "num_retries": 1}}),
    "/once/busy": ("cluster: wild", {"cluster": "wild"}),
    "/cut": ("cluster: wild", {"cluster": "wild"}),
    "/half": ("cluster: wild", {"cluster": "wild"}),
    "/garbage": ("cluster: wild", {"cluster": "wild"}),
    "/reset": ("cluster: wild", {"cluster": "wild"}),
    "/slow": ("cluster: wild", {"cluster": "wild"}),
    "/few/slow": ("cluster: few", {"cluster": "few"}),
    "/stream": ("cluster: wild2", {"cluster": "wild2"}),
    "/idle/slow": ("cluster: wild\n      timeouts: {idle: 300ms}", {"cluster": "wild", "idle_timeout": "0.3s"}),
    "/long/slow": ("cluster: wild\n      timeouts: {maxStream: 300ms}",
                   {"cluster": "wild", "max_stream_duration": {"max_stream_duration": "0.3s"}}),
    "/abort": ("cluster: wild\n      policies: {fault: {abort: {status: 418}}}", {"cluster": "wild"}),
    "/delay": ("cluster: wild\n      policies: {fault: {delay: {time: 100ms}}}", {"cluster": "wild"}),
    "/limited": ("cluster: wild\n      policies: {rateLimit: {maxTokens: 1, fillInterval: 1h}}", {"cluster": "wild"}),
    "/forbidden": ("cluster: wild\n      policies: {rbac: {rules: [{action: allow, policies: []}]}}", {"cluster": "wild"}),
    "/moved": ("redirect: {path: /there, status: 302}", None),
    "/said": ("respond: {status: 200, body: said}", None),
    "/up": ("cluster: origin", {"cluster": "origin"}),
    "/echo": ("cluster: origin", {"cluster": "origin"}),
    "/trailers": ("cluster: origin", {"cluster": "origin"}),
}

_FAULT = envoy.TYPE + "extensions.filters.http.fault.v3.HTTPFault"
_LIMIT = envoy.TYPE + "extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_RBAC = envoy.TYPE + "extensions.filters.http.rbac.v3.RBAC"
_WHOLE = {"numerator": 100}
_PER_ROUTE = {
    "/abort": {"fault": {"@type": _FAULT, "abort": {"http_status": 418, "percentage": _WHOLE}}},
    "/delay": {"fault": {"@type": _FAULT, "delay": {"fixed_delay": "0.1s", "percentage": _WHOLE}}},
    "/limited": {"limit": {"@type": _LIMIT, "stat_prefix": "limit", "filter_enabled": {"default_value": _WHOLE},
                           "filter_enforced": {"default_value": _WHOLE},
                           "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"}}},
    "/forbidden": {"rbac": {"@type": _RBAC + "PerRoute", "rbac": {"rules": {"action": "ALLOW", "policies": {}}}}},
}
_ACTIONS = {"/moved": {"redirect": {"path_redirect": "/there", "response_code": "FOUND"}},
            "/said": {"direct_response": {"status": 200, "body": {"inline_string": "said"}}}}


class Twins:
    def __init__(self, program, origin):
        self.wild, gone = _start_server(), lib.port()
        self.ports = {"Envoy": (lib.port(), lib.port()), "ours": (lib.port(), lib.port())}
        self.logs = {name: (lib.path(f"{name}.flags"), lib.path(f"{name}.facts")) for name in self.ports}
        self.programs = [self._ours(gone, origin), self._envoy(program, gone, origin)]

    def _ours(self, gone, origin):
        text = "listeners:\n"
        for number, name, form in zip(self.ports["ours"], self.logs["ours"], (FLAGS, FACTS)):
            text += f"""- name: l{number}
  address: 127.0.0.1:{number}
  chains:
  - name: c
    http:
      routes: all
      serverName: ""
      useRemoteAddress: true
      headTimeout: 1s
      accessLog: [{{path: {name}, format: "{form}"}}]
"""
        text += "routes:\n- name: all\n  hosts:\n  - domains: [\"*\"]\n    routes:\n"
        for path, (ours, _) in ROUTES.items():
            text += f"    - name: {path[1:].replace('/', '-')}\n      match: {{path: {path}}}\n      {ours}\n"
        one = "  endpoints: [{address: \"127.0.0.1:%d\"}]\n"
        text += "clusters:\n- name: wild\n" + one % self.wild + "- name: origin\n" + one % origin + "- name: gone\n" + one % gone
        text += "- name: wild2\n  protocol: http2\n" + one % self.wild
        text += "- name: few\n  circuitBreakers: {default: {maxConnections: 1, maxPending: 1}}\n" + one % self.wild
        text += (f"- name: empty\n  loadBalancer: {{panicPercent: 0}}\n  endpoints: [{{address: \"127.0.0.1:{self.wild}\", "
                 "health: unhealthy}]\n")
        return lib.proxy(text, list(self.ports["ours"]))

    def _envoy(self, program, gone, origin):
        table = []
        for path, (_, route) in ROUTES.items():
            one = {"name": path[1:].replace("/", "-"), "match": {"path": path}, "typed_per_filter_config": _PER_ROUTE.get(path, {})}
            one.update(_ACTIONS.get(path) or {"route": route})
            table.append(one)
        filters = [{"name": "fault", "typed_config": {"@type": _FAULT}},
                   {"name": "limit", "typed_config": {"@type": _LIMIT, "stat_prefix": "limit"}},
                   {"name": "rbac", "typed_config": {"@type": _RBAC}}]
        listeners = [envoy.http(number, table, filters=filters, access_log=envoy.log(name, form), use_remote_address=True,
                                server_header_transformation="PASS_THROUGH", request_headers_timeout="1s")
                     for number, name, form in zip(self.ports["Envoy"], self.logs["Envoy"], (FLAGS, FACTS))]
        empty = envoy.cluster("empty", self.wild, common_lb_config={"healthy_panic_threshold": {"value": 0}})
        empty["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["health_status"] = "UNHEALTHY"
        few = envoy.cluster("few", self.wild, circuit_breakers={"thresholds": [{"max_connections": 1, "max_pending_requests": 1}]})
        return envoy.start(program, "beside", listeners, [
            envoy.cluster("wild", self.wild), envoy.cluster("wild2", self.wild, protocol="http2"), envoy.cluster("gone", gone),
            envoy.cluster("origin", origin), empty, few])

    def lines(self, name, which, count, seconds=12):
        def read():
            try:
                with open(self.logs[name][which], encoding="utf-8") as f:
                    return f.read().splitlines()
            except OSError:
                return []
        lib.wait(lambda: len(read()) >= count, seconds, lambda: f"{name}: {read()[-3:]}, not {count}")
        return read()

    def both(self, ask, which=0, count=1):
        """What each wrote in its log when `ask` had been done with it: the last `count` lines."""
        out = {}
        for name, ports in self.ports.items():
            try:
                before = len(self.lines(name, which, 0))
                ask(ports[which])
                out[name] = sorted(map(_in_order, self.lines(name, which, before + count)[before:]))
            except AssertionError as error:
                out[name] = [str(error)]
        return out["Envoy"], out["ours"]


def _in_order(line):
    """Several flags are a set."""
    parts = line.split("|")
    return "|".join(",".join(sorted(part.split(","))) if re.fullmatch(r"[A-Z,]+", part) else part for part in parts)


def talk(number, text, *, leave=None, read=True):
    """Sends it and reads what comes until the end; leaves after `leave` seconds."""
    with socket.create_connection(("127.0.0.1", number), timeout=10) as s:
        s.sendall(text)
        got = b""
        if leave is not None:
            time.sleep(leave)
            return got
        while read:
            try:
                data = s.recv(65536)
            except ConnectionResetError:
                break
            if not data:
                break
            got += data
        return got


def get(path, *fields, method="GET", body=b""):
    lines = [f"{method} {path} HTTP/1.1", "Host: twins", "Connection: close", f"X-Case: {path}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def at_once(number, path, count):
    threads = [threading.Thread(target=talk, args=(number, get(path))) for _ in range(count)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()


# Where we mean to differ from Envoy 1.40: what we log.
DIFFERENT = {
    "/half": ["/half|200|UC"],  # UPE: the endpoint's connection ended too early
    "/long/slow": ["/long/slow|504|UMSDR"],  # no flag
    "no Host": ["-|400|DPE"],  # no flag
    "a head that does not end": ["-|408|DPE"],  # no flag
    # It cancels the request when the client's connection ends; for us that is the end of what the client sends, and
    # the answer is awaited.
    "the client leaves": ["/slow|503|UC"],
}


def cases(check_in, program, origin):
    twins = Twins(program, origin)

    def compare(name, ask, which=0, count=1):
        def told():
            theirs, ours = twins.both(ask, which, count)
            assert ours == DIFFERENT.get(name, theirs), f"Envoy {theirs}, we {ours}"
            return "; ".join(ours)[:150]
        check_in.check(f"Envoy beside us: {name}", told)

    for path in ("/ok", "/nowhere", "/refused", "/refused-again", "/empty", "/late/slow", "/late-try/slow", "/again/busy",
                 "/once/busy", "/cut", "/half", "/garbage", "/reset", "/idle/slow", "/long/slow", "/abort", "/delay", "/forbidden",
                 "/moved", "/said"):
        compare(path, lambda number, p=path: talk(number, get(p)))
    compare("a cluster that is not there", lambda number: talk(number, get("/named", "X-Cluster: other")))
    compare("a cluster that is not named", lambda number: talk(number, get("/named")))
    compare("a limit of rate", lambda number: [talk(number, get("/limited")) for _ in range(3)], count=3)
    compare("more than the circuit breaker lets through", lambda number: at_once(number, "/few/slow", 4), count=4)
    compare("the client leaves", lambda number: talk(number, get("/slow"), leave=0.2))
    compare("the client leaves in its body",
            lambda number: talk(number, get("/slow", "Content-Length: 100", method="POST", body=b"12345"), leave=0.2))
    compare("the client's body does not come",
            lambda number: talk(number, get("/idle/slow", "Content-Length: 100", method="POST", body=b"12345")))
    for name, text in (("not HTTP", b"not HTTP\r\n\r\n"), ("no Host", b"GET /ok HTTP/1.1\r\n\r\n"),
                       ("a field with NUL", b"GET /ok HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
                       ("length and coding", get("/up", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST", body=b"0\r\n\r\n")),
                       ("a bad chunk", get("/up", "Transfer-Encoding: chunked", method="POST", body=b"zz\r\n")),
                       ("HTTP/1.0", b"GET /ok HTTP/1.0\r\nHost: a\r\n\r\n"),
                       ("a head that does not end", b"GET /ok HTTP/1.1\r\nHost: a\r\n"),
                       ("a head that is too large", get("/ok", *(f"X-{i}: {'x' * 1000}" for i in range(99)))),
                       ):
        compare(name, lambda number, t=text: talk(number, t))
    compare("an upgrade that no route allows",
            lambda number: talk(number, get("/ok", "Upgrade: other").replace(b"n: close", b"n: upgrade"), leave=0.3))
    for code in (2, 7):
        def reset(number, c=code):
            _serve_h2.code = c
            talk(number, get("/stream"))
        compare(f"an endpoint resets its stream, code {code}", reset)
    compare("the facts of a request", lambda number: talk(number, get("/echo", "Content-Length: 5", "User-Agent: me", method="POST", body=b"12345")),
            which=1)
    compare("the facts of an answer with trailers", lambda number: talk(number, get("/trailers", "TE: trailers")), which=1)
    compare("the facts of a failure", lambda number: talk(number, get("/refused", method="HEAD")), which=1)
    check_in.check("Envoy beside us: the fields that an endpoint gets", _fields, twins)


def _fields(twins):
    seen = {}
    for who, ports in twins.ports.items():
        for given in ((), ("X-Forwarded-For: 10.1.2.3", "X-Forwarded-Proto: https", "X-Request-Id: mine", "X-Envoy-Internal: true",
                           "X-Envoy-Retry-On: 5xx", "X-Envoy-Max-Retries: 2", "Keep-Alive: 5", "TE: trailers, gzip",
                           "Proxy-Connection: close", "X-Empty:", "Cookie: a=b", "Cookie: c=d")):
            answer = talk(ports[0], get("/up", *given))
            fields = json.loads(answer.split(b"\r\n\r\n", 1)[1])["headers"]
            fields["x-request-id"] = str(len(fields.get("x-request-id", "")))
            # Of a client on this host: Envoy tells the host's own address.
            fields["x-forwarded-for"] = fields["x-forwarded-for"].split(",")[:-1]
            # x-envoy-*: Envoy's own. It drops those of a client that is not from inside; we obey none and drop none.
            # Connection: TE belongs to TE (RFC 9110, 10.1.4); Envoy leaves it out.
            fields = {name: value for name, value in fields.items() if not name.startswith("x-envoy-") and name != "connection"}
            seen.setdefault(who, []).append(fields)
    for theirs, ours in zip(seen["Envoy"], seen["ours"]):
        different = {k: (theirs.get(k), ours.get(k)) for k in set(theirs) | set(ours) if theirs.get(k) != ours.get(k)}
        assert not different, f"(Envoy, ours): {different}"
