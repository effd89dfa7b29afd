"""Where MLflow is and who we are there, from the settings."""

import base64
import re
from dataclasses import dataclass, field

import httpx2
from pydantic import SecretStr

from app.mlflow.errors import (
    MlflowCredentialsInvalid,
    MlflowExperimentInvalid,
    MlflowUrlInvalid,
)
from app.settings import Settings

MAX_EXPERIMENT_LENGTH = 500  # characters, MLflow's limit


@dataclass(frozen=True)
class MlflowConnection:
    """The tracking URI, without a slash at its end, the experiment, and the credentials."""

    tracking_uri: str
    experiment: str
    authorization: str | None = field(default=None, repr=False)  # the header


def parse_mlflow_settings(settings: Settings) -> MlflowConnection | None:
    """Return the connection that the settings describe. None: nothing is sent to MLflow.

    Raises `MlflowUrlInvalid`, `MlflowExperimentInvalid`, `MlflowCredentialsInvalid`.
    """
    if not settings.mlflow_tracking_uri:
        return None
    return MlflowConnection(
        _parse_tracking_uri(settings.mlflow_tracking_uri),
        _parse_experiment(settings.mlflow_experiment),
        _authorization(settings),
    )


def _parse_tracking_uri(text: str) -> str:
    """Return the URI without a slash at its end. Errors do not repeat it: it may have a secret."""
    try:
        url = httpx2.URL(text)
        url.host.encode("idna")  # as connecting does, where its error is no `OSError`
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise MlflowUrlInvalid(problem="is not a valid URL") from error
    if url.scheme not in ("http", "https"):
        raise MlflowUrlInvalid(problem="must start with http:// or https://")
    if not url.host:
        raise MlflowUrlInvalid(problem="names no host")
    if url.userinfo:
        raise MlflowUrlInvalid(
            problem="must not have a user name or password, which have settings of their own"
        )
    if "?" in text or "#" in text:
        raise MlflowUrlInvalid(problem="must not have a query (?) or a fragment (#)")
    return str(url).rstrip("/")


def _parse_experiment(name: str) -> str:
    if not name.strip():
        raise MlflowExperimentInvalid(problem="is empty")
    if not name.isprintable():
        raise MlflowExperimentInvalid(problem="has characters that cannot be printed")
    if len(name) > MAX_EXPERIMENT_LENGTH:
        raise MlflowExperimentInvalid(
            problem=f"is longer than {MAX_EXPERIMENT_LENGTH} characters, which is MLflow's limit"
        )
    return name.strip()


def _authorization(settings: Settings) -> str | None:
    """Return the header `Authorization`: a bearer token, or a user name with a password."""
    token, password = _reveal(settings.mlflow_token), _reveal(settings.mlflow_password)
    username = settings.mlflow_username or ""
    if token and (username or password):
        raise MlflowCredentialsInvalid(problem="Both a token and a user or a password are set")
    if bool(username) != bool(password):
        raise MlflowCredentialsInvalid(problem="A user name and a password need each other")
    if token:
        if not re.fullmatch(r"[!-~]+", token):
            raise MlflowCredentialsInvalid(
                problem="The token has a space or another character that no token may have"
            )
        return f"Bearer {token}"
    if username:
        return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"
    return None


def _reveal(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
