"""Why nothing is removed."""

from app.errors import Conflict


class StoreOfAnother(Conflict):
    """The store belongs to another database."""

    code = "store_of_another"
    message = (
        "The store belongs to another database ({owner}, not {name}), so nothing is removed from "
        "it. Check LORAWORKS_DATABASE_URL and LORAWORKS_STORE_URL. Two installations need two "
        "stores. If this database took the place of that one, delete the file .owner in the store."
    )
