"""The replication protocol from outside, independent of the server's own code.

    frame   [type u8][length u32][payload][crc32 u32], little-endian; the CRC covers all before it
    payload variant u32, then the fields; string and bytes are a u64 length and the bytes

build() and parse() know every message by the table MESSAGES; RawPeer talks to a master's
replication port as a replica would (or as none should), RawMaster is a master for a real replica.
"""

import dataclasses
import socket
import struct
import time
import uuid
import zlib

HELLO, WELCOME = 0x01, 0x02
PING, PONG = 0x10, 0x11
WAL_ENTRY, WAL_ACK = 0x20, 0x21
REQUEST_SNAPSHOT, SNAPSHOT_META, SNAPSHOT_CHUNK, SNAPSHOT_COMPLETE = 0x30, 0x31, 0x32, 0x33
ERROR = 0xFF

PROTOCOL_VERSION = 1
MAX_PAYLOAD = 64 << 20
MAX_ENTRY_FRAME = 16 << 20

ERROR_VERSION, ERROR_CLUSTER, ERROR_AUTH, ERROR_TOO_MANY, ERROR_NOT_MASTER = 1, 2, 3, 4, 5
ERROR_FRAME, ERROR_SNAPSHOT, ERROR_FENCED, ERROR_SHUTDOWN, ERROR_INTERNAL = 6, 7, 8, 9, 10
ERROR_BEHIND = 11

PUT, DELETE, EPOCH = 1, 2, 3
HAS_EXPIRY, EXPIRED = 1, 2

_NEEDED = object()  # a field without a default


class BadFrame(ValueError):
    """Bytes that are no frame, or a payload that is no message."""


class Incomplete(Exception):
    """More bytes are needed."""


# type -> (name, variant, [(field, kind, default)]); a default may name another field: "=offset"
MESSAGES = {
    HELLO: (
        "Hello",
        0,
        [
            ("replica_id", "string", _NEEDED),
            ("last_wal_offset", "u64", _NEEDED),
            ("protocol_version", "u32", _NEEDED),
            ("cluster_id", "string", ""),
            ("last_epoch", "u64", 0),
            ("last_crc", "u32", 0),
            ("token", "string", ""),
            ("http_addr", "string", ""),
            ("advertised_addr", "string", ""),
            ("resume_snapshot_id", "string", ""),
            ("resume_chunk", "u32", 0),
            ("epochs", "bytes", b""),
            ("claim", "bytes", b""),
        ],
    ),
    WELCOME: (
        "Welcome",
        1,
        [
            ("master_id", "string", _NEEDED),
            ("current_wal_offset", "u64", _NEEDED),
            ("requires_full_sync", "bool", _NEEDED),
            ("cluster_id", "string", ""),
            ("epoch", "u64", 0),
            ("heartbeat_ms", "u32", 5000),
            ("quorum_offset", "u64", 0),
            ("http_addr", "string", ""),
            ("mode", "u8", 0),
            ("epochs", "bytes", b""),
        ],
    ),
    PING: (
        "Ping",
        2,
        [
            ("timestamp", "u64", _NEEDED),
            ("current_wal_offset", "u64", 0),
            ("quorum_offset", "u64", 0),
            ("log_clock", "u64", 0),
        ],
    ),
    PONG: ("Pong", 3, [("timestamp", "u64", _NEEDED)]),
    WAL_ENTRY: (
        "WalEntry",
        4,
        [("offset", "u64", _NEEDED), ("epoch", "u64", _NEEDED), ("entry", "rest", _NEEDED)],
    ),
    WAL_ACK: (
        "WalAck",
        5,
        [
            ("offset", "u64", _NEEDED),
            ("success", "bool", _NEEDED),
            ("received", "u64", "=offset"),
            ("applied", "u64", "=offset"),
        ],
    ),
    REQUEST_SNAPSHOT: ("RequestSnapshot", 6, [("replica_id", "string", _NEEDED)]),
    SNAPSHOT_META: (
        "SnapshotMeta",
        7,
        [
            ("snapshot_id", "string", _NEEDED),
            ("total_size", "u64", _NEEDED),
            ("chunk_count", "u32", _NEEDED),
            ("checksum", "u32", _NEEDED),
            ("wal_offset", "u64", _NEEDED),
            ("epoch", "u64", 0),
        ],
    ),
    SNAPSHOT_CHUNK: (
        "SnapshotChunk",
        8,
        [
            ("snapshot_id", "string", _NEEDED),
            ("chunk_index", "u32", _NEEDED),
            ("data", "bytes", _NEEDED),
            ("checksum", "u32", _NEEDED),
        ],
    ),
    SNAPSHOT_COMPLETE: (
        "SnapshotComplete",
        9,
        [
            ("snapshot_id", "string", _NEEDED),
            ("success", "bool", _NEEDED),
            ("total_size", "u64", 0),
            ("chunk_count", "u32", 0),
            ("checksum", "u32", 0),
        ],
    ),
    ERROR: ("Error", 10, [("code", "u32", _NEEDED), ("message", "string", _NEEDED)]),
}

