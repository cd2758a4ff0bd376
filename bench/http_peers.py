"""Reverse proxies with one worker: one listener, one backend, kept connections to it, no logs.

Each maker writes the configuration and returns the command line. `Way` says what is spoken on either side.
"""

import dataclasses
import os


@dataclasses.dataclass
class Way:
    listen: str
    to: str
    h2: bool = False  # the client speaks HTTP/2
    upstream_h2: bool = False
    tls: tuple = ()  # certificate, key, both in one


def _write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return path


def telemetry_on(directory, way, program):
    """edgemesh with an access log, metrics, and spans of one request in a hundred; nobody takes the spans."""
    return edgemesh(directory, way, program, f"""telemetry:
  accessLog: [{{path: {os.path.join(directory, 'access.log')}}}]
  tracing: {{url: "http://127.0.0.1:9/v1/traces", samplePercent: 1}}
""")


def telemetry_off(directory, way, program):
    return edgemesh(directory, way, program, "telemetry: {metrics: false}\n")


def edgemesh(directory, way, program, told=""):
    """As it is by default: with metrics, without logs and spans."""
    tls = (f"    tls: {{certFile: {way.tls[0]}, keyFile: {way.tls[1]}, alpn: [h2, http/1.1], "
           "sessionTickets: false}\n") if way.tls else ""
    text = f"""{told}listeners:
- name: web
  address: {way.listen}
  chains:
  - name: http
{tls}    http: {{routes: web}}
routes:
- name: web
  hosts:
  - name: all
    domains: ["*"]
    routes:
    - {{name: all, match: {{prefix: /}}, cluster: backend}}
clusters:
- name: backend
  protocol: {'http2' if way.upstream_h2 else 'http1'}
  endpoints: [{{address: "{way.to}"}}]
"""
    path = _write(os.path.join(directory, f"edgemesh-{way.listen}.yaml"), text)
    return [program, "--config", path, "--workers", "1", "--admin", "", "--log-level", "warn"]


def haproxy(directory, way):
    bind = f" ssl crt {way.tls[2]} alpn h2,http/1.1" if way.tls else " proto h2" if way.h2 else ""
    text = f"""global
  nbthread 1
  maxconn 9000
  tune.ssl.cachesize 0
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
listen web
  bind {way.listen}{bind}{' no-tls-tickets' if way.tls else ''}
  server one {way.to}{' proto h2' if way.upstream_h2 else ''} pool-max-conn 1000
"""
    return ["haproxy", "-db", "-f", _write(os.path.join(directory, f"haproxy-{way.listen}.cfg"), text)]


def nginx(directory, way):
    home = os.path.join(directory, f"nginx-{way.listen}")
    os.makedirs(home, exist_ok=True)
    flags = (" ssl" if way.tls else "") + (" http2" if way.h2 else "")
    tls = (f"    ssl_certificate {way.tls[0]};\n    ssl_certificate_key {way.tls[1]};\n"
           "    ssl_session_cache off;\n    ssl_session_tickets off;\n"
           "    ssl_protocols TLSv1.2 TLSv1.3;\n") if way.tls else ""
    send = "grpc_pass grpc://up;" if way.upstream_h2 else \
        'proxy_pass http://up;\n      proxy_http_version 1.1;\n      proxy_set_header Connection "";'
    text = f"""worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {home}/nginx.pid;
error_log {home}/nginx.err;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 1h;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  upstream up {{
    server {way.to};
    keepalive 512;
    keepalive_requests 100000000;
  }}
  server {{
    listen {way.listen}{flags} backlog=4096;
{tls}    location / {{
      {send}
    }}
  }}
}}
"""
    return ["nginx", "-c", _write(os.path.join(home, "nginx.conf"), text), "-p", home]


def nghttpx(directory, way):
    listen, to = (a.rsplit(":", 1) for a in (way.listen, way.to))
    argv = ["nghttpx", "--conf=/dev/null", "--single-process", "--workers=1", "--accesslog-file=/dev/null",
            f"--errorlog-file={directory}/nghttpx-{way.listen}.err", "--backend-connections-per-host=512",
            "--frontend-keep-alive-timeout=3600", "--frontend-http2-read-timeout=3600", "--no-server-rewrite",
            "--no-location-rewrite", f"-b{to[0]},{to[1]};;proto={'h2' if way.upstream_h2 else 'http/1.1'}"]
    if way.tls:
        return argv + [f"-f{listen[0]},{listen[1]}", "--no-ocsp", "--tls-max-proto-version=TLSv1.3",
                       way.tls[1], way.tls[0]]
    return argv + [f"-f{listen[0]},{listen[1]};no-tls"]


def envoy(directory, way, program):
    listen, to = (a.rsplit(":", 1) for a in (way.listen, way.to))
    tls = f"""      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          disable_stateless_session_resumption: true
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: {{filename: {way.tls[0]}}}
              private_key: {{filename: {way.tls[1]}}}
""" if way.tls else ""
    http2 = """    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
""" if way.upstream_h2 else ""
    text = f"""static_resources:
  listeners:
  - address: {{socket_address: {{address: {listen[0]}, port_value: {listen[1]}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          codec_type: AUTO
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: backend}}}}]
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
{tls}  clusters:
  - name: backend
    connect_timeout: 5s
    circuit_breakers:
      thresholds: [{{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}}]
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {to[0]}, port_value: {to[1]}}}}}}}
{http2}"""
    path = _write(os.path.join(directory, f"envoy-{way.listen}.yaml"), text)
    return [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
