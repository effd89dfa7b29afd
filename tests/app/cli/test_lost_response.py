"""A lost response: the client retries and creates nothing twice."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select

from app.cli.client import Client
from app.cli.errors import ConnectionLost, ServiceUnreachableOrFailed
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.queue.tables import Job
from app.registry.tables import ModelVersion
from tests.app.cli.conftest import FakeWorker
from tests.servers import free_port

LORA: dict[str, Any] = {"method": {"type": "lora"}}
CSV = "text,label\n" + "".join(f"text {n},{'good' if n % 2 else 'bad'}\n" for n in range(40))


class Forgetful:
    """A proxy that drops the first `lost` responses after receiving them."""

    def __init__(self, url: str, *, lost: int) -> None:
        self._target = ("127.0.0.1", urlsplit(url).port or 0)
        self._lost = lost
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as service:
            back = threading.Thread(target=self._answer, args=(service, client), daemon=True)
            back.start()
            self._pump(client, service)
            back.join()

    def _answer(self, service: socket.socket, client: socket.socket) -> None:
        if self._lost > 0 and service.recv(1):
            self._lost -= 1
            client.shutdown(socket.SHUT_RDWR)
            return
        self._pump(service, client)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


@pytest.fixture
def forgetful(url: str) -> Iterator[Forgetful]:
    relay = Forgetful(url, lost=1)
    yield relay
    relay.close()


def count(database: Database, table: type[Any]) -> int:
    with database.read() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def test_job_is_created_once(forgetful: Forgetful, database: Database) -> None:
    with Client(forgetful.url) as client:
        job = client.create_job(LORA)
        assert [each.id for each in client.list_jobs(10)] == [job.id]
    assert count(database, Job) == 1


def test_each_job_has_its_own_idempotency_key(url: str, database: Database) -> None:
    with Client(url) as client:
        client.create_job(LORA), client.create_job(LORA)
    assert count(database, Job) == 2


def test_dataset_is_created_once_and_complete(
    forgetful: Forgetful, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "mails.csv"
    file.write_text(CSV)
    with Client(forgetful.url) as client:
        assert client.upload_dataset(file, name="mails").rows == 40
    assert count(database, Dataset) == 1


def test_version_is_created_once(
    forgetful: Forgetful, url: str, database: Database, worker: FakeWorker, tmp_path: Path
) -> None:
    with Client(url) as client:
        job = client.create_job(LORA)
        worker.succeed(worker.claim(), tmp_path / "out")
    with Client(forgetful.url) as client:
        assert client.register_version("sentiment", str(job.id)).ref == "sentiment:1"
    assert count(database, ModelVersion) == 1


def test_second_lost_connection_is_reported(url: str, database: Database) -> None:
    relay = Forgetful(url, lost=2)
    with Client(relay.url) as client, pytest.raises(ConnectionLost, match="lost the connection"):
        client.create_job(LORA)
    relay.close()
    assert count(database, Job) == 1


def test_connection_refused_is_reported_at_once() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(ServiceUnreachableOrFailed, match="cannot connect to") as raised:
            client.create_job(LORA)
        assert not isinstance(raised.value, ConnectionLost)
