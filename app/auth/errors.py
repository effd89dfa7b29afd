"""Why a key is refused, and what can go wrong when keys are made."""

from app.errors import Conflict, Forbidden, Invalid, NotFound, Unauthorized


class KeyMissing(Unauthorized):
    """No key was sent."""

    code = "key_missing"
    message = (
        "This call needs an API key: send the header `Authorization: Bearer lw_…`; on the command "
        "line `--key` or LORAWORKS_API_KEY."
    )


class PageTokenMissing(Unauthorized):
    """A signed-in browser tried to change something without its page token."""

    code = "page_token_missing"
    message = (
        "The session cookie is good for reading only. To change something, sign in again in this "
        "browser, or send an API key in `Authorization: Bearer lw_…`."
    )


class SessionEnded(Unauthorized):
    """The browser's session has ended."""

    code = "session_ended"
    message = (
        "This browser's session has ended: it expired, was not used for too long, or was signed "
        "out. Sign in again."
    )


class KeyMalformed(Unauthorized):
    """Something that is not an API key of this service."""

    code = "key_malformed"
    message = "The Authorization header holds no API key: expected `Bearer lw_…`, {problem}."


class ForeignToken(Unauthorized):
    """A Hugging Face token, which clients of the hub send unasked."""

    code = "foreign_token"
    message = (
        "A Hugging Face token (`hf_…`) was sent, which is no key of this service and was not kept. "
        "Give your client a key of this service (`lw_…`) as its token."
    )


class KeyUnknown(Unauthorized):
    """No key with this id and secret."""

    code = "key_unknown"
    message = "This API key is not known here. Make one with `loraworks keys create`."


class KeyRevoked(Unauthorized):
    """The key was revoked."""

    code = "key_revoked"
    message = "The API key {name!r} was revoked. Make a new one with `loraworks keys create`."


class KeyExpired(Unauthorized):
    """The key is past its last day."""

    code = "key_expired"
    message = "The API key {name!r} has expired. Make a new one with `loraworks keys create`."


class ScopeMissing(Forbidden):
    """The key may not do this."""

    code = "scope_missing"
    message = "The API key {name!r} lacks the scope {scope!r}, which this call needs."


class KeyNotFound(NotFound):
    """There is no such key."""

    code = "key_not_found"
    message = "There is no API key {key_id}."


class SessionNotFound(NotFound):
    """There is no such session."""

    code = "session_not_found"
    message = "There is no session {session_id}, and no API key with this id that has one."


class LocalKey(Conflict):
    """The fixed row that stands for a caller without a key."""

    code = "local_key"
    message = "The row `local` stands for calls while keys are off; it cannot be revoked."


class KeyNameInvalid(Invalid):
    """Not the name of a key."""

    code = "key_name_invalid"
    message = "A key is named by 1 to {most} printable characters, such as its owner's name."


class ScopeUnknown(Invalid):
    """No such scope."""

    code = "scope_unknown"
    message = "There is no scope {scope!r}. Scopes: {available}."


class PepperBroken(Invalid):
    """The file with the pepper cannot be used."""

    code = "pepper_broken"
    message = (
        "The file `pepper` in the data folder {problem}. Put the old file back; without it no "
        "stored key can be checked, and every key must be made anew."
    )
