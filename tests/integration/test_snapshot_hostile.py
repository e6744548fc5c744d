# timeout: 300
"""Archives that must not replace anything: each comes as a full sync and is refused with one line in the
log; the data that the replica had stay, nothing is left behind, and the next sound session goes on."""

import io
import json
import os
import struct
import tarfile
import unittest
import zipfile
import zlib

import snapshots
from snapshots import MANIFEST, Member, encode_record, kv_name
from victims import NEW_OFFSET, OTHER_ID, OUTSIDE, RECORDS, Attacks, counted, replace_last_kv, sent

MIB = 1 << 20
GIB = 1 << 30


# ---- records: all CRCs are right ----


def with_record(index, *replacement):
    """The records with others in the place of one."""
    records = list(RECORDS)
    records[index : index + 1] = replacement
    return records


def exchanged(index):
    """The records with two neighbours in the wrong order."""
    records = list(RECORDS)
    records[index], records[index + 1] = records[index + 1], records[index]
    return records


def over_two_files(files):
    """The last record of the first file ends in the second one."""
    cut = files[0].data[-5:]
    files[0] = Member(files[0].name, files[0].data[:-5])
    files[1] = Member(files[1].name, cut + files[1].data)


BAD_RECORDS = {
    "keys out of order": {"records": exchanged(4)},
    "keys out of order over two files": {"records": exchanged(9)},
    "a key twice": {"records": with_record(5, RECORDS[5], RECORDS[5])},
    "a key twice over two files": {"records": with_record(9, RECORDS[9], RECORDS[9])},
    "a key of 0 bytes": {"records": with_record(0, encode_record(b"", b"x", 100))},
    "a key of 512 bytes": {
        "records": with_record(29, encode_record(b"x" * 512, b"x", 100)),
    },
    "a key of 65,535 bytes": {
        "records": with_record(29, encode_record(b"x" * 65535, b"x", 100)),
    },
    "a key beyond the file": {
        "records": with_record(29, encode_record(b"x", b"", 100, key_length=500)),
    },
    "a value beyond the file": {
        "records": with_record(29, encode_record(b"x", b"x", 100, value_length=1000)),
    },
    "a value of 4 GiB": {
        "records": with_record(29, encode_record(b"x", b"x", 100, value_length=0xFFFFFFFF)),
    },
    "a value of 15 MiB and a byte": {
        "records": with_record(29, encode_record(b"x", bytes(15 * MIB + 1), 100)),
    },
    "flag 4": {"records": with_record(5, encode_record(*RECORDS[5], flags=4))},
    "flag 0x80": {"records": with_record(5, encode_record(*RECORDS[5], flags=0x80))},
    "the flag of a delete": {"records": with_record(5, encode_record(*RECORDS[5], flags=2))},
    "an expiry beyond the file": {
        "records": with_record(29, encode_record(b"x", b"", 100, flags=1)),
    },
    "an offset above wal_offset": {"records": with_record(5, (b"new005", b"x", NEW_OFFSET + 1))},
    "the largest offset": {"records": with_record(5, (b"new005", b"x", (1 << 64) - 1))},
    "offset 0": {"records": with_record(5, (b"new005", b"x", 0))},
    "a head that is cut off": {"records": with_record(29, RECORDS[29], bytes(7))},
    "a record over two files": {"edit_files": over_two_files},
}


# ---- manifest.json ----


def having(**fields):
    """A manifest with these fields; None: without."""

    def edit(manifest):
        for name, value in fields.items():
            if value is None:
                del manifest[name]
            else:
                manifest[name] = value

    return edit


def first_file(**fields):
    def edit(manifest):
        manifest["files"][0].update(fields)

    return edit


def edit_rows(edit):
    """A manifest whose list of files is edited in place."""
    return lambda manifest: edit(manifest["files"])


def swap_rows(rows):
    rows[0], rows[1] = rows[1], rows[0]


