"""A bucket behind CloudFront: shards are put with S3's interface and handed out by the edge.

A URL carries a canned policy, which is not sent but rebuilt by CloudFront from the URL:

    {"Statement":[{"Resource":"URL","Condition":{"DateLessThan":{"AWS:EpochTime":SECONDS}}}]}

It names one object; a signature for many is never made. RSA keys sign with PKCS #1 v1.5 and SHA-1,
CloudFront's default. (Amazon CloudFront Developer Guide, "Create a signed URL using a canned
policy".)
"""

import base64
import stat
import time
from pathlib import Path
from urllib.parse import quote, urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from portal.storage.errors import StoreError, check_key
from portal.storage.s3 import S3Store
from portal.storage.stores import Bucket, Distribution

SMALLEST_RSA_KEY = 2048
MAX_KEY_FILE = 64 << 10
POLICY = (
    '{{"Statement":[{{"Resource":"{url}",'
    '"Condition":{{"DateLessThan":{{"AWS:EpochTime":{expires}}}}}}}]}}'
)
# base64 with what may stand in a query, as CloudFront writes it
IN_A_QUERY = str.maketrans("+=/", "-_~")


class CloudFrontStore(S3Store):
    """Keeps objects in a bucket; a distribution gives them to whoever has a signed URL."""

    def __init__(self, bucket: Bucket, distribution: Distribution) -> None:
        super().__init__(bucket)
        self._distribution = distribution
        self._key = read_key(distribution.key_file, allow_ecdsa=distribution.allow_ecdsa)

    def presign(
        self, key: str, *, seconds: int, version: str = "", disposition: str = ""
    ) -> str | None:
        """Return a URL of the distribution, signed for this object alone.

        The distribution must hand ``versionId`` and ``response-content-*`` on to the bucket.
        """
        query = {"response-content-type": "application/octet-stream"}
        if disposition:
            query["response-content-disposition"] = disposition
        if version:
            query["versionId"] = version
        place = f"{self._distribution.url}/{quote(check_key(key))}"
        resource = f"{place}?{urlencode(query, quote_via=quote)}"
        return self.sign(resource, int(time.time()) + seconds)

    def sign(self, url: str, expires: int) -> str:
        """Return ``url`` with a signature that holds until ``expires``, in seconds since 1970."""
        if set('*"\\ ') & set(url):
            # an asterisk would be a wildcard; "?" is one too, but only the first, of the query,
            # can stand in a URL whose path and query are quoted
            raise StoreError("A signed URL of CloudFront is for one object, without wildcards.")
        policy = POLICY.format(url=url, expires=expires).encode()
        if isinstance(self._key, rsa.RSAPrivateKey):
            # SHA-1 is what CloudFront checks; a policy that collides gains nobody anything, since
            # nobody but us chooses what is signed
            made = self._key.sign(policy, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
        else:
            made = self._key.sign(policy, ec.ECDSA(hashes.SHA1()))  # noqa: S303
        signature = base64.b64encode(made).decode().translate(IN_A_QUERY)
        return (
            f"{url}&Expires={expires}&Signature={signature}&Key-Pair-Id={self._distribution.key_id}"
        )


def read_key(
    path: Path, *, allow_ecdsa: bool = False
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """Return the private key in a PEM file that only its owner can read.

    Raises:
        StoreError: it cannot be read, others can read it, or it is of a kind that is not used.
    """
    name = "WEIGHBRIDGE_CLOUDFRONT_KEY_FILE"
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise StoreError(f"{name}: others can read {path}; run chmod 600 on it.")
            key = load_pem_private_key(file.read(MAX_KEY_FILE), password=None)
    except OSError as error:
        raise StoreError(f"{name}: {path} cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise StoreError(f"{name}: {path} is no private key in PEM without a password.") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= SMALLEST_RSA_KEY:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        if allow_ecdsa:
            return key
        raise StoreError(
            f"{name}: {path} is an ECDSA key. CloudFront is said to take them, and we have not "
            "seen it do so: use RSA, or set WEIGHBRIDGE_CLOUDFRONT_UNVERIFIED_ECDSA=1."
        )
    raise StoreError(f"{name}: {path} is not an RSA key of {SMALLEST_RSA_KEY} bits or more.")
