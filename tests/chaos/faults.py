"""What can happen to an installation. Each says whether it found something to break."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import select

from app.jobs.states import JobState
from app.jobs.tables import Attempt, Checkpoint, Job
from tests.chaos.scene import Scene
from tests.e2e.installation import Process
from tests.servers import Server

Fault = Callable[[Scene], bool]


def kill_worker(scene: Scene) -> bool:
    """Its training goes with it."""
    return _kill(scene)


def kill_training(scene: Scene) -> bool:
    """Only one that has got further: two crashes without a checkpoint end a job, as they should."""
    if not _all_have_progressed(scene):
        return False
    children = scene.installation.children()
    for pid in children:
        _signal(pid, signal.SIGKILL)
    return bool(children)


def kill_worker_and_training(scene: Scene) -> bool:
    """As when the memory of the machine runs out."""
    children = scene.installation.children()
    _kill(scene, all_of_them=True)
    for pid in children:
        _signal(pid, signal.SIGKILL)
    return True


def freeze_worker(scene: Scene) -> bool:
    """Past its lease; others take its job, and it must not notice too late."""
    victim = scene.draw.choice(scene.workers)
    _signal(victim.pid, signal.SIGSTOP)
    seconds = scene.draw.uniform(4.5, 8)
    threading.Timer(seconds, _signal, (victim.pid, signal.SIGCONT)).start()
    return True


def drain_worker(scene: Scene) -> bool:
    """It saves and gives its job back."""
    _signal(scene.draw.choice(scene.workers).pid, signal.SIGTERM)
    return True


def fill_disk(scene: Scene) -> bool:
    """For trainings that save; for a while."""
    if scene.disk_full.exists():
        return False
    scene.disk_full.touch()
    threading.Timer(scene.draw.uniform(1, 5), scene.disk_full.unlink, (True,)).start()
    return True


def damage_checkpoint(scene: Scene) -> bool:
    """The newest of a job that waits or runs."""
    with scene.installation.database.read() as session:
        open_jobs = select(Job.id).where(Job.state.in_((JobState.QUEUED, JobState.RUNNING)))
        newest = select(Checkpoint.key).where(Checkpoint.job_id.in_(open_jobs))
        key = session.scalars(newest.order_by(Checkpoint.at.desc()).limit(1)).one_or_none()
    if key is None:
        return False
    for file in (scene.installation.settings.artifacts_dir / key).glob("*.safetensors"):
        with suppress(OSError):
            content = bytearray(file.read_bytes())
            content[scene.draw.randrange(len(content))] ^= 0xFF
            file.chmod(0o600)
            file.write_bytes(content)
            return True
    return False


def kill_api(scene: Scene) -> bool:
    """Without mercy; callers send their jobs again with the same key."""
    if scene.api is None or not scene.api.alive():
        return False
    scene.api.kill()
    return True


def flush_broker(scene: Scene) -> bool:
    """All hints are gone."""
    if scene.valkey is None or scene.valkey.process is None:
        return False
    scene.valkey.flush()
    return True


def restart_broker(scene: Scene) -> bool:
    """For a while nobody can be told of anything."""
    return _restart(scene, scene.valkey, most_seconds=3)


def freeze_broker(scene: Scene) -> bool:
    """Connections stay open and nobody answers."""
    return _freeze(scene, scene.valkey, most_seconds=3)


def restart_database(scene: Scene) -> bool:
    """Without an orderly end; for longer than a lease now and then."""
    return _restart(scene, scene.postgres, most_seconds=6)


def freeze_database(scene: Scene) -> bool:
    """Half-open connections."""
    return _freeze(scene, scene.postgres, most_seconds=5)


EVERYWHERE: list[Fault] = [
    kill_worker,
    kill_worker,
    kill_training,
    kill_worker_and_training,
    freeze_worker,
    drain_worker,
    fill_disk,
    damage_checkpoint,
    kill_api,
]
CLUSTER: list[Fault] = [
    flush_broker,
    restart_broker,
    freeze_broker,
    restart_database,
    freeze_database,
]


def _restart(scene: Scene, server: Server | None, *, most_seconds: float) -> bool:
    if server is None:
        return False
    server.kill()
    time.sleep(scene.draw.uniform(0, most_seconds))
    server.start()
    return True


def _freeze(scene: Scene, server: Server | None, *, most_seconds: float) -> bool:
    if server is None:
        return False
    server.freeze()
    time.sleep(scene.draw.uniform(0.5, most_seconds))
    server.thaw()
    return True


def _kill(scene: Scene, *, all_of_them: bool = False) -> bool:
    victims: list[Process] = scene.workers if all_of_them else [scene.draw.choice(scene.workers)]
    for victim in victims:
        victim.kill()
    return True


def _all_have_progressed(scene: Scene) -> bool:
    """Every attempt that runs has saved a checkpoint of its own."""
    with scene.installation.database.read() as session:
        running = session.execute(
            select(Attempt.job_id, Attempt.attempt).where(Attempt.ended_at.is_(None))
        ).all()
        saved = {
            (row.job_id, row.attempt)
            for row in session.execute(select(Checkpoint.job_id, Checkpoint.attempt))
        }
    return bool(running) and all(tuple(row) in saved for row in running)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
