"""Writes many services straight to the Kubernetes API: kubectl is slow with 20,000 objects.

As a program (inside the cloud's namespace): kube_load.py CERT KEY CA HOST PORT COUNT ENDPOINTS
"""

import base64
import http.client
import json
import os
import re
import ssl
import sys
import threading
import time

PATHS = {"Service": "/api/v1/namespaces/default/services",
         "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"}
CONNECTIONS = 4


def objects(i, endpoints):
    name = f"bulk-{i}"
    yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
           "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}
    yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
           "metadata": {"name": f"{name}-1", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
           "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
           "endpoints": [{"addresses": [f"10.{128 + (i >> 12)}.{(i >> 4) & 255}.{(i & 15) * 16 + e + 1}"],
                          "nodeName": f"node-{i % 50}", "conditions": {"ready": True}} for e in range(endpoints)]}


def write(host, port, context, numbers, endpoints, errors):
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=30)
    for i in numbers:
        for item in objects(i, endpoints):
            connection.request("POST", PATHS[item["kind"]], json.dumps(item), {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read()
            if response.status != 201:
                errors.append(f"{response.status} {body[:300]!r}")
                return


def main(cert, key, ca, host, port, count, endpoints):
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    context.load_cert_chain(cert, key)
    errors, start = [], time.monotonic()
    threads = [threading.Thread(target=write, args=(host, int(port), context, range(k, int(count), CONNECTIONS),
                                                    int(endpoints), errors)) for k in range(CONNECTIONS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        print(errors[0], file=sys.stderr)
        return 1
    print(time.monotonic() - start)
    return 0


def create_services(mesh, count, endpoints):
    """Seconds that it took. Reads the administrator's certificate out of admin.kubeconfig."""
    with open(mesh.cloud.kubeconfig, encoding="utf-8") as f:
        config = f.read()
    files = []
    for field in ("client-certificate-data", "client-key-data", "certificate-authority-data"):
        found = re.search(rf'"?{field}"?\s*:\s*"?([A-Za-z0-9+/=]+)', config)
        files.append(mesh.path(f"{field}.pem"))
        with open(files[-1], "wb") as f:
            f.write(base64.b64decode(found.group(1)))
        os.chmod(files[-1], 0o600)
    argv = ["/usr/bin/python3", os.path.abspath(__file__), *files, "127.0.0.1", "6443", str(count), str(endpoints)]
    return float(mesh.cloud_ns.run(argv, timeout=600).stdout)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