BAD_MANIFESTS = {
    "one record more": having(records=31),
    "one record less": having(records=29),
    "a size larger by one": lambda manifest: first_file(size=manifest["files"][0]["size"] + 1)(
        manifest
    ),
    "a size of 0": first_file(size=0),
    "a size of -1": first_file(size=-1),
    "a size that is a text": first_file(size="1"),
    "a wrong crc32": lambda manifest: first_file(crc32=manifest["files"][0]["crc32"] ^ 1)(manifest),
    "a wrong crc32 of epochs.json": lambda manifest: manifest["files"][-1].update(crc32=1),
    "a crc32 that is a text": first_file(crc32="00000000"),
    "a crc32 of 33 bits": lambda manifest: first_file(
        crc32=manifest["files"][0]["crc32"] + (1 << 32)
    )(manifest),
    "a file that is not there": edit_rows(
        lambda rows: rows.insert(3, {"name": kv_name(3), "size": 0, "crc32": 0})
    ),
    "a file that it lacks": edit_rows(lambda rows: rows.pop(2)),
    "a file twice": edit_rows(lambda rows: rows.insert(1, dict(rows[0]))),
    "files in another order": edit_rows(swap_rows),
    "no files": having(files=[]),
    "files that are no list": having(files={}),
    "files that are numbers": having(files=[1, 2, 3, 4]),
    "another name": first_file(name="kv/../kv/000000"),
    "a higher wal_offset": having(wal_offset=NEW_OFFSET + 1),
    "a lower wal_offset": having(wal_offset=NEW_OFFSET - 1),
    "wal_offset 0": having(wal_offset=0),
    "a wal_offset that is a fraction": having(wal_offset=NEW_OFFSET + 0.5),
    "a negative wal_offset": having(wal_offset=-1),
    "a higher epoch": having(epoch=2),
    "epoch 0": having(epoch=0),
    "another id": having(id=OTHER_ID),
    "an id that is none": having(id="../../x"),
    "another cluster": having(cluster_id=OTHER_ID),
    "no cluster": having(cluster_id=""),
    "format 2": having(format=2),
    "format 0": having(format=0),
    "a format that is a text": having(format="1"),
    "a wal_crc32 that is a text": having(wal_crc32="1"),
    "a wal_crc32 of 33 bits": having(wal_crc32=1 << 32),
    **{
        f"no {name}": having(**{name: None})
        for name in ("id", "format", "cluster_id", "wal_offset", "epoch", "records", "files")
    },
    "not JSON": lambda _: b"id = 1",
    "empty": lambda _: b"",
    "a list": lambda manifest: json.dumps([manifest]).encode(),
    "two objects": lambda manifest: json.dumps(manifest).encode() * 2,
    "cut off": lambda manifest: json.dumps(manifest).encode()[:-1],
    "a NUL behind it": lambda manifest: json.dumps(manifest).encode() + b"\0",
    "no UTF-8": lambda manifest: json.dumps(manifest).encode().replace(b'"id"', b'"\xff"'),
    "100,000 lists in each other": lambda _: b"[" * 100000 + b"]" * 100000,
    "32 MiB of blanks": lambda manifest: bytes(32 * MIB).replace(b"\0", b" ")
    + json.dumps(manifest).encode(),
}


# ---- epochs.json ----

BAD_EPOCHS = {
    "epochs: not JSON": b"epochs",
    "epochs: empty": b"",
    "epochs: a list": [{"epoch": 1}],
    "epochs: no list": {"epochs": {"epoch": 1}},
    "epochs: a text for a number": {"epochs": [{"epoch": "1"}]},
    "epochs: numbers in the list": {"epochs": [1]},
    "epochs: 16 MiB of blanks": b" " * (16 * MIB) + b'{"epochs":[{"epoch":1}]}',
}


# ---- the tar ----


def extra(name, **fields):
    """One more file, sound but for its name, known to the manifest."""
    member = Member(name, encode_record(b"x", b"", 100), **fields)
    return {
        "edit_files": lambda files: files[:3] + [member] + files[3:],
        "edit_manifest": counted(31 if name.startswith("kv/") else 30),
    }


def in_tar(edit):
    """An edit of all Members that the manifest knows nothing of."""
    return {"edit_members": edit}


def special(kind, **fields):
    """Something else than a file, without records, as the manifest says."""
    return {
        **replace_last_kv(lambda kv: Member(kv.name, type=kind, **fields)),
        "edit_manifest": counted(20),
    }


def as_sparse(make):
    """kv/000003 with a value of zeros, most of which the archive doesn't hold."""
    whole = encode_record(b"x", bytes(8192), 100)
    sparse = make(kv_name(3), whole[:512] + whole[4608:], 512, 4096)

    def edit_manifest(manifest):
        manifest["records"] = 31
        row = {"name": kv_name(3), "size": len(whole), "crc32": zlib.crc32(whole)}
        manifest["files"].insert(3, row)

    return {
        "edit_manifest": edit_manifest,
        "edit_members": lambda members: members[:3] + [sparse] + members[3:],
    }


def bad_checksum(kv):
    raw = bytearray(b"".join(kv.pieces()))
    raw[100] ^= 1
    return Member(kv.name, raw=bytes(raw))


def base256_size(kv):
    """A header that claims 2^62 bytes."""
    header = bytearray(kv.header())
    header[124:136] = b"\x80" + (1 << 62).to_bytes(11, "big")
    return Member(kv.name, raw=snapshots._checked(header) + kv.data)  # pylint: disable=W0212


