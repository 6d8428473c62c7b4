"""A proxy between a client and a server that counts bytes and cuts connections in the middle."""

import contextlib
import socket
import time
from threading import Event, Lock, Thread

PIECE = 64 << 10


class Proxy:
    """Forwards TCP from a free port of 127.0.0.1 to another; a context manager.

    ``cuts`` holds, for one connection after the other, after how many bytes of the answer it is
    cut, ``pause`` seconds after the last of them; those that come later are left alone. ``sent`` and ``received`` are the bytes that clients
    sent and received. After ``stall`` bytes from clients nothing more is forwarded.
    """

    def __init__(
        self, target: int, cuts: tuple[int, ...] = (), pause: float = 0, stall: int = 1 << 62
    ) -> None:
        self.stall, self._closing = stall, Event()
        self.target, self.cuts, self.pause = target, list(cuts), pause
        self.sent = self.received = self.connections = 0
        self._lock = Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Proxy":
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:  # closed: the test is over
                return
            with self._lock:
                self.connections += 1
                self._open += [client, server]
                cut = self.cuts.pop(0) if self.cuts else None
            for arguments in ((client, server, True, None), (server, client, False, cut)):
                thread = Thread(target=self._forward, args=arguments, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _forward(
        self, source: socket.socket, target: socket.socket, upward: bool, left: int | None
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE if left is None else min(PIECE, left)):
                if upward and self.sent >= self.stall:
                    self._closing.wait(60)
                target.sendall(piece)
                with self._lock:
                    if upward:
                        self.sent += len(piece)
                    else:
                        self.received += len(piece)
                if left is not None:
                    left -= len(piece)
                    if left <= 0:
                        break
            if left is not None and left <= 0:
                time.sleep(self.pause)
                source.shutdown(socket.SHUT_RDWR)
            target.shutdown(socket.SHUT_RDWR)
