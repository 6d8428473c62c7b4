"""What can go wrong between here and a portal; each message is one sentence for the terminal."""


class ClientError(Exception):
    """Root of this package's errors."""


class PortalError(ClientError):
    """The portal cannot be reached, or answers what no portal of ours would."""


class RefusedError(ClientError):
    """The portal says no; the message is its reason. ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class BrokenOffError(PortalError):
    """An answer ended before its end; asking again, ``retry_after`` seconds later, may help."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
