"""A small upload API on this machine, for the demo, the examples and the tests: real HTTP, and faults where they are asked for.

It speaks what the uploader speaks: `POST /api/users/login/` and `POST /api/data/upload/`. Not for anything but loopback.
"""

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self, cast

from dicomrx.demo.faults import Arrival, Dripping, Fault, FaultyBody
from dicomrx.demo.multipart import MalformedBodyError, boundary_of, receive_file
from dicomrx.spool import durable

LOGIN: Final = "/api/users/login/"
UPLOAD: Final = "/api/data/upload/"
_CHUNK: Final = 1 << 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Received:
    """One accepted upload, and where its bytes lie."""

    name: str
    key: str
    sha256: str
    size: int
    path: Path


class DemoApi:
    """The server, running while it is entered; `port` 0 takes a free one.

    `fault` is asked at each request what is to go wrong with it. `honour_key` off makes it the kind of server that accepts
    a repeat as one more upload.
    """

    def __init__(
        self,
        folder: Path,
        *,
        username: str = "demo",
        password: str = "demo",  # noqa: S107 - of a server that only this machine reaches
        port: int = 0,
        fault: Callable[[Arrival], Fault | None] = lambda _: None,
        honour_key: bool = True,
    ) -> None:
        self.folder = folder
        self.username = username
        self.password = password
        self.fault = fault
        self.honour_key = honour_key
        self.accepted: list[Received] = []
        self.repeats = 0
        self.requests: list[Arrival] = []
        self.closing = threading.Event()
        self._tokens: set[str] = set()
        self._answers: dict[str, tuple[str, dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._parts = 0
        self._server = _Server(self, port)

    @property
    def url(self) -> str:
        """What API_URL is to be."""
        return f"http://127.0.0.1:{self._server.server_port}/api"

    def __enter__(self) -> Self:
        durable.make_directory(self.folder)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close_port()

    def close_port(self) -> None:
        """Refuse connections from now on; what is being answered is answered yet."""
        self.closing.set()
        self._server.stop()

    def open_port(self) -> None:
        """Listen again, on the same port."""
        self._server = _Server(self, self._server.server_port)
        self.closing.clear()
        self._server.start()

    def expire_tokens(self) -> None:
        """Make every token given so far worthless."""
        with self._lock:
            self._tokens.clear()

    def count(self, path: str) -> Arrival:
        """Note a request."""
        with self._lock:
            arrival = Arrival(path, 1 + sum(request.path == path for request in self.requests))
            self.requests.append(arrival)
        return arrival

    def log_in(self, username: str, password: str) -> dict[str, Any] | None:
        """The answer to a login, or None where it is refused."""
        if not hmac.compare_digest(f"{username}\0{password}".encode(), f"{self.username}\0{self.password}".encode()):
            return None
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._tokens.add(token)
        return {"access": token, "refresh": secrets.token_urlsafe(24), "user": {"username": username}}

    def knows(self, authorization: str) -> bool:
        """True for a token given and not expired."""
        with self._lock:
            return authorization.removeprefix("Bearer ") in self._tokens

    def new_part(self) -> Path:
        """A name for an upload that is still coming in."""
        with self._lock:
            self._parts += 1
            return self.folder / f".{os.getpid()}-{self._parts}.part"

    def accept(self, part: Path, name: str, key: str, sha256: str) -> tuple[int, dict[str, Any]]:
        """Status and answer for a whole upload; a repeat gets the answer that the first one got."""
        with self._lock:
            if key in self._answers and self.honour_key:
                known, answer = self._answers[key]
                self.repeats += 1
                return (201, answer) if known == sha256 else (422, {"detail": "this Idempotency-Key came with other bytes"})
            number = len(self.accepted) + 1
            path = self.folder / f"{number:04d}-{re.sub(r'[^0-9A-Za-z._-]', '_', name)}"
            size = part.stat().st_size
            durable.move(part, path)
            self.accepted.append(Received(name, key, sha256, size, path))
            answer = {"id": number, "name": name, "size": size, "sha256": sha256}
            if key:
                self._answers[key] = (sha256, answer)
            return 201, answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, api: DemoApi, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.api = api
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()

    def server_bind(self) -> None:
        # Not HTTPServer's: it looks its own name up, which takes seconds where there is no name service.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no error of ours, and what it sent belongs in no log."""
        _log.debug("a connection broke off")


class _Dropped(Exception):
    """The connection is to be dropped without an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    @property
    def api(self) -> DemoApi:
        return cast(_Server, self.server).api

    def do_POST(self) -> None:
        fault = self.api.fault(self.api.count(self.path)) or Fault()
        body = FaultyBody(self.rfile, int(self.headers.get("Content-Length", 0)), fault, self.reset)
        try:
            if not self._fails(fault, body):
                self._serve(body, fault)
        except _Dropped:
            self.close_connection = True

    def _serve(self, body: FaultyBody, fault: Fault) -> None:
        if self.path == LOGIN:
            answer = self._log_in(body)
        elif self.path == UPLOAD:
            answer = self._upload(body)
        else:
            body.drain()
            answer = 404, {"detail": "not found"}
        fault.meanwhile()
        if fault.lose_answer:
            raise _Dropped
        self._answer(answer[0], json.dumps(answer[1]).encode(), drip_s=fault.drip_s)

    def _fails(self, fault: Fault, body: FaultyBody) -> bool:
        """Do what the fault wants; False where the request is to be served."""
        if fault.early:
            self.close_connection = True
        elif fault.status or fault.raw or fault.hang_s or fault.reset_at is not None:
            body.drain()
        if fault.status or fault.raw is not None or fault.hang_s:
            fault.meanwhile()
        if fault.hang_s is not None:
            self.api.closing.wait(fault.hang_s)
            raise _Dropped
        if fault.raw is not None:
            self.wfile.write(fault.raw)
            raise _Dropped
        if fault.status is not None:
            self._answer(fault.status, fault.body, fault.headers)
        return fault.status is not None

    def _log_in(self, body: FaultyBody) -> tuple[int, dict[str, Any]]:
        try:
            content = json.loads(body.read(_CHUNK))
            answer = self.api.log_in(str(content["username"]), str(content["password"]))
        except (ValueError, KeyError, TypeError):
            body.drain()
            return 400, {"detail": "username and password are wanted, as JSON"}
        return (401, {"detail": "no such user, or another password"}) if answer is None else (200, answer)

    def _upload(self, body: FaultyBody) -> tuple[int, dict[str, Any]]:
        if not self.api.knows(self.headers.get("Authorization", "")):
            body.drain()
            return 401, {"detail": "log in first"}
        part = self.api.new_part()
        digest = hashlib.sha256()
        try:
            with part.open("xb") as file:

                def write(data: bytes) -> None:
                    digest.update(data)
                    file.write(data)

                name = receive_file(body, boundary_of(self.headers.get("Content-Type", "")), write)
            body.drain()
            return self.api.accept(part, name, self.headers.get("Idempotency-Key", ""), digest.hexdigest())
        except MalformedBodyError:
            body.drain()
            return 400, {"detail": "a multipart form with one 'file' is wanted"}
        finally:
            part.unlink(missing_ok=True)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, drip_s: float = 0.0) -> None:
        if self.api.closing.is_set():
            self.close_connection = True
        self.wfile = Dripping(self.wfile, drip_s) if drip_s else self.wfile
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """Close at once with RST: past the socket module, which would say goodbye first."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        raise _Dropped

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
        _log.debug(format, *args)
