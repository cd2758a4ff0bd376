"""What a mesh costs: requests through two proxies, the client's side and the server's, mutual TLS between them.

Cleartext HTTP/1 on both outer sides. Both proxies have one worker and share core 0: the row is their CPU together.
"""

import os

import envoy
import http_peers
from http_lab import HTTP1, HttpLab, SECONDS, add
from lab.binaries import program
from table_l4 import NODE

KINDS = {"HTTP/1.1": False, "HTTP/2": True}
WORK = "two proxies, {} in mutual TLS, 64 connections"


class Pair:
    """The client's side, which is the load's address, and the server's; their CPU counts together."""

    def __init__(self, name, address, processes):
        self.name, self.address, self.processes = name, address, processes

    def cpu_ns(self):
        total = 0
        for process in self.processes:
            for task in os.listdir(f"/proc/{process.pid}/task"):
                with open(f"/proc/{process.pid}/task/{task}/schedstat", encoding="ascii") as f:
                    total += int(f.readline().split()[0])
        return total


def certificates(lab):
    """A CA and one certificate for both sides: (CA, certificate, key)."""
    ca, ca_key, cert, key = (os.path.join(lab.dir, f"mesh-{n}.pem") for n in ("ca", "ca-key", "cert", "key"))
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    lab.pod.run(make + ["-keyout", ca_key, "-out", ca, "-subj", "/CN=bench CA"])
    lab.pod.run(make + ["-keyout", key, "-out", cert, "-subj", "/CN=bench", "-CA", ca, "-CAkey", ca_key,
                        "-addext", "subjectAltName=DNS:bench", "-addext", "basicConstraints=CA:FALSE"])
    for path in (ca, cert, key):
        os.chmod(path, 0o644)
    return ca, cert, key


def _edgemesh_side(lab, name, listen, to, *, tls_in="", tls_out="", protocol="http1"):
    text = f"""listeners:
- name: web
  address: {listen}
  chains:
  - name: http
{tls_in}    http: {{routes: web}}
routes:
- name: web
  hosts:
  - {{name: all, domains: ["*"], routes: [{{name: all, match: {{prefix: /}}, cluster: next}}]}}
clusters:
- name: next
  protocol: {protocol}
{tls_out}  endpoints: [{{address: "{to}"}}]
"""
    path = os.path.join(lab.dir, f"{name}.yaml")
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return [program("edgemesh-proxy"), "--config", path, "--workers", "1", "--admin", "", "--log-level", "warn"]


def edgemesh(lab, files, h2, port):
    ca, cert, key = files
    outer, inner = f"{NODE}:{port}", f"{NODE}:{port + 1}"
    alpn = "h2" if h2 else "http/1.1"
    tls_in = f"    tls: {{certFile: {cert}, keyFile: {key}, caFile: {ca}, clientCert: required, alpn: [{alpn}]}}\n"
    tls_out = f"  tls: {{sni: bench, caFile: {ca}, certFile: {cert}, keyFile: {key}}}\n"
    return ((outer, _edgemesh_side(lab, f"edgemesh-out-{port}", outer, inner, tls_out=tls_out,
                                   protocol="http2" if h2 else "http1")),
            (inner, _edgemesh_side(lab, f"edgemesh-in-{port}", inner, HTTP1, tls_in=tls_in)))


def _indent(text, spaces):
    return "".join(" " * spaces + line + "\n" for line in text.strip("\n").split("\n"))


def envoy_pair(lab, files, h2, port, binary):
    ca, cert, key = files
    outer, inner = f"{NODE}:{port}", f"{NODE}:{port + 1}"
    common = f"""common_tls_context:
  alpn_protocols: [{'h2' if h2 else 'http/1.1'}]
  tls_certificates: [{{certificate_chain: {{filename: {cert}}}, private_key: {{filename: {key}}}}}]
  validation_context: {{trusted_ca: {{filename: {ca}}}}}
"""
    api = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"

    def socket(kind, extra):
        return f"""transport_socket:
  name: tls
  typed_config:
    "@type": {api}.{kind}
    {extra}
""" + _indent(common, 4)

    out = http_peers.envoy(lab.dir, http_peers.Way(outer, inner, upstream_h2=h2), binary)
    into = http_peers.envoy(lab.dir, http_peers.Way(inner, HTTP1), binary)
    with open(out[2], "a", encoding="ascii") as f:  # the cluster is what the file ends with
        f.write(_indent(socket("UpstreamTlsContext", "sni: bench"), 4))
    with open(into[2], encoding="ascii") as f:
        text = f.read()
    with open(into[2], "w", encoding="ascii") as f:
        head, tail = text.split("  clusters:\n", 1)
        f.write(head + _indent(socket("DownstreamTlsContext", "require_client_certificate: true"), 6) +
                "  clusters:\n" + tail)
    return (outer, out), (inner, into)


def start(lab, table, name, files, h2, port):
    if name == "envoy":
        binary = envoy.binary(table)
        if binary is None:
            return None
        sides = envoy_pair(lab, files, h2, port, binary)
    else:
        sides = edgemesh(lab, files, h2, port)
    processes = [lab.proxy(f"{name}-{address.rsplit(':', 1)[1]}", argv, int(address.rsplit(":", 1)[1]))
                 for address, argv in reversed(sides)]
    return Pair(name, sides[0][0], processes)


def run(table, runs):
    with HttpLab() as lab:
        files = certificates(lab)
        pairs = {}
        for i, (kind, h2) in enumerate(KINDS.items()):
            for j, name in enumerate(("edgemesh", "envoy")):
                pair = start(lab, table, name, files, h2, 7100 + 20 * i + 2 * j)
                if pair is not None:
                    pairs[kind, name] = pair
        for _ in range(runs):
            for (kind, _), pair in pairs.items():
                add(table, WORK.format(kind), pair, lab.wrk(pair, seconds=SECONDS))
    for kind in KINDS:
        work = WORK.format(kind)
        mine, theirs = (table.value(f"{work}, CPU", name) for name in ("edgemesh", "envoy"))
        table.goal(f"Envoy's CPU a request over ours, {kind}", 2, theirs / mine if mine and theirs else None, True)
