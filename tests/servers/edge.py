"""As much of CloudFront as our URLs rely on: it rebuilds the canned policy and asks the bucket."""

import base64
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa


def refusal(url, public_key, key_id, *, at):
    """Say why CloudFront would refuse ``url`` at ``at``; nothing where it would not.

    Written from the Developer Guide, not from our signer: the policy is rebuilt from the URL.
    """
    resource, _, signed = url.rpartition("Expires=")
    query = parse_qs(f"Expires={signed}")
    if not resource or set(query) != {"Expires", "Signature", "Key-Pair-Id"}:
        return "MissingKey"
    if "*" in resource:
        return "wildcard"
    if query["Key-Pair-Id"] != [key_id]:
        return "unknown key"
    resource, expires = resource.rstrip("&?"), int(query["Expires"][0])
    policy = '{"Statement":[{"Resource":"%s","Condition":{"DateLessThan":{"AWS:EpochTime":%d}}}]}'
    signature = base64.b64decode(
        query["Signature"][0].replace("-", "+").replace("_", "=").replace("~", "/"), validate=True
    )
    message = (policy % (resource, expires)).encode()
    try:
        if isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(signature, message, padding.PKCS1v15(), hashes.SHA1())
        else:
            public_key.verify(signature, message, ec.ECDSA(hashes.SHA1()))
    except InvalidSignature:
        return "bad signature"
    return "" if at < expires else "expired"


class Edge:
    """A running edge in front of ``bucket``; a context manager."""

    def __init__(self, client, bucket, public_key, key_id):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                url = f"http://{self.headers['Host']}{self.path}"
                if refusal(url, public_key, key_id, at=time.time()):
                    return self.answer(403, b"AccessDenied")
                parts = urlsplit(url)
                query = {name: value for name, (value,) in parse_qs(parts.query).items()}
                asked = {"VersionId": query["versionId"]} if "versionId" in query else {}
                if "Range" in self.headers:
                    asked["Range"] = self.headers["Range"]
                try:
                    found = client.get_object(Bucket=bucket, Key=unquote(parts.path)[1:], **asked)
                except ClientError:
                    return self.answer(403, b"AccessDenied")
                name = "response-content-disposition"
                return self.answer(
                    206 if "ContentRange" in found else 200,
                    found["Body"].read(),
                    **{"Content-Range": found.get("ContentRange")},
                    **{"Content-Disposition": query.get(name)},
                )

            def answer(self, status, content, **headers):
                self.send_response(status)
                for name, value in headers.items():
                    if value:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
