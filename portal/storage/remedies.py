"""What an S3-compatible store's refusal means, and what to change."""

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)

_REGION = "set WEIGHBRIDGE_S3_REGION to the region of the bucket"
_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the role that boto3 finds)"
_PERMISSION = (
    "allow s3:ListBucket on the bucket, and s3:PutObject, s3:GetObject, s3:DeleteObject, "
    "s3:AbortMultipartUpload, s3:ListMultipartUploadParts (and their Version twins) on its objects"
)
_KMS = (
    "check WEIGHBRIDGE_S3_KMS_KEY, and allow kms:GenerateDataKey and kms:Decrypt on that key to "
    "these credentials"
)
_LATER = "try again later; the store is busy or broken"

REMEDIES = {
    "AuthorizationHeaderMalformed": _REGION,
    "AuthorizationQueryParametersError": _REGION,
    "PermanentRedirect": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "301": f"{_REGION}, or WEIGHBRIDGE_S3_ADDRESSING to the style that the endpoint speaks",
    "RequestTimeTooSkewed": "set this machine's clock (chrony, systemd-timesyncd)",
    "RequestExpired": "set this machine's clock (chrony, systemd-timesyncd)",
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "InvalidToken": _KEYS,
    "ExpiredToken": "the session credentials have ended; get new ones",
    "NoSuchBucket": "make the bucket, or correct WEIGHBRIDGE_S3_BUCKET",
    "InvalidBucketName": "correct WEIGHBRIDGE_S3_BUCKET",
    "AccessDenied": _PERMISSION,
    "403": f"{_PERMISSION}; where that is so, {_KEYS}, and the clock",
    "NotImplemented": "use a store that knows this operation of S3",
    "SlowDown": _LATER,
    "ServiceUnavailable": _LATER,
    "InternalError": _LATER,
    "503": _LATER,
    "QuotaExceeded": "make room in the bucket, or raise its quota",
    "NoSuchUpload": "somebody ended this upload; run the command again",
    "NoSuchVersion": "the version that was published is gone from the bucket; restore it",
    "NoSuchKey": "the object is gone from the bucket; restore it",
    "404": "the object or its version is gone from the bucket; restore it",
}


def code_of(error: Exception) -> str:
    """Return the code by which a store refused, else an empty string."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def explain(error: Exception) -> str:
    """Return one clause that says what happened and one that says what to change."""
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        code, message = code_of(error), str(details.get("Message") or "").rstrip(".")
        said = f"the store said {code}{f', {message}' if message else ''}"
        remedy = _KMS if "kms" in f"{code} {message}".lower() else REMEDIES.get(code, "")
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = details.get("Region") or headers.get("x-amz-bucket-region")
        if remedy.startswith(_REGION) and region:
            remedy = f"set WEIGHBRIDGE_S3_REGION={region}"
        return f"{said}: {remedy}" if remedy else said
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"there are no credentials: {_KEYS}"
    if isinstance(error, EndpointConnectionError):
        return (
            "nothing answers at its address: check WEIGHBRIDGE_S3_ENDPOINT; where only the name "
            "of the bucket in front of it is unknown, set WEIGHBRIDGE_S3_ADDRESSING=path"
        )
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return f"it did not answer in time: {_LATER}, or a firewall is between"
    if isinstance(error, ConnectionError | HTTPClientError):
        return f"the connection to it failed ({type(error).__name__}): {_LATER}"
    return str(error).rstrip(".")


REFUSALS = (BotoCoreError, ClientError)
