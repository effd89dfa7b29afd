"""Scopes of API keys. Keys have scopes but own nothing: one installation serves one team."""

from typing import Literal, get_args

Scope = Literal[
    "jobs:read",
    "jobs:write",
    "datasets:read",
    "datasets:write",
    "models:read",
    "models:admin",
    "predict",
    "predictions:read",
    "predictions:write",
    "metrics:read",
    "keys:admin",
]
ALL_SCOPES: tuple[Scope, ...] = get_args(Scope)
