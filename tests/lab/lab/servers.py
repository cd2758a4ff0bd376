"""Servers of the distribution on a node: nginx, nghttpd, haproxy, and the applications for gRPC and WebSocket."""

import hashlib
import os

from .mesh import APPS
from .programs import PYTHON
from .proc import run, wait_for

NGINX_PORT, NGINX_TLS_PORT, NGHTTPD_PORT, HAPROXY_PORT, GRPC_PORT, WS_PORT = 8181, 8443, 8182, 8183, 8184, 8185
TLS_NAMES = ("one.example", "two.example")
FILE_BYTES = 1_000_000

NGINX = """daemon off; master_process off; user root; pid {dir}/nginx.pid; error_log {dir}/nginx.error warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; absolute_redirect off; client_max_body_size 0; keepalive_requests 1000000;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{
    listen {port}; root {root};
    location /who {{ return 200 "nginx of {name} $server_protocol $http_connection\\n"; }}
    location /chunked {{ add_trailer x-end yes always; gzip on; gzip_min_length 1; gzip_types *; alias {root}/text; }}
    # Bodies go to itself: the second server sees their length once the first has all of it.
    location /upload {{ proxy_pass http://127.0.0.1:{port}/length; proxy_http_version 1.1; proxy_read_timeout 120s; }}
    location /length {{ return 200 "$http_content_length\\n"; }}
    location /empty {{ return 204; }}
    location /moved {{ return 302 /who; }}
  }}
{tls}}}
"""
NGINX_TLS = """  server {{
    listen {port} ssl http2; server_name {host}; ssl_certificate {dir}/{host}.crt; ssl_certificate_key {dir}/{host}.key;
    location / {{ return 200 "{host} $server_protocol\\n"; }}
  }}
"""
HAPROXY = """global
  maxconn 1000
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
"""


class Servers:
    """On one node. The files that they give out are under `root`; `digest` is of /file."""

    def __init__(self, node):
        self.node = node
        self.dir = node.lab.path(f"servers-{node.name}")
        self.root = os.path.join(self.dir, "root")
        os.makedirs(self.root)
        data = os.urandom(FILE_BYTES)
        self.data, self.digest = data, hashlib.sha256(data).hexdigest()
        for name, content in (("file", data), ("small", data[:1000]), ("text", b"text that is compressed\n" * 5000)):
            with open(os.path.join(self.root, name), "wb") as f:
                f.write(content)

    def start_all(self):
        self.nginx()
        self.nghttpd()
        self.haproxy("server", f"frontend in\n  bind :{HAPROXY_PORT}\n  bind :{HAPROXY_PORT + 1000} proto h2\n"
                               f"  default_backend out\nbackend out\n  server nginx 127.0.0.1:{NGINX_PORT}\n")
        self.application("grpc", "grpc_app.py", GRPC_PORT)
        self.application("ws", "ws_app.py", WS_PORT)
        for port in (NGINX_PORT, NGINX_TLS_PORT, NGHTTPD_PORT, HAPROXY_PORT, GRPC_PORT, WS_PORT):
            self.wait_listening(port)

    def wait_listening(self, port):
        wait_for(lambda: self.node.run(["ss", "-Htln", f"sport = :{port}"]).stdout.strip(), 10,
                 f"port {port} of {self.node.name} is listened on")

    def nginx(self):
        tls = ""
        for host in TLS_NAMES:
            run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                 "30", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}", "-keyout",
                 f"{self.dir}/{host}.key", "-out", f"{self.dir}/{host}.crt"])
            tls += NGINX_TLS.format(port=NGINX_TLS_PORT, host=host, dir=self.dir)
        path = os.path.join(self.dir, "nginx.conf")
        with open(path, "w", encoding="ascii") as f:
            f.write(NGINX.format(dir=self.dir, root=self.root, port=NGINX_PORT, name=self.node.name, tls=tls))
        return self.node.start("nginx", ["nginx", "-e", f"{self.dir}/nginx.error", "-c", path])

    def nghttpd(self):
        return self.node.start("nghttpd", ["nghttpd", "--no-tls", "--echo-upload", "--trailer", "x-end: yes", "-d",
                                           self.root, str(NGHTTPD_PORT)])

    def haproxy(self, name, config):
        path = os.path.join(self.dir, f"haproxy-{name}.cfg")
        with open(path, "w", encoding="ascii") as f:
            f.write(HAPROXY + config)
        return self.node.start(f"haproxy-{name}", ["haproxy", "-db", "-f", path])

    def application(self, name, program, port):
        return self.node.start(name, [PYTHON, os.path.join(APPS, program), "serve", self.node.name, str(port)])

    def objects(self):
        """A service of each for this node: ngx-b, h2-b, ha-b, hah2-b, grpc-b, ws-b."""
        out = []
        for service, ports in (
                ("ngx", [("web", "http", 80, NGINX_PORT), ("https", None, 443, NGINX_TLS_PORT),
                         ("tcp", None, 81, NGINX_PORT), ("http-tls", None, 82, NGINX_TLS_PORT)]),
                ("h2", [("web", "kubernetes.io/h2c", 80, NGHTTPD_PORT)]),
                ("ha", [("http", None, 80, HAPROXY_PORT), ("http2", None, 81, HAPROXY_PORT + 1000)]),
                ("grpc", [("grpc", None, 80, GRPC_PORT)]),
                ("ws", [("web", "kubernetes.io/ws", 80, WS_PORT)])):
            out += service_objects(f"{service}-{self.node.name[-1]}", self.node, ports)
        return out


def service_objects(name, node, ports):
    """`ports`: (name, appProtocol or None, port, target port)."""
    def told(app):
        return {"appProtocol": app} if app else {}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
         "spec": {"ports": [{"name": n, "port": p, "targetPort": t, **told(app)} for n, app, p, t in ports]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
         "metadata": {"name": f"{name}-lab", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
         "addressType": "IPv4", "ports": [{"name": n, "port": t, "protocol": "TCP", **told(app)}
                                          for n, app, _, t in ports],
         "endpoints": [{"addresses": [node.ip], "nodeName": node.name, "conditions": {"ready": True}}]}]
