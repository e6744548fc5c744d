"""Snapshots from outside, independent of the server's own code: made (right, or wrong in any piece),
read, and sent to a real replica.

    archive   a tar under one zstd frame: kv/000000, kv/000001, ..., epochs.json, manifest.json
    kv file   records offset u64, flags u8, key_length u16, value_length u32, [expires_at u64 where
              flags & 1], key, value; keys ascend over all files
    manifest  id, format, cluster_id, created_at, wal_offset, epoch, [wal_crc32], records, files

build_snapshot() makes the bytes of one; its edit_ arguments get a piece when it is made and give
another, and what depends on that piece (sizes, CRCs) is right again, so that hostile ones differ from
sound ones in one point. read_snapshot() takes one apart and checks everything. SnapshotMaster sends
one as a full sync, by a Transfer whose frames can be changed at will.

Needs the command line tool zstd.
"""

import dataclasses
import io
import json
import select
import socket
import struct
import subprocess
import tarfile
import tempfile
import time
import uuid
import zlib

import nexus_wire as wire

FORMAT = 1
EPOCHS = "epochs.json"
MANIFEST = "manifest.json"
MAX_FILE = 64 << 20  # bytes of a kv file
MAX_KEY = 511
MAX_VALUE = 15 << 20
HAS_EXPIRY = 1

TAR_BLOCK = 512
TAR_END = bytes(10240)  # two empty blocks, filled up to tar's record

_RECORD = struct.Struct("<QBHI")
_PIECE = 1 << 20


class BadSnapshot(ValueError):
    """An archive that breaks a rule."""


# ---- records ----


@dataclasses.dataclass
class Record:
    key: bytes
    value: bytes
    offset: int
    expires_at: int = None  # Unix ms


def encode_record(
    key, value, offset, expires_at=None, flags=None, key_length=None, value_length=None
):
    """flags and lengths: wrong ones."""
    if flags is None:
        flags = 0 if expires_at is None else HAS_EXPIRY
    head = _RECORD.pack(
        offset,
        flags,
        len(key) if key_length is None else key_length,
        len(value) if value_length is None else value_length,
    )
    expiry = b"" if expires_at is None else struct.pack("<Q", expires_at)
    return head + expiry + key + value


def _encoded(record):
    """A record as bytes: given so already, a Record, or (key, value, offset[, expires_at])."""
    if isinstance(record, bytes):
        return record
    if isinstance(record, Record):
        record = dataclasses.astuple(record)
    return encode_record(*record)


def decode_records(data):
    """All records of a kv file; BadSnapshot when it doesn't end with one."""
    records = []
    at = 0
    while at < len(data):
        if len(data) - at < _RECORD.size:
            raise BadSnapshot(f"record {len(records)} is cut off")
        offset, flags, key_length, value_length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if flags & ~HAS_EXPIRY or not 1 <= key_length <= MAX_KEY or value_length > MAX_VALUE:
            raise BadSnapshot(
                f"record {len(records)}: flags {flags}, key of {key_length} bytes, value of "
                f"{value_length}"
            )
        expires_at = None
        expiry = 8 if flags & HAS_EXPIRY else 0
        end = at + expiry + key_length + value_length
        if end > len(data):
            raise BadSnapshot(f"record {len(records)} is cut off")
        if expiry:
            (expires_at,) = struct.unpack_from("<Q", data, at)
        key = bytes(data[at + expiry : at + expiry + key_length])
        value = bytes(data[at + expiry + key_length : end])
        records.append(Record(key, value, offset, expires_at))
        at = end
    return records


# ---- tar ----


def zeros(count):
    """That many zero bytes, in pieces."""
    piece = bytes(_PIECE)
    while count > 0:
        yield piece[:count]
        count -= len(piece)


