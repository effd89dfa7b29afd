"""Writes what MLflow has, read with its own client. Runs in `.venv-mlflow`."""

import json
import sys

from mlflow import MlflowClient

client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name("loraworks")
runs = {}
for run in client.search_runs([experiment.experiment_id]):
    curves = {
        name: [[each.step, each.value] for each in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    runs[run.data.tags["loraworks.id"]] = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "end_time": run.info.end_time,
        "params": run.data.params,
        "tags": run.data.tags,
        "curves": curves,
    }
models = {
    model.name: {
        "aliases": dict(model.aliases),
        "versions": {
            str(version.version): {
                "run_id": version.run_id,
                "source": version.source,
                "tags": version.tags,
                "description": version.description,
            }
            for version in client.search_model_versions(f"name = '{model.name}'")
        },
    }
    for model in client.search_registered_models()
}
sys.stdout.write(json.dumps({"runs": runs, "models": models}))
