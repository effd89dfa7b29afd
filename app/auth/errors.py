"""Errors of authentication, authorization and API key management."""

from app.errors import Conflict, Forbidden, NotFound, Unauthorized, UnprocessableContent


class KeyMissing(Unauthorized):
    """API key missing."""

    code = "key_missing"
    message = (
        "This request needs an API key. Send the header `Authorization: Bearer lw_…`; on the "
        "command line, use `--key` or LORAWORKS_API_KEY."
    )


class CsrfTokenMissing(Unauthorized):
    """Page token missing or invalid."""

    code = "page_token_missing"
    message = (
        "The session cookie alone allows only reading. To change something, sign in again in this "
        "browser, or send an API key in `Authorization: Bearer lw_…`."
    )


class SessionEnded(Unauthorized):
    """The browser session has ended."""

    code = "session_ended"
    message = (
        "This browser session has ended: it expired, was idle for too long, or was signed out. "
        "Sign in again."
    )


class KeyMalformed(Unauthorized):
    """Malformed API key."""

    code = "key_malformed"
    message = (
        "The Authorization header contains no valid API key: expected `Bearer lw_…`, {problem}."
    )


class HuggingFaceTokenSent(Unauthorized):
    """A Hugging Face token was sent instead of an API key."""

    code = "foreign_token"
    message = (
        "The request carries a Hugging Face token (`hf_…`), which is not an API key of this "
        "service. It was not stored. Configure an API key of this service (`lw_…`) as your "
        "client's token."
    )


class KeyNotRecognized(Unauthorized):
    """Unknown API key."""

    code = "key_unknown"
    message = "This API key is not valid here. Create one with `loraworks keys create`."


class KeyRevoked(Unauthorized):
    """The API key was revoked."""

    code = "key_revoked"
    message = "The API key {name!r} was revoked. Create a new one with `loraworks keys create`."


class KeyExpired(Unauthorized):
    """The API key has expired."""

    code = "key_expired"
    message = "The API key {name!r} has expired. Create a new one with `loraworks keys create`."


class ScopeMissing(Forbidden):
    """The API key lacks the required scope."""

    code = "scope_missing"
    message = "The API key {name!r} lacks the scope {scope!r}, which this request requires."


class KeyNotFound(NotFound):
    """API key not found."""

    code = "key_not_found"
    message = "There is no API key {key_id}."


class SessionNotFound(NotFound):
    """Session not found."""

    code = "session_not_found"
    message = "No session has the id {session_id}, and no API key with this id has sessions."


class LocalKeyNotRevocable(Conflict):
    """The key `local` cannot be revoked."""

    code = "local_key"
    message = (
        "The key `local` represents all callers while authentication is off. It cannot be revoked."
    )


class KeyNameInvalid(UnprocessableContent):
    """Invalid API key name."""

    code = "key_name_invalid"
    message = (
        "The name of an API key must have 1 to {max_length} printable characters, such as its "
        "owner's name."
    )


class UnknownScope(UnprocessableContent):
    """Unknown scope."""

    code = "scope_unknown"
    message = "There is no scope {scope!r}. Available scopes: {available}."


class PepperFileInvalid(UnprocessableContent):
    """The pepper file is not valid."""

    code = "pepper_broken"
    message = (
        "The file `pepper` in the data directory {problem}. Restore the original file: without it "
        "no stored API key can be verified, and every key must be created again."
    )
