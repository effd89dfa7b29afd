"""A receiver of webhooks on a port of its own."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

from tests.waiting import wait_until

ALLOWED = ("127.0.0.1/32",)  # for the setting `webhook_allowed_hosts`


@dataclass(frozen=True)
class Received:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What arrived, and how the next requests are answered."""

    port: int = 0
    requests: list[Received] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # of the next requests; then 204
    response_headers: dict[str, str] = field(default_factory=dict)
    response: bytes = b""
    respond: threading.Event = field(default_factory=threading.Event)  # clear it to be slow

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    def wait(self, count: int, seconds: float = 20.0) -> list[Received]:
        """Wait until this many requests have arrived, and return them."""
        wait_until(lambda: len(self.requests) >= count, seconds=seconds, what=f"request {count}")
        return self.requests[:count]


@contextmanager
def receiving(
    host: str = "127.0.0.1", tls: SSLContext | None = None, port: int = 0
) -> Iterator[Receiver]:
    """Run a receiver in a thread, on a free port if none is given."""
    receiver = Receiver()
    receiver.respond.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append(Received(self.path, headers, body))
            receiver.respond.wait()
            status = receiver.statuses.pop(0) if receiver.statuses else 204
            self.send_response(status)
            for name, value in receiver.response_headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(receiver.response)))
            self.end_headers()
            if status != 204:
                self.wfile.write(receiver.response)

        def log_message(self, format: str, *args: Any) -> None:
            """Write nothing to standard error."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the sender did not wait for the response
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

    server = Server((host, port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.respond.set()
        server.shutdown()
        server.server_close()
        thread.join()
