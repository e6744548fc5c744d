"""Reads the write-ahead log of a data directory from disk, independent of the server's own code.

    segment  <first offset, 20 digits>.wal: "NXWAL\\0\\0\\1", cluster_id 16 bytes, first offset u64,
             epoch u64, crc32 u32; then WalEntry frames
    durable  epoch u64, offset u64, crc u32; mode u8, epoch u64, quorum offset u64; crc32 u32

The log ends where a frame doesn't fit: length, type or CRC wrong, offset not the next, epoch lower
than the last, prev_crc not the CRC of the frame before.
"""

import contextlib
import dataclasses
import os
import re
import struct
import zlib

from nexus_wire import MAX_ENTRY_FRAME, WAL_ENTRY, BadFrame, decode_entry

MAGIC = b"NXWAL\0\0\1"
_SEGMENT = struct.Struct("<8s16sQQI")
_MARK = struct.Struct("<QQIBQQI")
_HEAD = struct.Struct("<BIIQQI")  # type, length, variant, offset, epoch, prev_crc

HEADER_SIZE = _SEGMENT.size
MARK_SIZE = _MARK.size
FRAME_OVERHEAD = 9
ENTRY_HEAD = 41  # up to the operations

READ_TRIES = 10  # of a log that goes while it is read


@dataclasses.dataclass
class SegmentHeader:
    cluster_id: bytes
    first_offset: int
    epoch: int

    def encode(self):
        body = struct.pack("<8s16sQQ", MAGIC, self.cluster_id, self.first_offset, self.epoch)
        return body + struct.pack("<I", zlib.crc32(body))


@dataclasses.dataclass
class Mark:
    """wal/durable: the last synced frame, and what was last heard of the quorum."""

    epoch: int
    offset: int
    crc: int
    mode: int  # 0 async, 1 sync
    quorum_epoch: int
    quorum_offset: int

    def encode(self):
        body = struct.pack("<QQIBQQ", *dataclasses.astuple(self))
        return body + struct.pack("<I", zlib.crc32(body))


@dataclasses.dataclass
class Frame:
    offset: int
    epoch: int
    prev_crc: int
    crc: int
    raw: bytes
    path: str  # of the segment
    at: int  # where in it the frame begins

    @property
    def end(self):
        return self.at + len(self.raw)

    def entry(self):
        """Decoded, with its operations."""
        return decode_entry(self.raw)


def segment_name(first_offset):
    return f"{first_offset:020d}.wal"


def list_segments(wal_dir):
    """[(first offset, path)], ascending."""
    found = []
    for name in os.listdir(wal_dir):
        match = re.fullmatch(r"([0-9]{20})\.wal", name)
        if match:
            found.append((int(match.group(1)), os.path.join(wal_dir, name)))
    return sorted(found)


def free_segments(wal_dir):
    """Paths of the prepared free-<n> files."""
    names = [name for name in os.listdir(wal_dir) if re.fullmatch(r"free-[0-9]+", name)]
    return [os.path.join(wal_dir, name) for name in sorted(names)]


def read_header(path):
    """SegmentHeader of a file; BadFrame when it has none."""
    with open(path, "rb") as file:
        data = file.read(HEADER_SIZE)
    if len(data) < HEADER_SIZE:
        raise BadFrame(f"{path}: {len(data)} bytes, a header has {HEADER_SIZE}")
    magic, cluster_id, first_offset, epoch, crc = _SEGMENT.unpack(data)
    if magic != MAGIC or crc != zlib.crc32(data[:-4]):
        raise BadFrame(f"{path}: no segment header")
    return SegmentHeader(cluster_id, first_offset, epoch)


