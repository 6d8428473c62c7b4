"""What can go wrong, and whose fault it is.

A file that differs is not an error: it is a finding in the report. An error means that there was
nothing trustworthy to compare with, or nothing to look at. Each message is one sentence.
"""


class VerifierError(Exception):
    """Root of this package's errors; the message is one sentence for the person at the terminal."""


class InputError(VerifierError):
    """There is nothing to look at: PATH is not there or cannot be opened, or usage is wrong."""


class ReadError(VerifierError):
    """A file of the copy cannot be read as what it claims to be."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message

    def __reduce__(self) -> tuple[type["ReadError"], tuple[str, ...]]:
        return type(self), (self.path, self.message)  # child processes send these back


class ManifestError(VerifierError):
    """The manifest is missing, malformed or over a limit: nothing trustworthy to compare with."""


class SignatureError(VerifierError):
    """The signature or its signer does not hold; the verdict is ``untrusted``."""


class TorrentError(VerifierError):
    """The torrent or magnet link is malformed or over a limit: there is nothing to judge."""


class ChallengeError(VerifierError):
    """A challenge or an answer to one is malformed, over a limit, late, or not for each other."""
