"""Errors of checking a base model."""

from app.errors import Conflict, ContentTooLarge, UnprocessableContent


class BaseModelNotCached(Conflict):
    code = "base_not_on_host"
    title = "The host of the API has no copy of the hub model."
    message = (
        "{base} is not in the hub cache of the host that runs the API. A check downloads nothing: "
        "run `loraworks bases check {base}` on a host that may."
    )


class BaseCheckResourcesExceeded(ContentTooLarge):
    code = "base_check_too_large"
    title = "The check of the base model exceeds a limit."
    message = (
        "{base} was not checked: that needs more than {limit}. The operator can raise the limit "
        "with {setting}, or run `loraworks bases check`, which has none."
    )


class BaseCheckCrashed(UnprocessableContent):
    code = "base_check_crashed"
    title = "The check of the base model crashed."
    message = (
        "The check of {base} crashed. Its config or weights may be damaged; the log of the API has "
        "the end of its output."
    )