_NUMBERS = {"u8": struct.Struct("<B"), "u32": struct.Struct("<I"), "u64": struct.Struct("<Q")}
_HEADER = struct.Struct("<BI")
_U32 = _NUMBERS["u32"]
_U64 = _NUMBERS["u64"]


# ---- frames ----


def encode_frame(message_type, payload):
    body = _HEADER.pack(message_type, len(payload)) + payload
    return body + _U32.pack(zlib.crc32(body))


def decode_frame(data, limit=MAX_PAYLOAD):
    """-> (type, payload, length of the frame); Incomplete or BadFrame."""
    if len(data) < _HEADER.size:
        raise Incomplete
    message_type, length = _HEADER.unpack_from(data)
    if length > limit:
        raise BadFrame(f"payload of {length} bytes, at most {limit}")
    end = _HEADER.size + length
    if len(data) < end + 4:
        raise Incomplete
    (sent,) = _U32.unpack_from(data, end)
    computed = zlib.crc32(memoryview(data)[:end])
    if sent != computed:
        raise BadFrame(f"CRC {sent:08x}, computed {computed:08x}")
    return message_type, bytes(data[_HEADER.size : end]), end + 4


def frame_crc(frame):
    """The CRC at the end of a frame."""
    return _U32.unpack_from(frame, len(frame) - 4)[0]


# ---- messages ----


@dataclasses.dataclass
class Message:
    type: int
    fields: dict
    frame: bytes  # as it came

    @property
    def name(self):
        return MESSAGES[self.type][0]

    def __getattr__(self, name):
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(f"{self.name} has no field {name}") from None


def _encode_value(kind, value):
    if kind == "bool":
        return struct.pack("<B", int(value))
    if kind in _NUMBERS:
        return _NUMBERS[kind].pack(value)
    data = value.encode() if isinstance(value, str) else bytes(value)
    return data if kind == "rest" else _U64.pack(len(data)) + data


def _decode_value(kind, data, at):
    """-> (value, where the next field begins)"""
    if kind == "rest":
        return bytes(data[at:]), len(data)
    if kind in _NUMBERS:
        form = _NUMBERS[kind]
        if len(data) - at < form.size:
            raise BadFrame(f"{kind} is cut off at byte {at}")
        return form.unpack_from(data, at)[0], at + form.size
    if kind == "bool":
        value, at = _decode_value("u8", data, at)
        if value > 1:
            raise BadFrame(f"bool of {value}")
        return value == 1, at
    length, at = _decode_value("u64", data, at)
    if length > len(data) - at:
        raise BadFrame(f"{kind} of {length} bytes, {len(data) - at} are left")
    value = bytes(data[at : at + length])
    return (value.decode() if kind == "string" else value), at + length


def build_payload(message_type, last=None, variant=None, extra=b"", **values):
    """A payload. last: the name of the last field written, so that what follows is left out, as an
    older peer would; variant: a wrong one; extra: bytes behind the last field, as of a newer peer."""
    name, right_variant, fields = MESSAGES[message_type]
    unknown = set(values) - {field for field, _, _ in fields}
    if unknown:
        raise TypeError(f"{name} has no {sorted(unknown)}")
    payload = bytearray(_U32.pack(right_variant if variant is None else variant))
    for field, kind, default in fields:
        value = values.get(field, default)
        if value is _NEEDED:
            raise TypeError(f"{name} needs {field}")
        if isinstance(value, str) and value.startswith("=") and kind != "string":
            value = values[value[1:]]
        payload += _encode_value(kind, value)
        if field == last:
            break
    return bytes(payload) + extra


def build(message_type, last=None, variant=None, extra=b"", **values):
    """A whole frame: build(PING, timestamp=1)."""
    return encode_frame(message_type, build_payload(message_type, last, variant, extra, **values))


def parse(frame):
    """A frame -> Message. Missing additions have their defaults, bytes behind the last field are
    ignored."""
    message_type, payload, length = decode_frame(frame)
    if message_type not in MESSAGES:
        raise BadFrame(f"unknown type {message_type:#04x}")
    name, variant, fields = MESSAGES[message_type]
    if len(payload) < 4 or _U32.unpack_from(payload)[0] != variant:
        raise BadFrame(f"{name} with variant bytes {payload[:4].hex()}")
    at = 4
    values = {}
    for field, kind, default in fields:
        if at == len(payload) and default is not _NEEDED:
            linked = isinstance(default, str) and default.startswith("=")
            values[field] = values[default[1:]] if linked else default
        else:
            values[field], at = _decode_value(kind, payload, at)
    return Message(message_type, values, bytes(frame[:length]))