ESCAPES = (
    "../x", "kv/../x", "kv/../../x", "kv/../../../../../../../../" + OUTSIDE, OUTSIDE, "/", "..",
    "./kv/000003", "kv//000003", "/kv/000003", "kv/000003/", "../../data-1/identity",
)  # fmt: skip
STRANGE_NAMES = (
    "kv/readme", "kv/3", "kv/0000003", "kv/00000a", "KV/000003", "kv/000004", "kv/000002",
    "data.mdb", "kv/data.mdb", "kv", "kv/000003\n", "manifest.json", "epochs.json", "k" * 100,
)  # fmt: skip

BAD_TARS = {
    **{f"a file named {name!r:.60}": extra(name) for name in ESCAPES + STRANGE_NAMES},
    "a name of 4 KiB (GNU)": extra("kv/long", gnu_name="kv/" + "n" * 4096),
    "a name of 4 KiB (PAX)": extra("kv/long", pax={"path": "kv/" + "n" * 4096}),
    "no manifest": in_tar(lambda members: members[:-1]),
    "the manifest first": in_tar(lambda members: members[-1:] + members[:-1]),
    "a kv file behind the manifest": in_tar(
        lambda members: members[:2] + members[3:] + members[2:3]
    ),
    "the manifest twice": in_tar(lambda members: members + members[-1:]),
    "a file behind the manifest": in_tar(lambda members: members + [Member(kv_name(3), b"")]),
    "no epochs.json": {"edit_files": lambda files: files[:-1]},
    "no epochs.json though it is listed": in_tar(lambda members: members[:-2] + members[-1:]),
    "epochs.json first": {"edit_files": lambda files: files[-1:] + files[:-1]},
    "epochs.json behind the manifest": in_tar(
        lambda members: members[:-2] + [members[-1], members[-2]]
    ),
    "no kv file of those listed": in_tar(lambda members: members[3:]),
    "kv files in another order": {
        "edit_files": lambda files: [files[1], files[0], *files[2:]],
    },
    "kv files that begin at 1": {
        "edit_files": lambda files: [
            Member(kv_name(number + 1), files[number].data) for number in range(3)
        ]
        + files[3:],
    },
    "a gap in the kv files": {"edit_files": lambda files: [files[0], *files[2:]]},
    "a kv file twice": in_tar(lambda members: members[:1] + members),
    "a symbolic link": special(tarfile.SYMTYPE, linkname=kv_name(1)),
    "a symbolic link to the outside": special(tarfile.SYMTYPE, linkname=OUTSIDE),
    "a directory behind a symbolic link": in_tar(
        lambda members: [Member("kv", type=tarfile.SYMTYPE, linkname=OUTSIDE), *members]
    ),
    "a symbolic link for the manifest": in_tar(
        lambda members: members[:-1]
        + [Member(MANIFEST, type=tarfile.SYMTYPE, linkname="/dev/zero")]
    ),
    "a hard link": special(tarfile.LNKTYPE, linkname=kv_name(1)),
    "a hard link with data": replace_last_kv(
        lambda kv: Member(kv.name, kv.data, type=tarfile.LNKTYPE, linkname=kv_name(1))
    ),
    "a hard link to the outside": special(tarfile.LNKTYPE, linkname="../../nexus.id"),
    "a FIFO": special(tarfile.FIFOTYPE),
    "a character device": special(tarfile.CHRTYPE, device=(1, 5)),
    "a block device": special(tarfile.BLKTYPE, device=(254, 0)),
    "a directory": special(tarfile.DIRTYPE),
    "a directory before its files": in_tar(
        lambda members: [Member("kv/", type=tarfile.DIRTYPE, mode=0o700), *members]
    ),
    "mode 4600": replace_last_kv(lambda kv: Member(kv.name, kv.data, mode=0o4600)),
    "a sparse file (GNU)": as_sparse(snapshots.gnu_sparse_member),
    "a sparse file (PAX)": as_sparse(snapshots.pax_sparse_member),
    "a PAX header with another name": replace_last_kv(
        lambda kv: Member(kv.name, kv.data, pax={"path": "../../x"})
    ),
    "a PAX header with the next name": replace_last_kv(
        lambda kv: Member(kv.name, kv.data, pax={"path": kv_name(3)})
    ),
    "a PAX header with a smaller size": replace_last_kv(
        lambda kv: Member(kv.name, kv.data, pax={"size": "20"})
    ),
    "a PAX header with a larger size": replace_last_kv(
        lambda kv: Member(kv.name, kv.data, pax={"size": str(4 * GIB)})
    ),
    "a PAX header of 2 MiB": replace_last_kv(
        lambda kv: Member(kv.name, kv.data, pax={"comment": "x" * 2 * MIB})
    ),
    "a header with a wrong checksum": in_tar(
        lambda members: members[:2] + [bad_checksum(members[2])] + members[3:]
    ),
    "a size beyond the archive": replace_last_kv(
        lambda kv: Member(kv.name, kv.data, size=32 * MIB)
    ),
    "a size of 2^62": in_tar(
        lambda members: members[:2] + [base256_size(members[2])] + members[3:]
    ),
    "something behind its end": {"tar_end": (snapshots.TAR_END, b"x" * 512)},
    "a second tar behind its end": {
        "tar_end": (snapshots.TAR_END, *Member(kv_name(3), b"x").pieces(), snapshots.TAR_END),
    },
    "a symbolic link behind its end": {
        "tar_end": (
            snapshots.TAR_END,
            *Member("kv", type=tarfile.SYMTYPE, linkname=OUTSIDE).pieces(),
            snapshots.TAR_END,
        ),
    },
}


