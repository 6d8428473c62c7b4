"""What can go wrong with a store."""


class StoreError(Exception):
    """An object cannot be kept or read; the message says which and what to do."""


class ExistsError(StoreError):
    """There is such an object, and it is not the one that was to be put."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is in the store already; nothing is overwritten.")


def check_key(key: str) -> str:
    """Return ``key`` if it can never lead out of the store.

    Raises:
        StoreError: it is empty, absolute, or has a part that is empty, ``.`` or ``..``.
    """
    parts = key.split("/")
    if "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise StoreError(f"{key!r} cannot be a key of the store.")
    return key