def build_hello(replica_id=None, last_wal_offset=0, **fields):
    fields.setdefault("protocol_version", PROTOCOL_VERSION)
    replica_id = replica_id or str(uuid.uuid4())
    return build(HELLO, replica_id=replica_id, last_wal_offset=last_wal_offset, **fields)


def build_welcome(master_id=None, current_wal_offset=0, requires_full_sync=False, **fields):
    return build(
        WELCOME,
        master_id=master_id or str(uuid.uuid4()),
        current_wal_offset=current_wal_offset,
        requires_full_sync=requires_full_sync,
        **fields,
    )


def build_epochs(*epochs):
    """The bytes of an epoch history: (epoch, first_offset, node_id, CRC of its first entry; epoch 1: 0) each."""
    return b"".join(
        struct.pack("<QQ16sI", epoch, first, uuid.UUID(node_id).bytes, crc)
        for epoch, first, node_id, crc in epochs
    )


def build_ping(timestamp=None, **fields):
    return build(PING, timestamp=now_ms() if timestamp is None else timestamp, **fields)


def build_pong(timestamp):
    return build(PONG, timestamp=timestamp)


def build_ack(offset, success=True, **fields):
    return build(WAL_ACK, offset=offset, success=success, **fields)


def build_error(code, message=""):
    return build(ERROR, code=code, message=message)


def now_ms():
    return time.time_ns() // 1_000_000


def now_us():
    return time.time_ns() // 1000


# ---- entries ----

_OP = struct.Struct("<BBHI")
_ENTRY = struct.Struct("<IQI")  # prev_crc, timestamp, op_count


@dataclasses.dataclass
class Op:
    kind: int
    key: bytes
    value: bytes = b""
    flags: int = 0
    expires_at: int = 0  # Unix ms, with HAS_EXPIRY


def put_op(key, value, expires_at=None):
    if expires_at is None:
        return Op(PUT, key, value)
    return Op(PUT, key, value, HAS_EXPIRY, expires_at)


def delete_op(key, expired=False):
    return Op(DELETE, key, flags=EXPIRED if expired else 0)


def epoch_op(node_id):
    """node_id: UUID as text, or 16 bytes."""
    return Op(EPOCH, uuid.UUID(node_id).bytes if isinstance(node_id, str) else node_id)


def encode_op(op):
    data = _OP.pack(op.kind, op.flags, len(op.key), len(op.value))
    if op.flags & HAS_EXPIRY:
        data += _U64.pack(op.expires_at)
    return data + op.key + op.value


def decode_ops(data, count):
    """All operations of an entry; BadFrame when count and bytes do not end together."""
    ops = []
    at = 0
    for _ in range(count):
        if len(data) - at < _OP.size:
            raise BadFrame(f"operation {len(ops)} is cut off")
        kind, flags, key_length, value_length = _OP.unpack_from(data, at)
        at += _OP.size
        if kind not in (PUT, DELETE, EPOCH) or flags & ~(HAS_EXPIRY | EXPIRED):
            raise BadFrame(f"operation {len(ops)} of kind {kind}, flags {flags}")
        expires_at = 0
        if flags & HAS_EXPIRY:
            expires_at, at = _decode_value("u64", data, at)
        end = at + key_length + value_length
        if end > len(data):
            raise BadFrame(f"operation {len(ops)} is cut off")
        key = bytes(data[at : at + key_length])
        ops.append(Op(kind, key, bytes(data[at + key_length : end]), flags, expires_at))
        at = end
    if at != len(data):
        raise BadFrame(f"{len(data) - at} bytes behind the last operation")
    return ops


@dataclasses.dataclass
class WalEntry:
    offset: int
    epoch: int
    prev_crc: int
    timestamp: int  # Unix microseconds
    ops: list
    crc: int  # of its frame
    frame: bytes


def encode_entry(offset, epoch, prev_crc, ops, timestamp=None, op_count=None):
    """The WalEntry frame of an entry. op_count: a wrong one."""
    timestamp = now_us() if timestamp is None else timestamp
    head = _ENTRY.pack(prev_crc, timestamp, len(ops) if op_count is None else op_count)
    entry = head + b"".join(map(encode_op, ops))
    return build(WAL_ENTRY, offset=offset, epoch=epoch, entry=entry)


def decode_entry(frame):
    """A WalEntry frame -> WalEntry; BadFrame for anything else."""
    message = parse(frame)
    if message.type != WAL_ENTRY or len(message.entry) < _ENTRY.size:
        raise BadFrame(f"{message.name} of {len(frame)} bytes is no entry")
    prev_crc, timestamp, op_count = _ENTRY.unpack_from(message.entry)
    ops = decode_ops(message.entry[_ENTRY.size :], op_count)
    return WalEntry(
        message.offset, message.epoch, prev_crc, timestamp, ops, frame_crc(message.frame),
        message.frame,
    )


