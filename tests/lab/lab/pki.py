"""Certificates for tests of what must be refused, made with the openssl command."""

import os

from .proc import run

CONFIG = """[ca]
default_ca = d
[d]
dir = {dir}
database = {dir}/index.txt
serial = {dir}/serial
new_certs_dir = {dir}
default_md = sha256
policy = p
unique_subject = no
[p]
commonName = supplied
organizationName = optional
[req]
distinguished_name = dn
[dn]
"""


class Pki:
    """Issues with the CA in (cert, key), or with a new one of its own."""

    def __init__(self, directory, cert=None, key=None):
        os.makedirs(directory)
        self.dir = directory
        self.cert = cert or os.path.join(directory, "ca.crt")
        self.key = key or os.path.join(directory, "ca.key")
        with open(self._path("openssl.cnf"), "w", encoding="ascii") as f:
            f.write(CONFIG.format(dir=directory))
        open(self._path("index.txt"), "w", encoding="ascii").close()
        with open(self._path("serial"), "w", encoding="ascii") as f:
            f.write("4d4500\n")
        if cert is None:
            run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                 "30", "-subj", "/CN=another CA", "-keyout", self.key, "-out", self.cert])

    def _path(self, name):
        return os.path.join(self.dir, name)

    def node(self, node, expired=False, trust_domain="edgemesh.local"):
        """(certificate file, key file) of a node, as bootstrap makes them."""
        return self._issue(f"{node}{'-expired' if expired else ''}", f"/O=system:nodes/CN=system:node:{node}",
                           f"URI:spiffe://{trust_domain}/node/{node},DNS:{node}", expired)

    def server(self, ip):
        """(certificate file, key file) of a server at this address."""
        return self._issue(f"server-{ip}", "/O=lab/CN=server", f"IP:{ip}", False)

    def _issue(self, stem, subject, names, expired):
        crt, key, csr, ext = (self._path(f"{stem}.{end}") for end in ("crt", "key", "csr", "ext"))
        with open(ext, "w", encoding="ascii") as f:
            f.write("basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                    f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n")
        run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-subj", subject, "-keyout", key, "-out", csr])
        dates = ["-startdate", "20240101000000Z", "-enddate", "20240201000000Z"] if expired else ["-days", "30"]
        run(["openssl", "ca", "-batch", "-config", self._path("openssl.cnf"), "-cert", self.cert, "-keyfile", self.key,
             "-in", csr, "-out", crt, "-extfile", ext, "-notext", *dates])
        return crt, key
