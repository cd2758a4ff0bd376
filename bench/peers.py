"""haproxy and nginx as L4 proxies, as shipped and tuned, with one worker."""

import os

HAPROXY = """global
  nbthread 1
  maxconn {maxconn}
{tuning}defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
{options}listen l4
  bind {listen}
  server one {to}
"""
NGINX = """load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.err;
events {{ worker_connections 19900; }}
stream {{
  server {{
    listen {listen} backlog=4096;
    proxy_pass {to};
    proxy_timeout 1h;
{options}  }}
}}
"""


def _write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return path


def haproxy(directory, listen, to, tuned):
    """The command line. Tuned: forced splice and 1 MiB pipes (two descriptors more a connection)."""
    tuning = "  tune.pipesize 1048576\n" if tuned else ""
    options = "  option splice-request\n  option splice-response\n" if tuned else ""
    path = _write(os.path.join(directory, f"haproxy-{'tuned' if tuned else 'shipped'}.cfg"),
                  HAPROXY.format(maxconn=4900 if tuned else 9900, tuning=tuning, options=options, listen=listen, to=to))
    return ["haproxy", "-db", "-f", path]


def nginx(directory, listen, to, tuned):
    """The command line. Tuned: 256 KiB buffers."""
    options = "    proxy_buffer_size 256k;\n" if tuned else ""
    home = os.path.join(directory, f"nginx-{'tuned' if tuned else 'shipped'}")
    os.makedirs(home, exist_ok=True)
    path = _write(os.path.join(home, "nginx.conf"), NGINX.format(dir=home, options=options, listen=listen, to=to))
    return ["nginx", "-c", path, "-p", home]