@dataclasses.dataclass
class Member:
    """An entry of the tar; whatever is given stands there, right or wrong."""

    name: str
    data: bytes = b""
    zeros: int = 0  # so many zero bytes behind data
    type: bytes = tarfile.REGTYPE
    mode: int = 0o600
    linkname: str = ""
    device: tuple = (0, 0)
    size: int = None  # in the header, where it isn't the data's
    pax: dict = None  # records of a PAX header before it
    gnu_name: str = None  # of a GNU long name entry before it
    raw: bytes = None  # header and all, instead of the rest

    def content(self):
        yield self.data
        yield from zeros(self.zeros)

    @property
    def length(self):
        return len(self.data) + self.zeros

    @property
    def crc(self):
        crc = 0
        for piece in self.content():
            crc = zlib.crc32(piece, crc)
        return crc

    def header(self):
        info = tarfile.TarInfo(self.name)
        info.type = self.type
        info.mode = self.mode
        info.linkname = self.linkname
        info.devmajor, info.devminor = self.device
        info.size = self.length if self.size is None else self.size
        return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")

    def pieces(self):
        """Its bytes in the tar."""
        if self.raw is not None:
            yield self.raw
            return
        if self.gnu_name is not None:
            yield _special("././@LongLink", tarfile.GNUTYPE_LONGNAME, self.gnu_name.encode() + b"\0")
        if self.pax is not None:
            records = b"".join(pax_record(key, value) for key, value in self.pax.items())
            yield _special("PaxHeaders/0", tarfile.XHDTYPE, records)
        yield self.header()
        yield from self.content()
        yield bytes(-self.length % TAR_BLOCK)


def _special(name, kind, data):
    return b"".join(Member(name, data, type=kind).pieces())


def pax_record(key, value):
    """"<length of all of it> key=value\\n"."""
    body = b" " + key.encode() + b"=" + value.encode() + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _checked(header):
    """A tar header with its checksum made right again."""
    header = bytearray(header)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def gnu_sparse_member(name, data, hole_at, hole):
    """An old GNU sparse entry: the file is `data` with `hole` zero bytes at hole_at that the archive
    doesn't hold."""
    parts = [(0, hole_at), (hole_at + hole, len(data) - hole_at)]
    header = bytearray(Member(name, data, type=tarfile.GNUTYPE_SPARSE).header())
    header[257:265] = b"ustar  \0"
    header[345:512] = bytes(167)  # no prefix: times, the map, the real size
    for index, (at, length) in enumerate(parts):
        header[386 + 24 * index : 410 + 24 * index] = b"%011o\0%011o\0" % (at, length)
    header[483:495] = b"%011o\0" % (len(data) + hole)
    return Member(name, raw=_checked(header) + data + bytes(-len(data) % TAR_BLOCK))


def pax_sparse_member(name, data, hole_at, hole):
    """The same in PAX format 1.0."""
    parts = [(0, hole_at), (hole_at + hole, len(data) - hole_at)]
    numbers = [len(parts)] + [number for part in parts for number in part]
    sparse_map = b"".join(b"%d\n" % number for number in numbers)
    sparse_map += bytes(-len(sparse_map) % TAR_BLOCK)
    pax = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(len(data) + hole),
    }
    return Member("GNUSparseFile.0/file", sparse_map + data, pax=pax)


def tar_pieces(members, end=(TAR_END,)):
    for member in members:
        yield from member.pieces()
    yield from end


# ---- zstd ----

ZSTD_MAGIC = 0xFD2FB528
_BLOCK_MOST = 128 << 10


def compress(pieces, level=3, window_log=None):
    """One zstd frame of pieces of any total length."""
    command = ["zstd", "-q", "-c", f"-{level}"]
    if level > 19:
        command.insert(1, "--ultra")
    if window_log is not None:
        command.insert(1, f"--zstd=wlog={window_log}")
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output) as process:
            for piece in pieces:
                process.stdin.write(piece)
        if process.returncode != 0:
            raise RuntimeError(f"{command} ended with status {process.returncode}")
        output.seek(0)
        return output.read()


