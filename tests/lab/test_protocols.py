"""Real clients and servers through capture, on the same node and through the tunnel."""

import hashlib
import itertools
import os
import re

from lab.cases import case
from lab.mesh import APPS, Mesh
from lab.programs import PYTHON
from lab.servers import FILE_BYTES, TLS_NAMES, Servers

SUFFIX = "default.svc.cluster.local"


class ProtocolMesh(Mesh):
    """Clients on node-a; the servers on node-b, or on node-a itself (`own`)."""

    def __init__(self, *kinds, http=True, own=False, workers=1):
        super().__init__(*(kinds or ("prc", "sym")), join=False)
        self.letter = "a" if own else "b"
        try:
            for agent in self.agents.values():
                agent.join()
                with open(agent.config, "a", encoding="utf-8") as f:
                    f.write(f"proxy: {{http: {str(http).lower()}, workers: {workers}}}\n")
                agent.start(wait=False)
            self.servers = Servers(self.agent(self.letter).node)
            self.servers.start_all()
            objects = self.servers.objects()
            for agent in self.agents.values():
                agent.wait_ready()
            self.cloud.apply(*objects)
            self.wait_services([o["metadata"]["name"] for o in objects if o["kind"] == "Service"])
        except BaseException:
            self.keep_logs = True
            self.close()
            raise

    def host(self, name):
        return f"{name}-{self.letter}.{SUFFIX}"

    def run(self, *argv, timeout=60, check=True):
        return self.agent("a").node.run(list(argv), timeout=timeout, check=check)

    def curl(self, *args, check=True):
        return self.run("curl", "-sS", "--max-time", "30", "--noproxy", "*", *args, check=check).stdout

    def app(self, program, *args):
        done = self.run("env", "-u", "http_proxy", "-u", "https_proxy", PYTHON, os.path.join(APPS, program), "check",
                        *args, check=False)
        assert done.returncode == 0 and done.stdout.startswith("ok"), done.stdout + done.stderr[-1500:]
        return done.stdout.strip()


def curl_and_nginx(mesh):
    base = f"http://{mesh.host('ngx')}"
    said = "%{http_code} %{http_version}"
    for version, flags in (("1.1", ["--http1.1"]), ("2", ["--http2-prior-knowledge"]), ("2", ["--http2"]),
                           ("1.1", ["--http1.0"])):  # an answer has the server's own version
        got = mesh.curl(*flags, "-w", said, f"{base}/who")
        assert got.startswith(f"nginx of node-{mesh.letter} HTTP/1.1") and got.endswith(f"200 {version}"), got
        path = mesh.path("got")
        mesh.curl(*flags, "-o", path, f"{base}/file")
        with open(path, "rb") as f:
            assert hashlib.sha256(f.read()).hexdigest() == mesh.servers.digest, flags
        if flags == ["--http1.0"]:
            continue
        got = mesh.curl(*flags, "-r", "999990-", "-w", said, "-o", path, f"{base}/file")
        with open(path, "rb") as f:
            assert f.read() == mesh.servers.data[-10:] and got == f"206 {version}", got
        got = mesh.curl(*flags, "-r", f"{FILE_BYTES + 1}-", "-w", said, "-o", path, f"{base}/file")
        assert got == f"416 {version}", got
        got = mesh.curl(*flags, "--compressed", f"{base}/chunked")
        assert got == "text that is compressed\n" * 5000, len(got)
        for extra in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]):
            got = mesh.curl(*flags, *extra, "--data-binary", f"@{mesh.servers.root}/file", f"{base}/upload")
            assert got.strip() == str(FILE_BYTES), (flags, extra, got)
        got = mesh.curl(*flags, "-I", f"{base}/file")
        assert re.search(rf"(?mi)^content-length: {FILE_BYTES}$", got), got
        # Debian 12's curl cannot use a cleartext HTTP/2 connection twice, whatever the server is.
        if version == "1.1":
            got = mesh.curl(*flags, "-L", "-w", said, f"{base}/moved")
            assert got.endswith(f"200 {version}"), got
        got = mesh.curl(*flags, "-w", said, f"{base}/empty")
        assert got == f"204 {version}", got
    return "curl 1.0, 1.1, 2, h2c upgrade"


def tls_passes_through(mesh):
    """Two names on one port: the certificate that the client sees is the server's own. Port 82 says it is HTTP."""
    for host, port, version in itertools.product(TLS_NAMES, (443, 82), ("1.1", "2")):
        got = mesh.curl("--http" + version, "--cacert", f"{mesh.servers.dir}/{host}.crt", "--connect-to",
                        f"{host}:443:{mesh.host('ngx')}:{port}", "-w", "%{http_version}", f"https://{host}/")
        assert got.startswith(f"{host} HTTP/{version[0]}") and got.endswith(version), got
    return "TLS by SNI"


def haproxy_both_ways(mesh):
    for port, flags in ((80, []), (81, []), (81, ["--http2-prior-knowledge"])):
        got = mesh.curl(*flags, f"http://{mesh.host('ha')}:{port}/who")
        assert got.startswith(f"nginx of node-{mesh.letter}"), (port, got)
    config = ""
    for port, service, proto in ((9001, "ngx", ""), (9002, "ngx", "proto h2"), (9003, "h2", "proto h2"),
                                 (9004, "h2", "")):
        config += (f"frontend f{port}\n  bind 127.0.0.1:{port}\n  default_backend b{port}\n"
                   f"backend b{port}\n  server s {mesh.host(service)}:80 {proto} init-addr last,libc,none\n")
    client = mesh.servers if mesh.letter == "a" else Servers(mesh.agent("a").node)
    client.haproxy("client", config)
    client.wait_listening(9004)
    for port in range(9001, 9005):
        urls = [f"http://127.0.0.1:{port}/file"] * 5
        got = mesh.curl(*[w for u in urls for w in ("-o", "/dev/null", u)], "-w", "%{http_code} %{size_download}\n")
        assert got == f"200 {FILE_BYTES}\n" * 5, (port, got)
    return "haproxy as server and client, HTTP/1 and HTTP/2"


