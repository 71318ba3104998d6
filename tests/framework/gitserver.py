"""Git repositories over HTTP: ``python gitserver.py FOLDER ADDRESS PORT``; a line says it is ready.

``/NAME`` are plain files (git's dumb protocol), ``/smart/NAME`` goes through git http-backend,
``/auth/NAME`` too for ``u`` with password ``p w``, ``/to/HOST:PORT/PATH`` redirects, ``/hang/NAME``
never answers.
"""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import time

BASIC = "Basic dTpwIHc="


class Handler(http.server.SimpleHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        kind, _, rest = self.path.lstrip("/").partition("/")
        if kind == "hang":
            time.sleep(600)
        elif kind == "auth" and self.headers.get("Authorization") != BASIC:
            self._head(401, [("WWW-Authenticate", "Basic realm=x"), ("Content-Length", "0")])
        elif kind == "to":
            self._head(302, [("Location", f"http://{rest}"), ("Content-Length", "0")])
        elif kind in ("smart", "auth"):
            self._backend(f"/{rest}", b"")
        else:
            super().do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._backend("/" + self.path.lstrip("/").partition("/")[2], body)

    def _backend(self, target: str, body: bytes) -> None:
        path, _, query = target.partition("?")
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": self.directory,
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            },
        )
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = [line.partition(": ")[::2] for line in head.decode().split("\r\n")]
        status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
        self._head(status, [*fields, ("Content-Length", str(len(answer)))])
        self.wfile.write(answer)

    def _head(self, status: int, fields: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    folder, address, port = sys.argv[1:]
    os.chdir(folder)
    server = http.server.ThreadingHTTPServer((address, int(port)), Handler)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
