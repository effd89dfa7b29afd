"""What is mutated, and the tests that must notice: the fastest and closest ones first.

The end-to-end tests and the slow ones are left out, although they would notice some more.
"""

import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LEASES = [
    "tests/conformance/test_claim.py",
    "tests/conformance/test_renew.py",
    "tests/conformance/test_attempt_results.py",
    "tests/conformance/test_expire.py",
    "tests/conformance/test_checkpoints.py",
    "tests/conformance/test_pause.py",
    "tests/conformance/test_redispatch.py",
    "tests/conformance/test_heartbeats.py",
    "tests/conformance/test_prediction_runs.py",
    "tests/app/queue",
    "tests/app/webhooks/test_events.py",
    "tests/app/jobs/test_pause.py",
    "tests/app/jobs/test_cancel.py",
    "tests/app/jobs/test_retry.py",
    "tests/worker/test_recorder.py",
    "tests/worker/test_reconciler.py",
    "tests/conformance/test_lease_state_machine.py",
    "tests/conformance/test_lease_pairs.py",
    "tests/app/database/test_query_plans.py",
]
_BROKER = [
    "tests/contracts/test_errors_doc.py",
    "tests/app/test_health.py",
    "tests/worker/test_broker_refusals.py",
    "tests/worker/test_celery.py",
]
_TABLES = [
    "tests/contracts/test_migrations.py",
    "tests/contracts/test_migrated_rows.py",
    "tests/contracts/test_renamed_rows.py",
]
_KEYS = [
    "tests/app/auth",
    "tests/app/test_authentication.py",
    "tests/app/test_audit.py",
    "tests/app/web/test_sign_in.py",
    "tests/app/cli/test_keys.py",
    "tests/app/jobs/test_event_stream.py",
]
_IDEMPOTENCY = [
    "tests/app/idempotency",
    "tests/app/test_openapi.py",
    "tests/contracts/test_openapi.py",
]
_CHECKPOINTS = [
    "tests/lora_core/training/test_checkpoint_schedule.py",
    "tests/lora_core/training/test_checkpoint.py",
    "tests/lora_core/training/test_old_checkpoint.py",
    "tests/lora_core/training/test_head_init.py",
    "tests/lora_core/training/test_exactness.py",
    "tests/lora_core/training/test_auto.py",
    "tests/lora_core/training/test_kill.py",
]
_LAYERS = [
    "tests/lora_core/layers",
    "tests/lora_core/fast/test_folded_lora.py",
    "tests/lora_core/test_adapters.py",
    "tests/lora_core/training/test_golden.py",
]
# The longest prefix of a path counts.
_TESTS: dict[str, list[str]] = {
    "app/queue/": _LEASES,
    "app/queue/dispatch.py": [*_LEASES, *_BROKER],
    "app/queue/webhook_events.py": [
        "tests/app/webhooks/test_events.py",
        "tests/app/webhooks/test_delivery.py",
        *_LEASES,
    ],
    "app/queue/tables.py": [*_TABLES, *_LEASES],
    "app/queue/heartbeats.py": [*_LEASES, "tests/worker/test_poller.py", "tests/app/metrics"],
    "app/idempotency/": _IDEMPOTENCY,
    "app/idempotency/tables.py": [*_TABLES, *_IDEMPOTENCY],
    "app/auth/": _KEYS,
    "app/auth/tables.py": [*_TABLES, *_KEYS],
    "lora_core/layers/": _LAYERS,
    "lora_core/training/checkpoint.py": _CHECKPOINTS,
    "lora_core/training/checkpoint_schedule.py": _CHECKPOINTS,
    "lora_core/training/training_state.py": _CHECKPOINTS,
    "lora_core/training/resume.py": _CHECKPOINTS,
    "worker/checkpoint_sync.py": [
        "tests/worker/test_checkpoint_sync.py",
        "tests/worker/test_job_runner.py",
    ],
}


def mutated_files() -> list[str]:
    """Return the paths of all files that are mutated."""
    found = {
        file.relative_to(ROOT).as_posix()
        for place in _TESTS
        for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).glob("*.py"))
    }
    return sorted(found)


@cache
def list_tests(path: str) -> tuple[str, ...]:
    """Return the test files for a mutated file in the order in which they run, first its own."""
    place = max((each for each in _TESTS if path.startswith(each)), key=len)
    files: dict[str, None] = {}
    for each in _TESTS[place]:
        tests = [ROOT / each] if each.endswith(".py") else sorted((ROOT / each).rglob("test_*.py"))
        files |= {file.relative_to(ROOT).as_posix(): None for file in tests}
    own = f"test_{Path(path).name}"
    return tuple(sorted(files, key=lambda each: not each.endswith(f"/{own}")))


@cache
def digest_of_tests(path: str) -> str:
    """Return a hash of the tests for a mutated file."""
    digest = hashlib.sha256()
    for each in list_tests(path):
        digest.update((ROOT / each).read_bytes())
    return digest.hexdigest()[:16]


def digest_of_file(path: str) -> str:
    """Return a hash of a file, or of that of a test; nothing if there is no such file."""
    file = ROOT / path.partition("::")[0]
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""