def decompress(data):
    """BadSnapshot for what zstd doesn't take."""
    result = subprocess.run(["zstd", "-q", "-d", "-c"], input=data, capture_output=True, check=False)
    if result.returncode != 0:
        raise BadSnapshot(f"zstd: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout


def raw_frame(pieces, window_log=17):
    """A zstd frame by hand that compresses nothing and declares any window (10 to 41)."""
    data = b"".join(pieces)
    frame = bytearray(struct.pack("<IBB", ZSTD_MAGIC, 0, (window_log - 10) << 3))
    return bytes(frame) + _raw_blocks(data)


def single_segment_frame(pieces, content_size):
    """The same with all of its content as its window: that many bytes, true or not."""
    data = b"".join(pieces)
    head = struct.pack("<IBQ", ZSTD_MAGIC, 0xC0 | 0x20, content_size)
    return head + _raw_blocks(data)


def _raw_blocks(data):
    blocks = bytearray()
    for at in range(0, max(len(data), 1), _BLOCK_MOST):
        piece = data[at : at + _BLOCK_MOST]
        last = at + _BLOCK_MOST >= len(data)
        blocks += struct.pack("<I", len(piece) << 3 | int(last))[:3] + piece
    return bytes(blocks)


def skippable_frame(data=b""):
    return struct.pack("<II", 0x184D2A50, len(data)) + data


def frame_end(data):
    """-> (where the zstd frame at the beginning ends, its window in bytes)"""
    if len(data) < 18:
        raise BadSnapshot(f"{len(data)} bytes")
    magic, descriptor = struct.unpack_from("<IB", data)
    if magic != ZSTD_MAGIC:
        raise BadSnapshot("it doesn't begin with a zstd frame")
    single = descriptor & 0x20
    at = 5
    window = 0
    if not single:
        exponent, mantissa = data[at] >> 3, data[at] & 7
        window = (1 << (10 + exponent)) * (8 + mantissa) // 8
        at += 1
    at += (0, 1, 2, 4)[descriptor & 3]
    size_length = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    if single:
        window = int.from_bytes(data[at : at + size_length], "little")
        window += 256 if size_length == 2 else 0
    at += size_length
    last = False
    while not last:
        if len(data) - at < 3:
            raise BadSnapshot("the zstd frame is cut off")
        head = int.from_bytes(data[at : at + 3], "little")
        last = head & 1
        at += 3 + (1 if head >> 1 & 3 == 1 else head >> 3)
    at += 4 if descriptor & 4 else 0
    if at > len(data):
        raise BadSnapshot("the zstd frame is cut off")
    return at, window


# ---- making ----


def kv_name(number):
    return f"kv/{number:06d}"


def kv_members(records, per_file=None):
    """The kv files of records, in order; per_file: so many records in each."""
    members = []
    data = []
    size = 0
    for record in map(_encoded, records):
        if data and (len(data) == per_file or size + len(record) > MAX_FILE):
            members.append(Member(kv_name(len(members)), b"".join(data)))
            data = []
            size = 0
        data.append(record)
        size += len(record)
    if data:
        members.append(Member(kv_name(len(members)), b"".join(data)))
    return members


def file_row(member):
    """A line of the manifest's files."""
    return {"name": member.name, "size": member.length, "crc32": member.crc}


def _edited(edit, piece):
    """What edit makes of it; an edit that returns nothing has changed it in place."""
    if edit is None:
        return piece
    changed = edit(piece)
    return piece if changed is None else changed


def build_snapshot(
    records,
    snapshot_id=None,
    cluster_id=None,
    wal_offset=None,
    epoch=1,
    wal_crc32=None,
    created_at=None,
    epochs=None,
    per_file=None,
    edit_files=None,
    edit_manifest=None,
    edit_members=None,
    tar_end=(TAR_END,),
    compressor=compress,
    edit_archive=None,
):
    """The bytes of a snapshot.

    records        (key, value, offset[, expires_at]), Record, or bytes that stand where one should
    wal_offset     the highest offset of the records unless given
    epochs         what epochs.json holds: an object, or bytes
    per_file       records in a kv file; as many as fit unless given
    edit_files     gets the Members that the manifest is going to list
    edit_manifest  gets the manifest, an object, and may give bytes
    edit_members   gets all Members, manifest.json the last
    tar_end        pieces behind the last Member
    compressor     gets the tar in pieces
    edit_archive   gets the archive
    """
    records = list(records)
    if wal_offset is None:
        wal_offset = max((item[2] for item in records if isinstance(item, tuple)), default=0)
    if epochs is None:
        epochs = {"epochs": [{"epoch": epoch}]}
    files = kv_members(records, per_file)
    files.append(Member(EPOCHS, epochs if isinstance(epochs, bytes) else json.dumps(epochs).encode()))
    files = _edited(edit_files, files)
    manifest = {
        "id": snapshot_id or str(uuid.uuid4()),
        "format": FORMAT,
        "cluster_id": cluster_id or str(uuid.uuid4()),
        "created_at": wire.now_ms() if created_at is None else created_at,
        "wal_offset": wal_offset,
        "epoch": epoch,
        "records": len(records),
        "files": [file_row(member) for member in files],
    }
    if wal_crc32 is not None:
        manifest["wal_crc32"] = wal_crc32
    manifest = _edited(edit_manifest, manifest)
    if not isinstance(manifest, bytes):
        manifest = json.dumps(manifest).encode()
    members = _edited(edit_members, [*files, Member(MANIFEST, manifest)])
    return _edited(edit_archive, compressor(tar_pieces(members, tar_end)))


# ---- reading ----


def read_snapshot(data):
    """-> (manifest, epochs, [Record]); BadSnapshot for whatever isn't right."""
    end, window = frame_end(data)
    if end != len(data):
        raise BadSnapshot(f"{len(data) - end} bytes behind the zstd frame")
    if window > 1 << 27:
        raise BadSnapshot(f"a window of {window} bytes")
    files = _read_tar(decompress(data))
    if not files or files[-1][0] != MANIFEST:
        raise BadSnapshot("manifest.json isn't the last file")
    manifest = json.loads(files.pop()[1])
    _check_fields(manifest)
    _check_files(manifest, files)
    if not files or files[-1][0] != EPOCHS:
        raise BadSnapshot("epochs.json doesn't follow the records")
    epochs = json.loads(files.pop()[1])
    if not all(isinstance(row["epoch"], int) for row in epochs["epochs"]):
        raise BadSnapshot(f"epochs {epochs}")
    names = [name for name, _ in files]
    if names != [kv_name(number) for number in range(len(names))]:
        raise BadSnapshot(f"files {names}")
    records = [record for _, content in files for record in decode_records(content)]
    _check_records(manifest, records)
    return manifest, epochs, records


def _read_tar(data):
    """[(name, content)] of plain files."""
    files = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for info in tar:
                if info.type != tarfile.REGTYPE or info.mode != 0o600 or info.sparse is not None:
                    raise BadSnapshot(f"{info.name}: type {info.type}, mode {info.mode:o}")
                files.append((info.name, tar.extractfile(info).read()))
            end = tar.offset
    except tarfile.TarError as error:
        raise BadSnapshot(f"tar: {error}") from None
    if any(data[end:]):
        raise BadSnapshot("data behind the tar's end")
    return files


def _check_fields(manifest):
    numbers = ("format", "created_at", "wal_offset", "epoch", "records")
    if not all(isinstance(manifest[name], int) for name in numbers):
        raise BadSnapshot(f"manifest {manifest}")
    if not 0 <= manifest.get("wal_crc32", 0) <= 0xFFFFFFFF:
        raise BadSnapshot(f"wal_crc32 {manifest['wal_crc32']}")
    for field in ("id", "cluster_id"):
        uuid.UUID(manifest[field])


def _check_files(manifest, files):
    rows = [
        {"name": name, "size": len(content), "crc32": zlib.crc32(content)}
        for name, content in files
    ]
    if manifest["files"] != rows:
        raise BadSnapshot(f"the manifest lists {manifest['files']}, there are {rows}")
    if manifest["format"] != FORMAT:
        raise BadSnapshot(f"format {manifest['format']}")
    too_large = [name for name, content in files if len(content) > MAX_FILE]
    if too_large:
        raise BadSnapshot(f"{too_large}: more than {MAX_FILE} bytes")


def _check_records(manifest, records):
    if manifest["records"] != len(records):
        raise BadSnapshot(f"the manifest counts {manifest['records']} records of {len(records)}")
    last = b""
    for record in records:
        if record.key <= last:
            raise BadSnapshot(f"key {record.key!r} behind {last!r}")
        if not 1 <= record.offset <= manifest["wal_offset"]:
            raise BadSnapshot(f"key {record.key!r} of offset {record.offset}")
        last = record.key


# ---- sending ----


@dataclasses.dataclass
class Transfer:
    """An archive as a full sync: SnapshotMeta, chunks, SnapshotComplete.

    known      the totals stand in SnapshotMeta; else they are 0 there, as while it is being made
    meta, complete  fields of those two messages, instead of the true ones
    """

    archive: bytes
    snapshot_id: str
    wal_offset: int
    epoch: int = 1
    chunk_size: int = 64 << 10
    known: bool = True
    meta: dict = dataclasses.field(default_factory=dict)
    complete: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, archive, **options):
        """Of a sound archive, with the id and position that it has."""
        manifest, _, _ = read_snapshot(archive)
        return cls(archive, manifest["id"], manifest["wal_offset"], manifest["epoch"], **options)

    @property
    def count(self):
        return -(-len(self.archive) // self.chunk_size)

    def totals(self):
        return {
            "total_size": len(self.archive),
            "chunk_count": self.count,
            "checksum": zlib.crc32(self.archive),
        }

    def meta_frame(self):
        totals = self.totals() if self.known else dict.fromkeys(self.totals(), 0)
        fields = {
            "snapshot_id": self.snapshot_id,
            "wal_offset": self.wal_offset,
            "epoch": self.epoch,
            **totals,
            **self.meta,
        }
        return wire.build(wire.SNAPSHOT_META, **fields)

    def chunk_frame(self, index, **lies):
        data = self.archive[index * self.chunk_size : (index + 1) * self.chunk_size]
        data = lies.get("data", data)
        fields = {
            "snapshot_id": self.snapshot_id,
            "chunk_index": index,
            "data": data,
            "checksum": zlib.crc32(data),
            **lies,
        }
        return wire.build(wire.SNAPSHOT_CHUNK, **fields)

    def complete_frame(self):
        fields = {
            "snapshot_id": self.snapshot_id,
            "success": True,
            **self.totals(),
            **self.complete,
        }
        return wire.build(wire.SNAPSHOT_COMPLETE, **fields)

    def chunk_frames(self, first=0):
        return [self.chunk_frame(index) for index in range(first, self.count)]

    def frames(self, first=0):
        """All of it in order, the chunks from `first` on."""
        return [self.meta_frame(), *self.chunk_frames(first), self.complete_frame()]

    def first_for(self, hello):
        """The chunk with which a replica that said this goes on."""
        return hello.resume_chunk if hello.resume_snapshot_id == self.snapshot_id else 0


class SnapshotMaster(wire.RawMaster):
    """A master that serves full syncs to a real replica.

        peer, hello = master.offer(transfer)
        master.send(peer, transfer.frames())
        refusal = master.refusal(peer)      or      peer, hello = master.wait_position(offset)
    """

    def __init__(self, port=0, heartbeat_ms=1000, timeout=20.0):
        super().__init__(port, timeout=timeout)
        self.heartbeat_ms = heartbeat_ms

    def hello(self, timeout=None):
        """The next connection that the replica has not given up yet: (peer, its Hello)."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            peer = self.accept(max(deadline - time.monotonic(), 0.001))
            try:
                hello = peer.recv_type(wire.HELLO, max(deadline - time.monotonic(), 0.001))
            except AssertionError:
                continue  # it closed before it said anything
            if not self._is_closed(peer):
                return peer, hello

    @staticmethod
    def _is_closed(peer):
        peer.sock.setblocking(False)  # else Python waits for the socket's timeout
        try:
            return not peer.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def greet(self, peer, **fields):
        """Sends a Welcome."""
        merged = {"cluster_id": self.cluster_id, "epoch": 1, "heartbeat_ms": self.heartbeat_ms}
        peer.send(wire.build_welcome(self.master_id, **{**merged, **fields}))

    def offer(self, transfer, timeout=None, **fields):
        """Welcomes the next connection with a full sync: (peer, its Hello)."""
        peer, hello = self.hello(timeout)
        self.announce(peer, transfer, **fields)
        return peer, hello

    def announce(self, peer, transfer, **fields):
        """The Welcome of a full sync."""
        merged = {
            "requires_full_sync": True,
            "current_wal_offset": transfer.wal_offset,
            "epoch": transfer.epoch,
            **fields,
        }
        self.greet(peer, **merged)

    def send(self, peer, frames, before=None):
        """Sends frames one after the other and answers Pings meanwhile; before(index) is called
        before each. False when the replica has ended the conversation before the last one."""
        for index, frame in enumerate(frames):
            if before is not None:
                before(index)
            if not self.attend(peer):
                return False
            try:
                peer.send(frame)
            except (BrokenPipeError, ConnectionResetError):
                return False
        return self.attend(peer)

    def attend(self, peer, seconds=0.0):
        """Reads what the replica says for that long and answers its Pings; an Error is kept for
        refusal(). False once it has said one or closed."""
        deadline = time.monotonic() + seconds
        while True:
            if getattr(peer, "error", None) is not None or peer.at_end:
                return False
            left = max(deadline - time.monotonic(), 0)
            if not self._has_frame(peer) and not select.select([peer.sock], [], [], left)[0]:
                return True
            try:
                self._take(peer, peer.recv(0.05))
            except TimeoutError:
                pass  # a part of a frame

    @staticmethod
    def _has_frame(peer):
        try:
            wire.decode_frame(peer.buffer)
            return True
        except wire.Incomplete:
            return False

    @staticmethod
    def _take(peer, message):
        if message is None:
            return
        if message.type == wire.ERROR:
            peer.error = message
        elif message.type == wire.PING and message.timestamp:
            try:
                peer.send(wire.build_pong(message.timestamp))
            except OSError:
                pass

    def refusal(self, peer, timeout=None):
        """Waits until the replica ends the conversation: its Error, or None where it just closed."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while self.attend(peer, 0.1):
            if time.monotonic() >= deadline:
                raise AssertionError("the replica neither refuses nor closes")
        error = getattr(peer, "error", None)
        peer.close()
        return error

    def serve(self, transfer, timeout=None, before=None, **fields):
        """Offers and sends a whole transfer, from the chunk on that the replica asks for:
        (peer, its Hello)."""
        peer, hello = self.offer(transfer, timeout, **fields)
        self.send(peer, transfer.frames(transfer.first_for(hello)), before)
        return peer, hello

    def wait_position(self, offset, timeout=None):
        """The connection with which a replica comes back once it stands at that offset: (peer, its
        Hello). Until then the earlier one is served, and what comes with another position is an
        AssertionError."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        old = self.peers[-1] if self.peers else None
        while old is not None and not select.select([self.listener], [], [], 0.05)[0]:
            if not self._is_ended(old):
                self.attend(old)
            if getattr(old, "error", None) is not None:
                raise AssertionError(f"Error {old.error.code} {old.error.message!r}")
            if time.monotonic() >= deadline:
                raise AssertionError(f"the replica doesn't come back with offset {offset}")
        peer, hello = self.hello(max(deadline - time.monotonic(), 0.001))
        if hello.last_wal_offset != offset:
            raise AssertionError(f"the replica stands at {hello.last_wal_offset}, not at {offset}")
        return peer, hello

    @staticmethod
    def _is_ended(peer):
        return peer.at_end or peer.sock.fileno() < 0
