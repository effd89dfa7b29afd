"""What a database that is away looks like. Whoever holds a job then asks again later."""

from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

OUTAGE = (OperationalError, InterfaceError, TimeoutError)
