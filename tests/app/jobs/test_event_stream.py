"""The event stream: complete, resumable, and closed when its client disconnects."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI, routing
from starlette.testclient import TestClient

from app.auth import authenticator, service
from app.database.engines import Database
from app.jobs import event_stream, repository
from app.main import create_app
from app.queue.transitions import Cancelled, PermanentFailure, Preempted, Succeeded
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from tests.app.jobs.fake_worker import FakeWorker
from tests.app.jobs.stream_listener import ReceivedMessage, StreamListener, listen, parse

Submit = Callable[..., dict[str, Any]]


def read(client: TestClient, job_id: str, after: int | None = None) -> list[ReceivedMessage]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    answer = client.get(f"/v1/jobs/{job_id}/stream", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    return parse(answer.text)


@pytest.fixture
def ended(submit: Submit, worker: FakeWorker) -> str:
    """Create a job with seven sequence numbers: four events, three points."""
    job_id: str = submit()["id"]
    lease = worker.claim().lease
    worker.log(lease, step=1, points={"loss": 0.9, "accuracy": None})
    worker.note(lease, "3% of the texts were cut.", step=1)
    worker.log(lease, step=2, points={"loss": 0.5})
    worker.finish(lease, PermanentFailure("non_finite", "The loss became nan."))
    return job_id


def test_the_stream_of_a_finished_job_is_complete_and_ends(client: TestClient, ended: str) -> None:
    messages = read(client, ended)
    numbered = [(m.id, m.event, m.data.get("kind") or m.data["name"]) for m in messages if m.id]
    assert numbered == [
        (1, "event", "queued"),
        (2, "event", "started"),
        (3, "metric", "loss"),
        (4, "metric", "accuracy"),
        (5, "event", "noted"),
        (6, "metric", "loss"),
        (7, "event", "failed"),
    ]
    assert [m.event for m in messages if m.id is None] == ["state", "end"]
    assert messages[-1].event == "end"
    assert messages[-1].data == client.get(f"/v1/jobs/{ended}").json()
    assert messages[2].data == client.get(f"/v1/jobs/{ended}/metrics").json()["data"][0]


def test_a_client_that_reconnects_gets_what_it_missed(client: TestClient, ended: str) -> None:
    for last in (0, 3, 6, 7):
        numbers = [message.id for message in read(client, ended, after=last) if message.id]
        assert numbers == list(range(last + 1, 8))
    assert [message.event for message in read(client, ended, after=10**12)] == ["state", "end"]


@pytest.mark.parametrize("header", ["x", "-1", "1.5", str(2**63)])
def test_an_invalid_last_event_id_is_rejected(client: TestClient, ended: str, header: str) -> None:
    answer = client.get(f"/v1/jobs/{ended}/stream", headers={"Last-Event-ID": header})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_a_long_history_comes_in_order_and_in_several_polls(
    client: TestClient, submit: Submit, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "MAX_ROWS_PER_POLL", 10)
    job_id = submit()["id"]
    lease = worker.claim().lease
    for step in range(1, 16):
        worker.log(lease, step=step, points={"loss": 1.0, "lr": 1.0, "grad_norm": 1.0})
        worker.note(lease, f"note {step}", step=step)
    worker.finish(lease, Cancelled())
    numbers = [message.id for message in read(client, job_id) if message.id]
    assert numbers == list(range(1, 64))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.02)


def test_pauses_are_streamed_and_do_not_end_the_stream(
    app: FastAPI, client: TestClient, submit: Submit
) -> None:
    job_id = submit()["id"]

    async def talk(listener: StreamListener) -> None:
        for verb, kind in (("pause", "paused"), ("resume", "resume_requested")):
            seen = await listener.until(lambda m: m.event == "state")
            assert (seen[-1].data["paused"], seen[-1].data["queue_position"]) == (
                (False, 1) if verb == "pause" else (True, None)
            )
            await asyncio.to_thread(client.post, f"/v1/jobs/{job_id}/{verb}")
            await listener.until(partial(_is_event, kind))
        seen = await listener.until(lambda m: m.event == "state")
        assert (seen[-1].data["paused"], seen[-1].data["queue_position"]) == (False, 1)
        await asyncio.to_thread(client.post, f"/v1/jobs/{job_id}/cancel")
        await listener.until(lambda m: m.event == "end")

    listen(app, job_id, talk)


def _is_event(kind: str, message: ReceivedMessage) -> bool:
    return message.event == "event" and message.data["kind"] == kind


def test_a_job_is_followed_from_the_queue_to_its_end(
    app: FastAPI, client: TestClient, submit: Submit, worker: FakeWorker, database: Database
) -> None:
    ahead, job_id = submit()["id"], submit()["id"]

    async def talk(listener: StreamListener) -> None:
        seen = await listener.until(lambda m: m.event == "state")
        assert seen[-1].data["queue_position"] == 2
        first = await asyncio.to_thread(worker.claim)
        assert str(first.lease.job_id) == ahead
        seen = await listener.until(lambda m: m.event == "state")
        assert seen[-1].data["queue_position"] == 1

        lease = (await asyncio.to_thread(worker.claim)).lease
        seen = await listener.until(lambda m: m.event == "state")
        assert [m.data["kind"] for m in seen if m.event == "event"] == ["started"]
        assert seen[-1].data["state"] == "running"

        await asyncio.to_thread(worker.log, lease, step=4, points={"loss": 0.7})
        seen = await listener.until(lambda m: m.event == "state")
        assert [m.data["value"] for m in seen if m.event == "metric"] == [0.7]
        assert (seen[-1].data["step"], seen[-1].data["progress"]) == (4, 0.2)
        await asyncio.to_thread(worker.renew, lease, step=5)
        assert (await listener.until(lambda m: m.event == "state"))[-1].data["step"] == 5

        with database.write() as session:
            ref = ArtifactRef(f"jobs/{uuid4()}", "0" * 64, 1)
            made = artifacts.add_artifact(session, job_id=lease.job_id, kind="model", ref=ref)
        await asyncio.to_thread(worker.finish, lease, Succeeded(made.id, {"steps": 5}))
        seen = await listener.until(lambda m: m.event == "end")
        assert seen[-1].data["state"] == "succeeded"
        assert seen[-1].data["progress"] == 1.0

    listen(app, job_id, talk)


def test_a_second_attempt_continues_the_same_stream(
    app: FastAPI, client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    job_id = submit()["id"]
    lease = worker.claim().lease
    worker.log(lease, step=1, points={"loss": 1.0})

    async def talk(listener: StreamListener) -> None:
        seen = await listener.until(lambda m: m.event == "metric")
        worker.finish(lease, Preempted())
        again = worker.claim().lease
        worker.log(again, step=1, points={"loss": 2.0})
        seen += await listener.until(lambda m: m.event == "metric")
        assert seen[-1].data["attempt"] == 2
        numbers = [message.id for message in seen if message.id]
        assert numbers == sorted(set(numbers))
        worker.finish(again, Cancelled())
        await listener.until(lambda m: m.event == "end")

    listen(app, job_id, talk)


def test_the_stream_stops_when_its_client_disconnects(
    app: FastAPI, client: TestClient, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit()["id"]
    polls = 0
    read_snapshots = event_stream._read_snapshots

    def counted(*args: Any) -> Any:
        nonlocal polls
        polls += 1
        return read_snapshots(*args)

    monkeypatch.setattr(event_stream, "_read_snapshots", counted)

    async def talk(listener: StreamListener) -> None:
        await listener.until(lambda m: m.event == "state")
        while polls < 3:
            await asyncio.sleep(0.01)
        listener.disconnected.set()

    listen(app, job_id, talk)  # returns only after the stream has ended
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"


def test_all_streams_are_polled_together(
    app: FastAPI, client: TestClient, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stream used to poll by itself, with its own thread and count of the full queue."""
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.2)
    jobs = [submit()["id"] for _ in range(4)]
    polls: list[int] = []
    read_snapshots = event_stream._read_snapshots

    def counted(database: Database, ids: Any) -> Any:
        polls.append(len(ids))
        return read_snapshots(database, ids)

    monkeypatch.setattr(event_stream, "_read_snapshots", counted)

    async def main() -> None:
        wanted = [(place, job_id) for place, job_id in enumerate(jobs, 1) for _ in range(10)]
        listeners = [StreamListener(app, job_id) for _, job_id in wanted]
        running = [asyncio.create_task(each.run()) for each in listeners]
        for each, (place, _) in zip(listeners, wanted, strict=True):
            seen = await each.until(lambda m: m.event == "state")
            assert seen[-1].data["queue_position"] == place
        polls.clear()
        while sum(polls) < 20 * len(jobs):
            await asyncio.sleep(0.01)
        for each in listeners:
            each.disconnected.set()
        await asyncio.gather(*running)

    asyncio.run(main())
    assert len(polls) <= 60  # 40 streams looked 20 times: 800 polls, if each looked for itself
    assert max(polls) == len(jobs)  # once for all clients at the same position of a job


