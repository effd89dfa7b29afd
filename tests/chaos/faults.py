"""Faults. Each returns whether it found something to break."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sqlalchemy import select

from app.database import migrations
from app.queue.enums import JobState
from app.queue.tables import Checkpoint, Job
from tests.chaos.scene import Scene
from tests.e2e.installation import Process
from tests.hostile_archives import ATTACKS
from tests.servers import Server
from tests.waiting import wait_until

LIMIT_SECONDS = 4  # the longest limit of the settings for which an outage may matter
OLDER_REVISION = "0010"  # before migration 0011 renamed columns, states and specs
Fault = Callable[[Scene], bool]


def kill_worker(scene: Scene) -> bool:
    """Kill a worker with its training."""
    return _kill(scene)


def kill_training(scene: Scene) -> bool:
    """Kill a training."""
    return _kill_trainings(scene)


def kill_before_the_first_checkpoint(scene: Scene) -> bool:
    """Kill the training or worker of a job without a checkpoint."""
    try:
        wait_until(partial(_has_saved_nothing, scene), seconds=5, what="a job without a checkpoint")
    except AssertionError:
        return False
    return _kill_trainings(scene) if scene.draw.random() < 0.5 else _kill(scene, all_of_them=True)


def kill_worker_and_training(scene: Scene) -> bool:
    """Kill a training as the OOM killer does."""
    children = scene.installation.children()
    _kill(scene, all_of_them=True)
    for pid in children:
        _signal(pid, signal.SIGKILL)
    return True


def kill_fork_server(scene: Scene) -> bool:
    """Kill a fork server, idle or not: trainings go on, and another one starts."""
    return _signal_fork_server(scene, signal.SIGKILL)


def freeze_fork_server(scene: Scene) -> bool:
    """Freeze a fork server for good: the worker must replace it when the next job comes."""
    return _signal_fork_server(scene, signal.SIGSTOP)


def kill_fork_server_and_training(scene: Scene) -> bool:
    """Kill both, as the OOM killer may do."""
    return kill_fork_server(scene) and _kill_trainings(scene)


def freeze_worker(scene: Scene) -> bool:
    """Freeze a worker past its lease; others claim its job, and it must notice in time."""
    victim = scene.draw.choice(scene.workers)
    _signal(victim.pid, signal.SIGSTOP)
    seconds = scene.draw.uniform(4.5, 8)
    threading.Timer(seconds, _signal, (victim.pid, signal.SIGCONT)).start()
    return True


def drain_worker(scene: Scene) -> bool:
    """Stop a worker cleanly: it saves and releases its job."""
    _signal(scene.draw.choice(scene.workers).pid, signal.SIGTERM)
    return True


def fill_disk(scene: Scene) -> bool:
    """The disk is full for a while."""
    if scene.disk_full.exists():
        return False
    scene.disk_full.touch()
    threading.Timer(scene.draw.uniform(1, 5), scene.disk_full.unlink, (True,)).start()
    return True


def damage_checkpoint(scene: Scene) -> bool:
    """Damage the newest checkpoint of an active job."""
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


def outlast_store(scene: Scene) -> bool:
    """The folder of the store is missing longer than every limit, like an unmounted disk."""
    root = scene.installation.settings.artifacts_dir
    away = root.rename(root.with_name("away"))
    _outlast(scene)
    if root.exists():  # a process created it again in between
        shutil.copytree(root, away, dirs_exist_ok=True)
        shutil.rmtree(root)
    away.rename(root)
    return True


def remove_checkpoints(scene: Scene) -> bool:
    """Delete all checkpoints: the jobs start over."""
    shutil.rmtree(scene.installation.settings.artifacts_dir / "checkpoints", ignore_errors=True)
    return True


def cancel_and_retry(scene: Scene) -> bool:
    """Cancel an active job; another one continues it."""
    open_jobs = scene.open_jobs()
    return bool(open_jobs) and scene.retry(scene.draw.choice(open_jobs))


def pause_and_resume(scene: Scene) -> bool:
    """Resume what is paused, or else pause an active job until this fault comes again."""
    if scene.resume_paused():
        return True
    open_jobs = scene.open_jobs()
    return bool(open_jobs) and scene.pause(scene.draw.choice(open_jobs))


def submit_with_too_little_time(scene: Scene) -> bool:
    """Submit jobs that exceed their time limit and are retried until they succeed."""
    return scene.submit(time_limit_seconds=round(scene.draw.uniform(4, 9), 1))


def import_hostile_model(scene: Scene) -> bool:
    """Import a malicious model; other models must give the same predictions."""
    return scene.import_hostile(scene.draw.choice(sorted(ATTACKS)))


def kill_api(scene: Scene) -> bool:
    """Kill the API; clients retry with the same idempotency key."""
    if scene.api is None or not scene.api.alive():
        return False
    scene.api.kill()
    return True


def kill_api_between_two_keys(scene: Scene) -> bool:
    """Kill the API just after it has acknowledged a label; the next one may be on its way."""
    if not scene.annotators.wait_for_label(seconds=10):
        return False
    time.sleep(scene.draw.uniform(0, 0.1))
    return kill_api(scene)


def roll_back_and_upgrade(scene: Scene) -> bool:
    """Stop everything in the middle of its work, and migrate the database down and up again.

    Labeling projects came later than the older revision: they are lost, and begin anew.
    """
    scene.annotators.stop()
    kill_api(scene)
    kill_worker_and_training(scene)
    migrations.downgrade(scene.installation.settings, OLDER_REVISION)
    migrations.upgrade(scene.installation.settings)
    scene.annotators.start()
    return True


def flush_broker(scene: Scene) -> bool:
    """Delete all messages of the broker."""
    if scene.valkey is None or scene.valkey.process is None:
        return False
    scene.valkey.flush()
    return True


def restart_broker(scene: Scene) -> bool:
    """The broker is down for a while."""
    return _restart(scene, scene.valkey, most_seconds=3)


def freeze_broker(scene: Scene) -> bool:
    """Connections stay open but get no response."""
    return _freeze(scene, scene.valkey, most_seconds=3)


def restart_database(scene: Scene) -> bool:
    """Kill the database, sometimes for longer than a lease."""
    return _restart(scene, scene.postgres, most_seconds=6)


def freeze_database(scene: Scene) -> bool:
    """Drop the packets of a connection."""
    return _freeze(scene, scene.postgres, most_seconds=5)


def outlast_database(scene: Scene) -> bool:
    """Down for longer than every limit."""
    return _outlast_server(scene, scene.postgres)


def outlast_broker(scene: Scene) -> bool:
    """The same for the other kind."""
    return _outlast_server(scene, scene.valkey)


EVERYWHERE: list[Fault] = [
    kill_worker,
    kill_worker,
    kill_training,
    kill_worker_and_training,
    kill_fork_server,
    freeze_fork_server,
    kill_fork_server_and_training,
    freeze_worker,
    drain_worker,
    fill_disk,
    damage_checkpoint,
    remove_checkpoints,
    kill_before_the_first_checkpoint,
    outlast_store,
    cancel_and_retry,
    cancel_and_retry,
    pause_and_resume,
    pause_and_resume,
    submit_with_too_little_time,
    import_hostile_model,
    kill_api,
    kill_api_between_two_keys,
    kill_api_between_two_keys,
    roll_back_and_upgrade,
]
CLUSTER: list[Fault] = [
    flush_broker,
    restart_broker,
    freeze_broker,
    restart_database,
    freeze_database,
    outlast_database,
    outlast_broker,
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


def _kill_trainings(scene: Scene) -> bool:
    children = scene.installation.children()
    for pid in children:
        _signal(pid, signal.SIGKILL)
    return bool(children)


def _signal_fork_server(scene: Scene, number: int) -> bool:
    servers = scene.installation.fork_servers()
    if servers:
        _signal(scene.draw.choice(servers), number)
    return bool(servers)


def _has_saved_nothing(scene: Scene) -> bool:
    """Whether a job without a checkpoint is running."""
    saved = select(Checkpoint.job_id).where(Checkpoint.job_id == Job.id).exists()
    runs = select(Job.id).where(Job.state == JobState.RUNNING, ~saved)
    with scene.installation.database.read() as session:
        found = session.scalars(runs.limit(1)).first() is not None
    return found and bool(scene.installation.children())


def _outlast(scene: Scene) -> None:
    time.sleep(LIMIT_SECONDS + scene.draw.uniform(1, 4))


def _outlast_server(scene: Scene, server: Server | None) -> bool:
    if server is None:
        return False
    server.kill()
    _outlast(scene)
    server.start()
    return True


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
