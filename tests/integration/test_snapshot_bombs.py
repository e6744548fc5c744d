# timeout: 300
"""Small archives that would be large: refused like any that is wrong, in bounded memory and disk space."""

import concurrent.futures
import tarfile
import unittest

import snapshots
from nexus_test import SANITIZED, NexusTestCase
from snapshots import EPOCHS, MANIFEST, Member, encode_record, kv_name
from victims import Victim, Watch, counted, replace_last_kv, sent

MIB = 1 << 20
GIB = 1 << 30
MOST = 256 * MIB  # of memory or disk


def large_kv_file(files):
    """65 records of a MiB each in one file, right but for its size."""
    records = [encode_record(b"x%02d" % number, bytes(MIB), 100) for number in range(65)]
    return files[:3] + [Member(kv_name(3), b"".join(records)), *files[3:]]


def before_last_kv(kind):
    """A header of a GiB for the entry behind it."""
    header = Member("header", zeros=GIB, type=kind)
    return {"edit_members": lambda members: members[:2] + [header] + members[2:]}


BOMBS = {
    "2 GiB of zeros as a kv file": replace_last_kv(lambda kv: Member(kv.name, zeros=2 * GIB)),
    "2 GiB of zeros as epochs.json": {
        "edit_files": lambda files: files[:-1] + [Member(EPOCHS, zeros=2 * GIB)],
    },
    "1 GiB of zeros as the manifest": {
        "edit_members": lambda members: members[:-1] + [Member(MANIFEST, zeros=GIB)],
    },
    "2 GiB of zeros behind the tar's end": {
        "tar_end": (snapshots.TAR_END, *[bytes(MIB)] * 2048),
    },
    "a PAX header of 1 GiB": before_last_kv(tarfile.XHDTYPE),
    "a global PAX header of 1 GiB": before_last_kv(tarfile.XGLTYPE),
    "a GNU long name of 1 GiB": before_last_kv(tarfile.GNUTYPE_LONGNAME),
    "a GNU long link of 1 GiB": before_last_kv(tarfile.GNUTYPE_LONGLINK),
    "180 MiB of records, the last one wrong, with a window of 128 MiB": {
        "records": [(b"k%02d" % number, bytes(15 * MIB), 100) for number in range(12)]
        + [encode_record(b"x", b"x", 100, flags=4)],
        "compressor": lambda pieces: snapshots.compress(pieces, window_log=27),
    },
    "a kv file of 65 MiB": {"edit_files": large_kv_file, "edit_manifest": counted(95)},
}


class Bombs(NexusTestCase):
    def test_bombs(self):
        victim = Victim("bombed", **{"replication.heartbeat_ms": 5000})
        self.addCleanup(victim.cleanup)
        self.addCleanup(self._show_log, victim.replica)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            transfers = pool.map(lambda arguments: sent(victim, arguments), BOMBS.values())
        victim.start()
        for name, transfer in zip(BOMBS, transfers):
            with self.subTest(name):
                self.assertLess(len(transfer.archive), MIB)
                with Watch(victim.replica) as watch:
                    victim.endure(transfer)
                self.assertLess(watch.disk, MOST)
                if not SANITIZED:
                    self.assertLess(watch.most, MOST, watch.memory)
                victim.session()


if __name__ == "__main__":
    unittest.main()
