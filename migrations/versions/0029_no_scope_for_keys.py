"""Without the scope `keys:admin`: no route manages keys, and one that does later must be granted."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

ALL = {
    *("jobs:read", "jobs:write", "datasets:read", "datasets:write", "models:read", "models:admin"),
    *("predict", "predictions:read", "predictions:write", "metrics:read", "webhooks:admin"),
    *("labels:read", "labels:write", "feedback:write"),
}
OLD = "keys:admin"
KEYS = sa.table("api_keys", sa.column("id", sa.Uuid()), sa.column("scopes", sa.JSON()))


def upgrade() -> None:
    _change_scopes(lambda scopes: [each for each in scopes if each != OLD])


def downgrade() -> None:
    """Only full-access keys get the scope back."""
    _change_scopes(lambda scopes: [*scopes, OLD] if set(scopes) >= ALL else scopes)


def _change_scopes(change: Callable[[list[str]], list[str]]) -> None:
    connection = op.get_bind()
    for key in connection.execute(sa.select(KEYS)).all():
        if (scopes := change(key.scopes)) != key.scopes:
            connection.execute(KEYS.update().where(KEYS.c.id == key.id).values(scopes=scopes))
