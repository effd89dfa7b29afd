"""MLflow: jobs as runs, versions as registered models, sent by workers over its REST API."""