def read_mark(wal_dir):
    """Mark, or None where there is no file; BadFrame when it is damaged."""
    try:
        with open(os.path.join(wal_dir, "durable"), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    if len(data) != MARK_SIZE:
        raise BadFrame(f"durable: {len(data)} bytes, expected {MARK_SIZE}")
    *fields, crc = _MARK.unpack(data)
    if crc != zlib.crc32(data[:-4]):
        raise BadFrame("durable: wrong CRC")
    return Mark(*fields)


def frame_at(data, at, path=""):
    """The frame that stands at a place of a segment's bytes, by itself (type, length, CRC); None
    where none does."""
    if len(data) - at < ENTRY_HEAD + 4:
        return None
    kind, length, variant, offset, epoch, prev_crc = _HEAD.unpack_from(data, at)
    total = length + FRAME_OVERHEAD
    if kind != WAL_ENTRY or variant != 4 or not ENTRY_HEAD + 4 <= total <= MAX_ENTRY_FRAME:
        return None
    if total > len(data) - at:
        return None
    raw = bytes(data[at : at + total])
    (crc,) = struct.unpack_from("<I", raw, total - 4)
    if crc != zlib.crc32(raw[:-4]):
        return None
    return Frame(offset, epoch, prev_crc, crc, raw, path, at)


class LogReader:
    """Goes through the frames of a log.

    after an iteration: `last` the last Frame or None, `end_path` and `end_at` the place where the
    log ended, `end_reason` why."""

    def __init__(self, wal_dir):
        self.wal_dir = wal_dir
        self.last = None
        self.end_path = None
        self.end_at = 0
        self.end_reason = "there is no segment"

    def __iter__(self):
        for first_offset, path in list_segments(self.wal_dir):
            if self.last is not None and first_offset != self.last.offset + 1:
                break
            try:
                header = read_header(path)
            except BadFrame as error:
                self.end_path, self.end_at, self.end_reason = path, 0, str(error)
                break
            if header.first_offset != first_offset:
                self.end_path, self.end_at = path, 0
                self.end_reason = f"header of offset {header.first_offset} in {path}"
                break
            yield from self._segment(path, first_offset)

    def _segment(self, path, first_offset):
        with open(path, "rb") as file:
            data = memoryview(file.read())
        at = HEADER_SIZE
        while True:
            frame = frame_at(data, at, path)
            fault = "no frame" if frame is None else self._misfit(frame, first_offset)
            if fault:
                self.end_path, self.end_at, self.end_reason = path, at, fault
                return
            self.last = frame
            yield frame
            at = frame.end

    def _misfit(self, frame, first_offset):
        """Why a sound frame doesn't continue the log; None when it does."""
        if self.last is None:
            if frame.offset != first_offset:
                return f"offset {frame.offset}, expected {first_offset}"
            if frame.offset == 1 and frame.prev_crc != 0:
                return f"prev_crc {frame.prev_crc:08x} of the first entry"
            return None
        if frame.offset != self.last.offset + 1:
            return f"offset {frame.offset}, expected {self.last.offset + 1}"
        if frame.epoch < self.last.epoch:
            return f"epoch {frame.epoch} behind epoch {self.last.epoch}"
        if frame.prev_crc != self.last.crc:
            return f"prev_crc {frame.prev_crc:08x}, expected {self.last.crc:08x}"
        return None


def read_log(wal_dir):
    """All frames of the log, in order.

    Of a node that runs, a segment that was listed may be gone when it is opened: a full sync that ends has
    `current` point at other data and gives the old ones another name, or, with a small max_log_size, the
    checkpointer took the segment away. So what `current` points at is read, not half of the one and half of
    the other, and from the beginning when it is gone."""
    for _ in range(READ_TRIES - 1):
        with contextlib.suppress(FileNotFoundError):
            return list(LogReader(os.path.realpath(wal_dir)))
    return list(LogReader(os.path.realpath(wal_dir)))


def log_state(frames):
    """{key: value} that the entries of a whole log leave behind (expiry aside)."""
    state = {}
    for frame in frames:
        for op in frame.entry().ops:
            if op.kind == 1:
                state[op.key] = op.value
            elif op.kind == 2:
                state.pop(op.key, None)
    return state
