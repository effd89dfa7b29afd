"""Errors of authentication, authorization and API key management."""

from app.errors import Conflict, Forbidden, NotFound, Unauthorized, UnprocessableContent


class KeyMissing(Unauthorized):
    code = "key_missing"
    title = "API key missing."
    message = (
        "This request needs an API key. Send the header `Authorization: Bearer lw_…`; on the "
        "command line, use `--key` or LORAWORKS_API_KEY."
    )


class CsrfTokenInvalid(Unauthorized):
    code = "page_token_missing"
    title = "CSRF token missing or invalid."
    message = (
        "The session cookie alone allows only reading. To change something, sign in again in this "
        "browser, or send an API key in `Authorization: Bearer lw_…`."
    )


class SessionInvalid(Unauthorized):
    code = "session_ended"
    title = "The browser session has ended."
    message = (
        "This browser session has ended: it expired, was idle for too long, or was signed out. "
        "Sign in again."
    )


class KeyMalformed(Unauthorized):
    code = "key_malformed"
    title = "Malformed API key."
    message = (
        "The Authorization header contains no valid API key: expected `Bearer lw_…`, {problem}."
    )


class HuggingFaceTokenSent(Unauthorized):
    code = "foreign_token"
    title = "A Hugging Face token was sent instead of an API key."
    message = (
        "The request carries a Hugging Face token (`hf_…`), which is not an API key of this "
        "service. It was not stored. Configure an API key of this service (`lw_…`) as your "
        "client's token."
    )


class KeyNotRecognized(Unauthorized):
    code = "key_unknown"
    title = "Unknown API key."
    message = "This API key is not valid here. Create one with `loraworks keys create`."


class KeyRevoked(Unauthorized):
    code = "key_revoked"
    title = "The API key was revoked."
    message = "The API key {name!r} was revoked. Create a new one with `loraworks keys create`."


class KeyExpired(Unauthorized):
    code = "key_expired"
    title = "The API key has expired."
    message = "The API key {name!r} has expired. Create a new one with `loraworks keys create`."


class ScopeMissing(Forbidden):
    code = "scope_missing"
    title = "The API key lacks the required scope."
    message = "The API key {name!r} lacks the scope {scope!r}, which this request requires."


class KeyNotFound(NotFound):
    code = "key_not_found"
    title = "API key not found."
    message = "There is no API key {key_id}."


class SessionNotFound(NotFound):
    code = "session_not_found"
    title = "Session not found."
    message = "No session has the id {session_id}, and no API key with this id has sessions."


class LocalKeyNotRevocable(Conflict):
    code = "local_key"
    title = "The key `local` cannot be revoked."
    message = (
        "The key `local` represents all callers while authentication is off. It cannot be revoked."
    )


class KeyNameInvalid(UnprocessableContent):
    code = "key_name_invalid"
    title = "Invalid API key name."
    message = (
        "The name of an API key must have 1 to {max_length} printable characters, without a slash, "
        "such as its owner's name."
    )


class UnknownScope(UnprocessableContent):
    code = "scope_unknown"
    title = "Unknown scope."
    message = "There is no scope {scope!r}. Available scopes: {available}."


class PepperFileInvalid(UnprocessableContent):
    code = "pepper_broken"
    title = "The pepper file is not valid."
    message = (
        "The file `pepper` in the data directory {problem}. Restore the original file: without it "
        "no stored API key can be verified, and every key must be created again."
    )
