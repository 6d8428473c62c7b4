"""Check the store as visitors see it: through signed URLs, whoever answers them.

Where the portal itself hands over what lies in a folder, the check goes through the running portal
(and nginx in front of it), with a probe: an object that the check put, under a URL of its own. It
belongs to no checkpoint, and no other object can be had in this way.
"""

import re
from datetime import timedelta

from django.conf import settings
from django.urls import reverse
from django.utils.timezone import now

from portal.catalog.models import Shard
from portal.delivery import signers
from portal.delivery.serving import NGINX_PLACE
from portal.storage.checking import PREFIX, SMALLEST_PART, Check
from portal.storage.errors import StoreError
from portal.storage.stores import Stored, store

NAME = re.compile(rf"{re.escape(PREFIX)}[0-9a-f]{{32}}")
# No grant and no shard has the number 0, so no other URL of ours is signed like this.
NOBODY = 0

BY_THE_APPLICATION = (
    "Is it this portal that answers at WEIGHBRIDGE_URL, with the same WEIGHBRIDGE_DATA? Start it "
    "with `manage.py serve`, and correct WEIGHBRIDGE_URL."
)
BY_NGINX = (
    "WEIGHBRIDGE_SENDFILE is nginx: WEIGHBRIDGE_URL must be nginx's address; its configuration must "
    "have the location /_weights/ with the store's folder (docs/deploy/nginx.conf), and its user must "
    "be able to read there."
)
BY_THE_STORE = (
    "Check WEIGHBRIDGE_S3_REGION, WEIGHBRIDGE_S3_PUBLIC_ENDPOINT, the clock, and that the credentials "
    "have s3:GetObject and s3:GetObjectVersion."
)
BY_CLOUDFRONT = (
    "Check that WEIGHBRIDGE_CLOUDFRONT_KEY_ID is in a trusted key group of the behavior, that its "
    "private key is in WEIGHBRIDGE_CLOUDFRONT_KEY_FILE, and that query strings go on to the bucket."
)


def check_of_the_settings() -> Check:
    """Return the check of the store that the settings name.

    Raises:
        StoreError: the settings do not fit together.
    """
    kept = store()
    if settings.STORE == "folder":
        if settings.SENDFILE == "nginx":
            return Check(kept, sign_probe, BY_NGINX, shut=_around_the_portal)
        return Check(kept, sign_probe, BY_THE_APPLICATION)
    kept.part_bytes = SMALLEST_PART  # type: ignore[attr-defined]  # every S3 store has it

    def sign(key: str, stored: Stored, seconds: int) -> str:
        return str(kept.presign(key, seconds=seconds, version=stored.version))

    opens = BY_CLOUDFRONT if settings.CLOUDFRONT_URL else BY_THE_STORE
    return Check(kept, sign, opens, in_parts=True, keeps_versions=True)


def _around_the_portal(key: str) -> list[str]:
    return [f"{settings.PUBLIC_URL}{NGINX_PLACE}{key}"]


def sign_probe(key: str, stored: Stored, seconds: int) -> str:
    """Return the portal's URL of a probe."""
    ends = now() + timedelta(seconds=seconds)
    query = signers.sign(NOBODY, NOBODY, method=f"CHECK {key}", expires_at=ends)
    return f"{settings.PUBLIC_URL}{reverse('probe', args=[key])}?{query}"


def probe(name: str, *, expires: str, signature: str) -> Shard:
    """Return a probe as if it were a shard; it is in no database.

    Raises:
        UrlError: the URL does not hold, or is not of a probe.
        StoreError: the probe is not in the store.
    """
    if not NAME.fullmatch(name):
        raise signers.UrlError("This is no address of a check.")
    signers.check(
        NOBODY, NOBODY, method=f"CHECK {name}", expires=expires, signature=signature, at=now()
    )
    found = store().head(name)
    if found is None:
        raise StoreError(f"{name} is not in the store.")
    return Shard(path="check", size=found.size, sha256=name.removeprefix(PREFIX), store_key=name)