def nghttp_and_nghttpd(mesh, requests=2000):
    base = f"http://{mesh.host('h2')}"
    got = mesh.run("nghttp", "-v", f"{base}/text").stdout
    assert "x-end: yes" in got and ":status: 200" in got, got[-3000:]
    got = mesh.run("nghttp", "-v", "-u", "-n", f"{base}/text").stdout  # by upgrade
    assert "101 Switching Protocols" in got and ":status: 200" in got, got[-3000:]
    got = mesh.run("nghttp", "-v", "--trailer", "x-mine: yes", "-d", f"{mesh.servers.root}/text", "-n",
                   f"{base}/echo").stdout
    assert ":status: 200" in got and "x-end: yes" in got, got[-3000:]
    got = mesh.curl("--http2-prior-knowledge", "--data-binary", f"@{mesh.servers.root}/text", f"{base}/echo")
    assert got == "text that is compressed\n" * 5000, len(got)
    assert mesh.curl("--http1.1", "-o", "/dev/null", "-w", "%{http_version} %{size_download}",
                     f"{base}/file") == f"1.1 {FILE_BYTES}"
    load = []
    for flags in ([], ["--h1"]):
        done = mesh.run("h2load", *flags, "-n", str(requests), "-c", "4", *([] if flags else ["-m", "20"]),
                        f"{base}/small", timeout=240).stdout
        assert re.search(rf"requests: .* {requests} succeeded, 0 failed, 0 errored", done), done
        load.append(re.search(r"([\d.]+) req/s", done).group(1))
    return f"nghttp, nghttpd, h2load {' and '.join(load)} req/s"


@case(quick=True)
def protocols_of_http():
    """curl, nginx, haproxy, nghttp, nghttpd, h2load: HTTP/1, HTTP/2, upgrade, TLS by name, through the tunnel."""
    with ProtocolMesh() as mesh:
        return ", ".join(f(mesh) for f in (curl_and_nginx, tls_passes_through, haproxy_both_ways, nghttp_and_nghttpd))


@case(quick=True)
def protocols_of_grpc_and_websocket():
    """gRPC (all kinds of calls, statuses, deadlines, health) and WebSocket (fragments, close codes), tunnel."""
    with ProtocolMesh() as mesh:
        return "\n".join((mesh.app("grpc_app.py", mesh.host("grpc") + ":80"),
                          mesh.app("ws_app.py", mesh.host("ws"), "80")))


@case(quick=True)
def protocols_on_every_worker():
    """An agent with four workers: curl and h2load through capture and a punched tunnel; all take part, nothing fails."""
    with ProtocolMesh("prc", "prc", workers=4) as mesh:
        agent = mesh.agent("a")
        for _ in range(20):
            got = mesh.curl("-o", "/dev/null", "-w", "%{http_code} %{size_download}", f"http://{mesh.host('ngx')}/file")
            assert got == f"200 {FILE_BYTES}", got
        for flags in (["--h1", "-c", "32"], ["-c", "16", "-m", "10"]):
            done = mesh.run("h2load", *flags, "-n", "4000", f"http://{mesh.host('h2')}/small").stdout
            assert "4000 succeeded, 0 failed, 0 errored" in done and " 0 5xx" in done, done
        taken = [agent.metric("edgemesh_http_worker_requests_total", worker=str(i)) for i in range(4)]
        assert min(taken) > 0 and sum(taken) >= 8020, taken
        lines = [line for line in agent.http("/metrics").splitlines() if "http_answers_total" in line and "5xx" in line]
        assert lines and all(line.endswith(" 0") for line in lines), lines
        return f"requests by worker: {' '.join(str(int(n)) for n in taken)}, {agent.path_to('node-b')}"


def everything(mesh, upgrade=True):
    parts = [tls_passes_through(mesh)]
    if upgrade:
        parts += [curl_and_nginx(mesh), haproxy_both_ways(mesh), nghttp_and_nghttpd(mesh)]
    parts += [mesh.app("grpc_app.py", mesh.host("grpc") + ":80"), mesh.app("ws_app.py", mesh.host("ws"), "80")]
    return "\n".join(parts)


@case()
def protocols_on_one_node():
    """The same clients and servers on one node: no tunnel."""
    with ProtocolMesh("prc", own=True) as mesh:
        return everything(mesh)


@case()
def protocols_as_bytes():
    """The same with HTTP not taken apart (the default): what the servers speak themselves works."""
    with ProtocolMesh(http=False) as mesh:
        return everything(mesh, upgrade=False)


@case()
def protocols_under_load():
    """Uploads of 200 MB by HTTP/1 and HTTP/2 and 100,000 requests of h2load through the tunnel."""
    with ProtocolMesh() as mesh:
        path = mesh.path("large")
        run_size = 200_000_000
        with open(path, "wb") as f:
            f.truncate(run_size)
        for flag in ("--http1.1", "--http2-prior-knowledge"):
            got = mesh.run("curl", "-sS", "--noproxy", "*", "--max-time", "200", flag, "-T", path,
                           f"http://{mesh.host('ngx')}/upload", timeout=220).stdout
            assert got.strip() == str(run_size), (flag, got)
        return nghttp_and_nghttpd(mesh, requests=100_000)
