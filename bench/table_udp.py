"""Datagrams through a proxy with one worker: rate, CPU and memory of flows, and what is lost at a fixed rate.

The namespaces of table l4, a plain listener for all.
"""

import json
import os

import envoy
from harness import pinned
from lab.binaries import program, tool
from lab.proc import wait_for
from table_l4 import NODE, L4Lab, worker_pid

BACKEND = "172.30.2.2:9000"
FLOWS = 10_000
PACED = 20_000  # datagrams/s, each answered
RATE, CPU, MEMORY, LOST = ("64 bytes, 100 flows", "64 bytes, 100 flows, CPU", f"{FLOWS} flows, memory",
                           f"{FLOWS} flows, {PACED}/s, lost")
PORTS = {"edgemesh": 7000, "nginx stream": 7001, "envoy": 7002}


def _write(directory, name, text):
    path = os.path.join(directory, name)
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return path


def edgemesh(directory, listen, to):
    path = _write(directory, "edgemesh-udp.yaml", f"""listeners:
- {{name: datagrams, kind: udp, address: "{listen}", udpCluster: backend, udpMaxFlows: 20000}}
clusters:
- name: backend
  endpoints: [{{address: "{to}"}}]
""")
    return [program("edgemesh-proxy"), "--config", path, "--workers", "1", "--admin", "", "--log-level", "warn"]


def nginx(directory, listen, to):
    home = os.path.join(directory, "nginx-udp")
    os.makedirs(home, exist_ok=True)
    path = _write(home, "nginx.conf", f"""load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {home}/nginx.pid;
error_log {home}/nginx.err;
events {{ worker_connections 19900; }}
stream {{
  server {{
    listen {listen} udp rcvbuf=8m;
    proxy_pass {to};
    proxy_timeout 60s;
  }}
}}
""")
    return ["nginx", "-c", path, "-p", home]


def envoy_proxy(directory, listen, to, binary):
    (ip, port), (to_ip, to_port) = (a.rsplit(":", 1) for a in (listen, to))
    filters = "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3"
    path = _write(directory, "envoy-udp.yaml", f"""static_resources:
  listeners:
  - name: datagrams
    address: {{socket_address: {{protocol: UDP, address: {ip}, port_value: {port}}}}}
    socket_options: [{{level: 1, name: 33, int_value: 8388608, state: STATE_PREBIND}}]
    listener_filters:
    - name: udp
      typed_config:
        "@type": {filters}.UdpProxyConfig
        stat_prefix: datagrams
        matcher:
          on_no_match:
            action: {{name: route, typed_config: {{"@type": {filters}.Route, cluster: backend}}}}
  clusters:
  - name: backend
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 20000}}]}}
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {to_ip}, port_value: {to_port}}}}}}}
""")
    return [binary, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


class UdpLab(L4Lab):
    def __init__(self):
        super().__init__()
        self.start("udp-echo", self.srv.wrap(pinned(1, [tool("udp_load"), "--echo", BACKEND])))

    def variants(self, table):
        """name -> (address, pid)"""
        out = {}
        for name, port in PORTS.items():
            listen = f"{NODE}:{port}"
            if name == "envoy":
                binary = envoy.binary(table)
                if binary is None:
                    continue
                argv = envoy_proxy(self.dir, listen, BACKEND, binary)
            else:
                argv = (edgemesh if name == "edgemesh" else nginx)(self.dir, listen, BACKEND)
            process = self.proxy(f"{name.replace(' ', '-')}-udp", argv)
            self.wait_datagrams(port, process)
            out[name] = (listen, worker_pid(self, process))
        return out

    def wait_datagrams(self, port, process):
        wait_for(lambda: not process.running() or self.hub.run(["ss", "-Hlun", f"sport = :{port}"]).stdout.strip(), 10,
                 f"datagram port {port}")

    def load(self, to, pid, **options):
        argv = [tool("udp_load"), "--to", to, "--pid", pid]
        for key, value in options.items():
            argv += [f"--{key}", value]
        return json.loads(self.pod.run(pinned(1, argv), timeout=120).stdout)


def run(table, runs):
    for _ in range(runs):
        with UdpLab() as lab:  # anew: the flows of the round before would be in the memory
            variants = lab.variants(table)
            for name, (address, pid) in variants.items():
                result = lab.load(address, pid, flows=100, seconds=2)
                table.add(RATE, name, result["per_second"], "datagrams/s, each answered")
                table.add(CPU, name, result["cpu_us"], "us each")
            for name, (address, pid) in variants.items():
                result = lab.load(address, pid, flows=FLOWS, seconds=3, rate=PACED)
                if result["flows"] < FLOWS:
                    table.log(f"  {name}: {result['flows']} of {FLOWS} flows")
                table.add(MEMORY, name, result["bytes_per_flow"], "user bytes each")
                table.add(LOST, name, result["lost"], f"of {result['sent']} datagrams")
    peers = tuple(p for p in PORTS if p != "edgemesh")
    table.goal("datagrams/s over the best peer's", 1.0, table.ratio(RATE, "edgemesh", peers), True)
    table.goal("datagrams lost at the fixed rate", 0, table.value(LOST, "edgemesh"), False)