# ---- zstd ----


def at_end(data):
    return {"edit_archive": lambda archive: archive + data}


def flip(archive, at):
    archive = bytearray(archive)
    archive[at] ^= 0x10
    return bytes(archive)


def gzip_inside(pieces):
    packer = zlib.compressobj(wbits=31)
    return snapshots.compress([packer.compress(b"".join(pieces)), packer.flush()])


def zip_inside(pieces):
    """The same files as a zip."""
    output = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        with zipfile.ZipFile(output, "w") as archive:
            for info in tar:
                archive.writestr(info.name, tar.extractfile(info).read())
    return snapshots.compress([output.getvalue()])


def with_dictionary(pieces):
    """A frame that asks for dictionary 7."""
    frame = snapshots.raw_frame(pieces)
    return frame[:4] + b"\x01" + frame[5:6] + b"\x07" + frame[6:]


BAD_FRAMES = {
    "cut off in the middle": {"edit_archive": lambda archive: archive[: len(archive) // 2]},
    "the last byte is missing": {"edit_archive": lambda archive: archive[:-1]},
    "a byte behind it": at_end(b"x"),
    "zeros behind it": at_end(bytes(1000)),
    "a second frame": at_end(snapshots.compress([snapshots.TAR_END])),
    "an empty second frame": at_end(snapshots.compress([])),
    "itself again": {"edit_archive": lambda archive: archive * 2},
    "a skippable frame behind it": at_end(snapshots.skippable_frame(b"x" * 100)),
    "a skippable frame before it": {
        "edit_archive": lambda archive: snapshots.skippable_frame(b"x" * 100) + archive,
    },
    "a skippable frame of 4 GiB behind it": at_end(struct.pack("<II", 0x184D2A50, 0xFFFFFFFF)),
    "in two frames": {
        "compressor": lambda pieces: (
            lambda data: snapshots.compress([data[:3000]]) + snapshots.compress([data[3000:]])
        )(b"".join(pieces)),
    },
    "a flipped bit in the middle": {
        "edit_archive": lambda archive: flip(archive, len(archive) // 2),
    },
    "a flipped bit in its checksum": {"edit_archive": lambda archive: flip(archive, -1)},
    "a window of 2 GiB": {"compressor": lambda pieces: snapshots.raw_frame(pieces, 31)},
    "a window of 2 TiB": {"compressor": lambda pieces: snapshots.raw_frame(pieces, 41)},
    "a single segment of 2 GiB": {
        "compressor": lambda pieces: snapshots.single_segment_frame(pieces, 2 * GIB),
    },
    "a single segment of 2^63 bytes": {
        "compressor": lambda pieces: snapshots.single_segment_frame(pieces, 1 << 63),
    },
    "a dictionary": {"compressor": with_dictionary},
    "a plain tar": {"compressor": b"".join},
    "a tar.gz": {
        "compressor": lambda pieces: zlib.compress(b"".join(pieces), wbits=31),
    },
    "a gzip inside": {"compressor": gzip_inside},
    "a zip inside": {"compressor": zip_inside},
    "nothing inside": {"compressor": lambda _: snapshots.compress([])},
    "an empty tar": {"edit_members": lambda _: []},
    "garbage": {"edit_archive": lambda archive: os.urandom(len(archive))},
    "one byte": {"edit_archive": lambda _: b"\x28"},
}


class Hostile(Attacks):
    def test_01_records(self):
        self.attack(BAD_RECORDS, lambda victim, case: victim.endure(sent(victim, case)))

    def test_02_manifests(self):
        cases = {name: {"edit_manifest": edit} for name, edit in BAD_MANIFESTS.items()}
        cases.update((name, {"epochs": epochs}) for name, epochs in BAD_EPOCHS.items())
        self.attack(cases, lambda victim, case: victim.endure(sent(victim, case)))

    def test_03_tars(self):
        self.attack(BAD_TARS, lambda victim, case: victim.endure(sent(victim, case)))

    def test_04_frames(self):
        self.attack(BAD_FRAMES, lambda victim, case: victim.endure(sent(victim, case)))


if __name__ == "__main__":
    unittest.main()
