"""What can be wrong with an `Idempotency-Key`."""

from app.errors import Conflict, Invalid


class IdempotencyKeyInvalid(Invalid):
    """Not an `Idempotency-Key`."""

    code = "idempotency_key_invalid"
    message = (
        "The header Idempotency-Key {problem}. Send one value of 1 to {most} printable ASCII "
        "characters, such as a UUID."
    )


class IdempotencyKeyReused(Invalid):
    """The key belongs to a call with another body."""

    code = "idempotency_key_reused"
    message = (
        "This Idempotency-Key was sent before with another body or for another thing. Take a new "
        "key for a new call; a repeated call must be the same in all its parts."
    )


class IdempotencyInFlight(Conflict):
    """The first call with this key is still being worked on."""

    code = "idempotency_in_flight"
    message = (
        "The first call with this Idempotency-Key has no answer yet. Send it again, unchanged, in "
        "{retry_after} s."
    )
