"""Where shards lie: a folder or an S3-compatible store, behind one small interface."""

from portal.storage.stores import store

__all__ = ["store"]
