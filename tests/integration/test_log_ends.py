"""What may stand behind the end of a log after a crash, and damage inside it, met by real servers."""
import os
import unittest

import nexus_wire as wire
import wal_files
from nexus_test import NexusTestCase

ENTRIES = 20


def put(number):
    return [wire.put_op(b"invented%d" % number, b"x" * 50)]


def forged_ends(last):
    """name -> (the bytes behind the last synced frame, how many of its entries are good).

    Entries that are whole and chained were written and may be kept: nobody was answered, but they are
    no invention. What follows the first bad frame never counts."""
    crc_of = lambda frame: int.from_bytes(frame[-4:], "little")
    good = wire.encode_entry(last.offset + 1, last.epoch, last.crc, put(1))
    second = wire.encode_entry(last.offset + 2, last.epoch, crc_of(good), put(2))
    flipped = bytearray(good)
    flipped[60] ^= 1
    return {
        "zeros": (bytes(4096), 0),
        "a stale frame of a recycled segment": (wire.encode_entry(3, last.epoch, 7, put(1)), 0),
        "the same frame again": (last.raw, 0),
        "a wrong offset": (wire.encode_entry(last.offset + 2, last.epoch, last.crc, put(1)), 0),
        "a lower epoch": (wire.encode_entry(last.offset + 1, last.epoch - 1, last.crc, put(1)), 0),
        "a bad CRC": (bytes(flipped), 0),
        "a wrong prev_crc": (wire.encode_entry(last.offset + 1, last.epoch, last.crc ^ 1, put(1)), 0),
        "a short header": (good[:20], 0),
        "a frame cut short": (good[:-9], 0),
        "a group across the cut": (good + second[:30], 1),
        "a group with a hole": (bytes(512) + second, 0),
        "garbage": (os.urandom(3000), 0),
    }


class LogEnds(NexusTestCase):
    def setUp(self):
        self.node_ = self.node("master", settings={"wal.segment_size": "1MiB"})
        for i in range(ENTRIES):
            self.node_.put(f"k{i}", b"v%d" % i)
        self.node_.kill_all()
        self.wal_dir = self.node_.wal_dir

    def overwrite(self, path, at, data):
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(data)

    def test_a_forged_end_is_cut_and_nothing_else(self):
        expected = {f"k{i}" for i in range(ENTRIES)}
        for name in forged_ends(wal_files.read_log(self.wal_dir)[-1]):
            with self.subTest(name):
                last = wal_files.read_log(self.wal_dir)[-1]
                data, kept = forged_ends(last)[name]
                self.overwrite(last.path, last.end, data)
                node = self.node_.start()
                expected |= {f"invented{i + 1}" for i in range(kept)}
                self.assertEqual(node.status()["wal_offset"], last.offset + kept)
                self.assertEqual(set(node.versions()), expected)
                offset = node.put("after", name.encode())  # the log goes on where it was cut
                self.assertEqual(offset, last.offset + kept + 1)
                expected.add("after")
                node.kill_all()
                frames = wal_files.read_log(self.wal_dir)
                self.assertEqual([frame.offset for frame in frames], list(range(1, offset + 1)))

    def test_damage_below_the_mark_is_refused_and_named(self):
        frames = wal_files.read_log(self.wal_dir)
        damaged = frames[ENTRIES // 2]
        with open(damaged.path, "rb") as file:
            before = file.read()
        self.overwrite(damaged.path, damaged.end - 6, b"\xff")
        self.node_.launch()
        self.assertEqual(self.node_.wait_exit(), 1)
        log = self.node_.log()
        self.assertIn(os.path.basename(damaged.path), log)
        self.assertRegex(log, rf"\b{damaged.at}\b")
        self.assertRegex(log, rf"\b{damaged.offset}\b")
        self.overwrite(damaged.path, 0, before)  # nothing else was changed by the refusal
        self.node_.start()
        self.assertEqual(self.node_.status()["wal_offset"], ENTRIES)


if __name__ == "__main__":
    unittest.main()
