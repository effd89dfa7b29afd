"""A TCP proxy that can drop traffic, like a network that loses packets."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

from tests.servers import HOST

RESET = struct.pack("ii", 1, 0)  # close with RST instead of FIN


class Proxy:
    """Forwards connections from `port` to the server on `target`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def blackhole(self) -> None:
        """Connections stay open and new ones are accepted, but nothing is forwarded."""
        self._flowing.clear()

    def open(self) -> None:
        """Resume forwarding, including what was held back."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection. New ones are accepted."""
        connections, self._connections = self._connections, []
        for each in connections:
            _reset(each)

    def close(self) -> None:
        """Go down: connections are reset, new ones refused."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._flowing.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._connections.append(client)
        self._flowing.wait()
        with client, suppress(OSError), socket.create_connection((HOST, self._target)) as server:
            self._connections.append(server)
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
            self._flowing.wait()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for each in (source, sink):
                _reset(each)


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RDWR)