def test_a_client_that_disconnects_does_not_affect_others(
    app: FastAPI, client: TestClient, submit: Submit
) -> None:
    job_id = submit()["id"]

    async def main() -> None:
        stays, leaves = StreamListener(app, job_id), StreamListener(app, job_id)
        running = [asyncio.create_task(each.run()) for each in (stays, leaves)]
        for each in (stays, leaves):
            await each.until(lambda m: m.event == "state")
        leaves.disconnected.set()
        await running[1]
        await asyncio.to_thread(client.post, f"/v1/jobs/{job_id}/cancel")
        await stays.until(lambda m: m.event == "end")
        await running[0]

    asyncio.run(main())


def test_streams_are_limited_per_key_and_in_total(
    auth_settings: Settings, submit: Submit, new_key: Callable[..., service.CreatedKey]
) -> None:
    job_id = submit()["id"]
    keys = [new_key("jobs:read").text for _ in range(3)]
    app = create_app(auth_settings.model_copy(update={"max_streams": 3, "max_streams_per_key": 2}))

    async def main(client: TestClient) -> None:
        listeners = [StreamListener(app, job_id, key=key) for key in (keys[0], keys[0], keys[1])]
        running = [asyncio.create_task(each.run()) for each in listeners]
        for each in listeners:
            await each.until(lambda m: m.event == "state")
        for key, code in ((keys[0], "too_many_streams_for_key"), (keys[2], "too_many_streams")):
            headers = {"Authorization": f"Bearer {key}"}
            url = f"/v1/jobs/{job_id}/stream"
            refused = await asyncio.to_thread(client.get, url, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (429, code)
            assert int(refused.headers["Retry-After"]) > 0
        listeners[0].disconnected.set()
        await running[0]
        again = StreamListener(app, job_id, key=keys[2])  # there is room again
        last = asyncio.create_task(again.run())
        await again.until(lambda m: m.event == "state")
        for each in (*listeners, again):
            each.disconnected.set()
        await asyncio.gather(*running, last)

    with TestClient(app) as client:
        asyncio.run(main(client))


def test_the_stream_ends_when_its_job_is_deleted(
    app: FastAPI, client: TestClient, submit: Submit, database: Database
) -> None:
    job_id = submit()["id"]
    rest: list[ReceivedMessage] = []

    async def talk(listener: StreamListener) -> None:
        await listener.until(lambda m: m.event == "state")
        with database.write() as session:  # both at once: the stream sees a job, then none
            repository.request_cancel(session, UUID(job_id))
            repository.delete_finished_training_job(session, UUID(job_id))
        await listener.ended.wait()
        rest.extend(listener.drain())

    listen(app, job_id, talk)
    assert rest == []


def test_the_stream_ends_when_its_key_is_revoked(
    auth_settings: Settings,
    submit: Submit,
    worker: FakeWorker,
    new_key: Callable[..., service.CreatedKey],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        authenticator, "TTL_SECONDS", 0
    )  # no waiting until a key is looked up again
    job_id, key = submit()["id"], new_key("jobs:read")

    async def talk(listener: StreamListener) -> None:
        await listener.until(lambda m: m.event == "state")
        await asyncio.to_thread(worker.claim)
        await listener.until(lambda m: m.event == "state")  # a good key is let in again and again
        with database.write() as session:
            service.revoke_key_and_sessions(session, key_id=key.key.id)
        await listener.ended.wait()

    app = create_app(auth_settings)
    with TestClient(app):
        listen(app, job_id, talk, key=key.text)


def test_an_idle_stream_is_kept_alive(
    app: FastAPI, client: TestClient, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "_PING_INTERVAL", 0.02)
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 60)

    async def talk(listener: StreamListener) -> None:
        while listener.pings < 2:
            await asyncio.sleep(0.01)
        listener.disconnected.set()

    listen(app, submit()["id"], talk)


def test_no_transaction_is_open_between_two_polls(
    app: FastAPI, client: TestClient, submit: Submit, database: Database
) -> None:
    job_id = submit()["id"]

    async def talk(listener: StreamListener) -> None:
        await listener.until(lambda m: m.event == "state")
        opened = app.state.resources.database
        while opened.read_engine.pool.checkedout():  # a look may be going on just now
            await asyncio.sleep(0.001)
        await asyncio.to_thread(client.post, f"/v1/jobs/{job_id}/cancel")
        await listener.until(lambda m: m.event == "end")

    listen(app, job_id, talk)
