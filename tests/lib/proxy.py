"""A TCP proxy between a replica and its master: slow, cut, held, counted.

    with Proxy(master.replication_port) as proxy:
        replica = ... "replication.master_addr": proxy.addr
        proxy.rate = 100_000        # bytes a second towards the replica; None: no limit
        proxy.cut_after(300_000)    # bytes towards the replica, from now on
        proxy.rate = None

record=True keeps all bytes of each connection: proxy.recordings.

Down is towards the one who connects (the replica), up is towards the target (the master). Its own
buffers are small, so that what it holds back stays where it comes from.
"""

import socket
import threading
import time

PIECE = 16 << 10
BUFFER = 16 << 10  # of its sockets; the kernel doubles it
SEGMENT = 1400  # bytes, as on a real line: with loopback's 64 KiB the kernel takes megabytes at once


class _Flow:
    """One direction of all connections. Guarded by the proxy's condition."""

    def __init__(self):
        self.rate = None  # bytes a second
        self.count = 0  # bytes that went through
        self.cut_at = None  # count at which all connections are cut
        self.free_at = 0.0  # when the next byte may go
        self.paused = False


class _Link:
    """A connection of the replica and the one to the master that belongs to it."""

    def __init__(self, client, target):
        self.client = client
        self.target = target
        self.bytes_down = bytearray()  # as far as they are recorded
        self.bytes_up = bytearray()
        self.dead = False
        self.pumps = 2  # still running

    def kill(self):
        """Ends it; the pumps close the sockets."""
        self.dead = True
        for sock in (self.client, self.target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Proxy:
    """Listens on `port` (0: any) of 127.0.0.1 and connects each connection with target_port there.

    rate: towards the replica only, or with both=True in either direction."""

    def __init__(
        self, target_port, rate=None, both=False, port=0, host="127.0.0.1", record=False
    ):
        self.host = host
        self.recordings = [] if record else None  # (bytes down, bytes up) of each connection
        self.target_port = target_port
        self.both = both
        self._changed = threading.Condition()
        self._down = _Flow()
        self._up = _Flow()
        self._links = []
        self._threads = []
        self._accepted = 0
        self._closing = False
        self.rate = rate
        self._listener = socket.create_server((host, port))
        self.port = self._listener.getsockname()[1]
        self.addr = f"{host}:{self.port}"
        self._start(self._accept)

    # -- what it does to the connections --

    @property
    def rate(self):
        return self._down.rate

    @rate.setter
    def rate(self, rate):
        with self._changed:
            self._down.rate = rate
            self._up.rate = rate if self.both else None
            self._down.free_at = self._up.free_at = 0.0
            self._changed.notify_all()

    def pause(self, down=True, up=True):
        """Nothing goes that way any more, the end of a connection neither, as in a cut network;
        connections stay, and new ones are accepted."""
        with self._changed:
            self._down.paused = down
            self._up.paused = up

    def resume(self):
        with self._changed:
            self._down.paused = self._up.paused = False
            self._changed.notify_all()

    def cut(self):
        """Ends all connections; new ones are served."""
        with self._changed:
            self._cut()

    def cut_after(self, count):
        """Ends all connections once so many more bytes have gone down, to the byte."""
        with self._changed:
            self._down.cut_at = self._down.count + count
            self._changed.notify_all()

    def _cut(self):
        for link in self._links:
            link.kill()
        self._changed.notify_all()

    # -- what it has seen --

    @property
    def down(self):
        """Bytes that went to the replica."""
        return self._down.count

    @property
    def up(self):
        """Bytes that went to the master."""
        return self._up.count

    @property
    def connections(self):
        """Connections accepted so far."""
        return self._accepted

    @property
    def open(self):
        """Connections that live now."""
        with self._changed:
            return sum(1 for link in self._links if not link.dead)

    # -- its threads --

    def _start(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            target = self._connect()
            with self._changed:
                if self._closing or target is None:
                    client.close()
                    if target is not None:
                        target.close()
                    continue
                self._accepted += 1
                link = _Link(client, target)
                self._links.append(link)
                if self.recordings is not None:
                    self.recordings.append((link.bytes_down, link.bytes_up))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            for sock in (client, target):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._pump, link, target, client, self._down)
            self._start(self._pump, link, client, target, self._up)

    def _connect(self):
        """A connection to the master, or None while it doesn't listen."""
        target = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        target.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        try:
            target.settimeout(5)
            target.connect((self.host, self.target_port))
            target.settimeout(None)
            return target
        except OSError:
            target.close()
            return None

    def _pump(self, link, source, sink, flow):
        try:
            while data := self._read(link, source, flow):
                count, is_last = self._admit(link, flow, len(data))
                if self.recordings is not None:
                    seen = link.bytes_down if flow is self._down else link.bytes_up
                    seen += data[:count]
                sink.sendall(data[:count])
                if is_last:
                    self.cut()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            link.kill()
        with self._changed:
            link.pumps -= 1
            if link.pumps == 0:
                link.dead = True
                self._links.remove(link)
                link.client.close()
                link.target.close()

    def _read(self, link, source, flow):
        """The next piece, once one may be read; small ones where it goes slowly."""
        with self._changed:
            while not link.dead and (flow.paused or time.monotonic() < flow.free_at):
                left = None if flow.paused else max(flow.free_at - time.monotonic(), 0.001)
                self._changed.wait(left)
            size = PIECE if flow.rate is None else max(1, min(PIECE, int(flow.rate / 20)))
        return b"" if link.dead else source.recv(size)

    def _admit(self, link, flow, count):
        """-> (how many of the bytes may go on, whether all connections are cut behind them)"""
        with self._changed:
            while flow.paused and not link.dead:
                self._changed.wait()
            if link.dead:
                return 0, False
            is_last = flow.cut_at is not None and flow.count + count >= flow.cut_at
            if is_last:
                count = flow.cut_at - flow.count
                flow.cut_at = None
            flow.count += count
            if flow.rate is not None:
                flow.free_at = max(flow.free_at, time.monotonic()) + count / flow.rate
            return count, is_last

    def close(self):
        with self._changed:
            self._closing = True
            self._down.paused = self._up.paused = False
            self._cut()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
