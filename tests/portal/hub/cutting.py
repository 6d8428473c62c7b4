"""A proxy between a client and the portal that ends a connection cleanly in the middle, when asked."""

import socket
import threading
from contextlib import contextmanager, suppress

PIECE = 64 << 10


class Cutting:
    """Forwards connections; after ``cut_after`` bytes of answers it closes one of them, once.

    ``sent`` counts what all clients were given.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream, self.cut_after, self.sent = upstream, None, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with (
            client,
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.upstream)) as up,
        ):
            there = threading.Thread(target=_pump, args=(client, up), daemon=True)
            there.start()
            sent = 0
            while piece := up.recv(PIECE):
                if self.cut_after is not None and sent + len(piece) > self.cut_after:
                    client.sendall(piece[: self.cut_after - sent])
                    self.cut_after = None
                    break
                client.sendall(piece)
                sent += len(piece)
                self.sent += len(piece)
            client.shutdown(socket.SHUT_WR)
            there.join(5)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def cutting(upstream: int):
    proxy = Cutting(upstream)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.listener.shutdown(socket.SHUT_RDWR)
        proxy.listener.close()
        thread.join()
