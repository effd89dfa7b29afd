"""Every call in the code that outlives a process is in a class with a run, or a reason is given."""

import json

import pytest

from tests.crash_points.__main__ import KEPT_RUNS
from tests.crash_points.sites import find_calls

_COMMAND = "a command, which its user repeats"
_ROUTE = "one transaction and nothing else, as in the routes that are hit"
_OWN_SENDER = "sends to another service: its outages have tests of their own"
_OTHER_API = "calls what the routes of `/v1` call, which are hit"
_CACHE = "a copy that is made again"
_TEMPORARY = "removes what only its own request has used"
# Functions, classes, modules or packages: why no scenario passes their calls.
NOT_PASSED: dict[str, str] = {
    "app.auth.authenticator": "keys and sessions, with which no job has to do",
    "app.base_models.service:check_base_in_subprocess": _TEMPORARY,
    "app.cli": _COMMAND,
    "app.datasets.multipart_upload:temporary_upload_dir": _TEMPORARY,
    "app.datasets.service:rediagnose_dataset": _ROUTE,
    "app.drift": "checks are repeated by their schedule",
    "app.feedback.dataset:_store": _TEMPORARY,
    "app.feedback.routes:delete_feedback": _ROUTE,
    "app.feedback.service:create_review_sample": _ROUTE,
    "app.fine_tuning_apis": _OTHER_API,
    "app.jobs.routes:update_job": _ROUTE,
    "app.label_review": "a report is computed again; a correction is one transaction",
    "app.labeling.export:export_labels_to_dataset": _TEMPORARY,
    "app.labeling.pools:LabelingPools._load_vectors": "vectors without a file are computed again",
    "app.labeling.routes:delete_labeling_project": _ROUTE,
    "app.labeling.routes:update_labeling_project": _ROUTE,
    "app.mistral": _OTHER_API,
    "app.mlflow": _OWN_SENDER,
    "app.openai": _OTHER_API,
    "app.predictions.routes": "a retraining makes such runs, in transactions that are hit",
    "app.registry.routes:delete_model": _ROUTE,
    "app.retention.service:_delete_mlflow_rows (2)": "has rows only with MLflow",
    "app.retention.service:_delete_old_suspects": "a report is old only after weeks",
    "app.retraining.collect_training_texts:_skip": _ROUTE,
    "app.retraining.routes:delete_rule": _ROUTE,
    "app.retraining.scheduler:_decide_after_evaluation": "only if an evaluation has not succeeded",
    "app.retraining.scheduler:_run_claimed (2)": "after a fault, and followed by none",
    "app.retraining.scheduler:_run_claimed (3)": "after a fault, and followed by none",
    "app.retraining.scheduler:_start_sweep": "only if another version is in production meanwhile",
    "app.sandbox": "the runs read files in their own process",
    "app.serving.nearest_examples:TrainingTextReader._read_source": _TEMPORARY,
    "app.storage.s3": "the runs have the local store",
    "app.storage.verified_cache": _CACHE,
    "app.sweeps.service:_stored_hidden (3)": "after a fault, and followed by none",
    "app.text_erasure": "a request of its own, which is repeated as a whole",
    "app.traffic.recorder:TrafficRecorder._insert": "kept predictions, which are off by default",
    "app.webhooks.routes:delete_webhook": _ROUTE,
    "app.webhooks.routes:replay_delivery": _ROUTE,
    "app.webhooks.routes:rotate_webhook_secret": _ROUTE,
    "app.webhooks.routes:send_test_event": _ROUTE,
    "app.webhooks.routes:update_webhook": _ROUTE,
    "worker.checkpoint_sync:CheckpointSync.store": "removes a directory that is empty by then",
    "worker.devices:_list_gpus": "reads what devices there are",
    "worker.mlflow": _OWN_SENDER,
    "worker.poller:Poller._show_on_jobs": "says why jobs wait, each minute anew",
    "worker.reconciler:Reconciler._reset_waits": "only after a jump of the clock",
    "worker.reconciler:Reconciler.run": "when the worker stops; what it leaves out, others do",
    "worker.workdir:AttemptDir.move_out_of_workspace": "only if a training made anything but files",
    "worker.workdir:AttemptDir.reset_workspace": "the first process of an attempt finds nothing",
}


def passed_calls() -> set[tuple[str, str]]:
    """What has been hit: (operation, function)."""
    runs = map(json.loads, KEPT_RUNS.read_text().splitlines())
    return {(run["operation"], site) for run in runs for site in run["site"].split(" of ")}


def is_below(site: str, prefix: str) -> bool:
    return site == prefix or site.startswith((f"{prefix}.", f"{prefix}:", f"{prefix} ("))


@pytest.mark.parametrize("package", ["app", "worker"])
def test_every_call_is_hit_or_has_a_reason(package: str) -> None:
    """After a new commit or the like: let a scenario pass it, then `make crash-points`."""
    found = set(find_calls(package)) - passed_calls()
    missing = [
        f"{operation} {site}"
        for operation, site in sorted(found)
        if not any(is_below(site, each) for each in NOT_PASSED)
    ]
    assert missing == []


def test_no_reason_is_left_over() -> None:
    """A call that is hit needs no reason, nor one that is gone."""
    found = {*find_calls("app"), *find_calls("worker")} - passed_calls()
    assert [each for each in NOT_PASSED if not any(is_below(site, each) for _, site in found)] == []
