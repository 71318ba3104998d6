"""Certificates for the API over TCP, named as the docker CLI wants them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_pki(folder: Path) -> Path:
    """Make a CA (``ca.pem``), and certificates of a server on loopback and of a client by it."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=folder)

    openssl("req", "-x509", *key, "-subj", "/CN=ca", "-keyout", "ca-key.pem", "-out", "ca.pem")
    for name, usage in (("server", "serverAuth"), ("", "clientAuth")):
        prefix = f"{name}-" if name else ""
        (folder / "ext").write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        openssl("req", *key, "-subj", f"/CN={usage}", "-keyout", f"{prefix}key.pem", "-out", "csr")
        signing = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2"]
        openssl("x509", "-req", *signing, "-in", "csr", "-extfile", "ext",
                "-out", f"{prefix}cert.pem")  # fmt: skip
    return folder
