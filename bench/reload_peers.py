"""Peers with as many backends and routes, and how they take a changed one: a new process, or a new worker."""

import os
import signal
import time

from harness import pinned
from http_lab import HTTP1, NODE
from lab.proc import LabError, wait_for

PORT = 7001
NAMES = ("haproxy", "nginx")
MARK = "x-mark"  # of the answer to /mark; what a reload changes


def haproxy(directory, count, marker):
    """Routes by a map, as its manual advises for many."""
    home = os.path.join(directory, "haproxy-many")
    os.makedirs(home, exist_ok=True)
    write(f"{home}/routes.map", "".join(f"/{i} c{i}\n" for i in range(count)))
    backends = "".join(f"backend c{i}\n  server one {HTTP1}\n" for i in range(count))
    return ["haproxy", "-W", "-db", "-f", write(f"{home}/haproxy.cfg", f"""global
  nbthread 1
  maxconn 9000
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend web
  bind {NODE}:{PORT}
  http-request return status 200 hdr {MARK} {marker} if {{ path /mark }}
  use_backend %[path,map({home}/routes.map,rest)]
backend rest
  server one {HTTP1}
{backends}""")]


def nginx(directory, count, marker):
    home = os.path.join(directory, "nginx-many")
    os.makedirs(home, exist_ok=True)
    upstreams = "".join(f"  upstream c{i} {{ server {HTTP1}; keepalive 4; }}\n" for i in range(count))
    routes = "".join(f"    location = /{i} {{ proxy_pass http://c{i}; }}\n" for i in range(count))
    paths = "".join(f"  {name}_temp_path {home}/{name};\n"
                    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return ["nginx", "-p", home, "-c", write(f"{home}/nginx.conf", f"""worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {home}/nginx.pid;
error_log {home}/nginx.err;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
{paths}{upstreams}  upstream rest {{ server {HTTP1}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen {NODE}:{PORT} backlog=4096;
    location = /mark {{ add_header {MARK} {marker}; return 200; }}
    location / {{ proxy_pass http://rest; }}
{routes}  }}
}}
""")]


SIGNALS = {"haproxy": signal.SIGUSR2, "nginx": signal.SIGHUP}
MAKERS = {"haproxy": haproxy, "nginx": nginx}


def write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return path


def anonymous_mb(lab, pid):
    """Of a process and its children, what they share counted once; a reload may double it for a while."""
    total = 0
    for one in [str(pid)] + lab.hub.run(["pgrep", "-P", str(pid)], check=False).stdout.split():
        with open(f"/proc/{one}/smaps_rollup", encoding="ascii") as f:
            total += sum(int(line.split()[1]) for line in f if line.startswith("Pss_Anon:"))
    return total / 1e3


class Peer:
    def __init__(self, lab, name, count):
        self.lab, self.name, self.count = lab, name, count
        argv = MAKERS[name](lab.dir, count, "m0")
        self.process = lab.start(f"{name}-{count}", lab.hub.wrap(pinned(0, argv)))
        wait_for(lambda: not self.process.running() or self.mark() == "m0", 60, f"{name} answers")
        if not self.process.running():
            raise LabError(f"{name} with {count} backends: {self.process.log_tail()}")
        self.address = f"{NODE}:{PORT}"

    def mark(self):
        out = self.lab.pod.run(["curl", "-s", "-m", "5", "-o", "/dev/null", "-D", "-", f"http://{NODE}:{PORT}/mark"],
                               check=False).stdout
        found = [line.split(":", 1)[1].strip() for line in out.splitlines() if line.lower().startswith(MARK + ":")]
        return found[0] if found else None

    def reload_ms(self, marker):
        """From the signal to the first new connection that is answered by the new configuration."""
        MAKERS[self.name](self.lab.dir, self.count, marker)
        began = time.monotonic()
        self.process.signal(SIGNALS[self.name])
        wait_for(lambda: self.mark() == marker, 60, f"{self.name} has the new configuration", 0.002)
        return (time.monotonic() - began) * 1e3

    def memory_mb(self):
        return anonymous_mb(self.lab, self.process.pid)