class LogBuilder:
    """Makes a log's frames one after the other, each chained to the one before."""

    def __init__(self, epoch=1, offset=0, crc=0):
        self.epoch = epoch
        self.offset = offset
        self.crc = crc
        self.frames = []

    def append(self, *ops, timestamp=None):
        frame = encode_entry(self.offset + 1, self.epoch, self.crc, list(ops), timestamp)
        self.offset += 1
        self.crc = frame_crc(frame)
        self.frames.append(frame)
        return frame


# ---- connections ----


class RawPeer:
    """A connection that speaks frames, or any bytes. End it with close() or `with`."""

    def __init__(self, port=None, host="127.0.0.1", timeout=10.0, sock=None):
        self.timeout = timeout
        self.sock = sock or socket.create_connection((host, port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.at_end = False

    def send(self, data):
        self.sock.settimeout(self.timeout)
        self.sock.sendall(data)

    def drip(self, data, pause=0.1, size=1):
        """Sends it in pieces of that size; whether the other side has taken it all."""
        try:
            for at in range(0, len(data), size):
                self.send(data[at : at + size])
                time.sleep(pause)
        except OSError:
            return False
        return True

    def send_message(self, message_type, **fields):
        self.send(build(message_type, **fields))

    def recv(self, timeout=None):
        """The next Message, or None once the peer has closed. TimeoutError; BadFrame."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            try:
                _, _, length = decode_frame(self.buffer)
            except Incomplete:
                if not self._fill(deadline):
                    return None
                continue
            frame = bytes(self.buffer[:length])
            del self.buffer[:length]
            return parse(frame)

    def _fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole frame in time")
        self.sock.settimeout(left)
        try:
            piece = self.sock.recv(1 << 18)
        except ConnectionResetError:
            piece = b""
        self.buffer += piece
        self.at_end = not piece
        return bool(piece)

    def recv_type(self, message_type, timeout=None):
        """The next message of a type; Pings are answered and others of a living session skipped. An
        Error that isn't asked for, or the end, is an AssertionError."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            message = self.recv(max(deadline - time.monotonic(), 0.001))
            wanted = MESSAGES[message_type][0]
            if message is None:
                raise AssertionError(f"closed before a {wanted} came")
            if message.type == message_type:
                return message
            if message.type == ERROR:
                raise AssertionError(f"Error {message.code} {message.message!r}, not {wanted}")
            if message.type == PING and message.timestamp:
                self.send(build_pong(message.timestamp))

    def recv_error(self, code=None, timeout=None):
        """The Error that comes, and the close behind it."""
        message = self.recv_type(ERROR, timeout)
        if code is not None and message.code != code:
            raise AssertionError(f"Error {message.code} {message.message!r}, expected {code}")
        self.recv_end(timeout)
        return message

    def recv_end(self, timeout=None):
        """Waits for the close; nothing but Pings may come before."""
        while (message := self.recv(timeout)) is not None:
            if message.type != PING:
                raise AssertionError(f"{message.name} {message.fields} before the close")

    def recv_entries(self, count, timeout=None):
        """The next `count` entries, decoded."""
        return [decode_entry(self.recv_type(WAL_ENTRY, timeout).frame) for _ in range(count)]

    def handshake(self, replica_id=None, last_wal_offset=0, **fields):
        """Sends Hello, returns the Welcome."""
        self.send(build_hello(replica_id, last_wal_offset, **fields))
        return self.recv_type(WELCOME)

    def reset(self):
        """Closes with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class RawMaster:
    """Listens where a real replica looks for its master; accept() gives a RawPeer for each
    connection."""

    def __init__(self, port=0, host="127.0.0.1", timeout=10.0):
        self.timeout = timeout
        self.master_id = str(uuid.uuid4())
        self.cluster_id = str(uuid.uuid4())
        self.listener = socket.create_server((host, port))
        self.port = self.listener.getsockname()[1]
        self.addr = f"{host}:{self.port}"
        self.peers = []

    def accept(self, timeout=None):
        self.listener.settimeout(self.timeout if timeout is None else timeout)
        sock, _ = self.listener.accept()
        peer = RawPeer(sock=sock, timeout=self.timeout)
        self.peers.append(peer)
        return peer

    def welcome(self, timeout=None, **fields):
        """Accepts, reads the Hello, sends a Welcome: -> (peer, the Hello)."""
        peer = self.accept(timeout)
        hello = peer.recv_type(HELLO, timeout)
        fields.setdefault("cluster_id", self.cluster_id)
        fields.setdefault("epoch", 1)
        peer.send(build_welcome(self.master_id, **fields))
        return peer, hello

    def close(self):
        for peer in self.peers:
            peer.close()
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
