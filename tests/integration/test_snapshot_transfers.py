# timeout: 300
"""Full syncs whose conversation is wrong must change nothing; those that are right are taken whole, gone
on with after a cut, and kept over restarts."""

import base64
import dataclasses
import json
import os
import struct
import unittest
import uuid

import nexus_wire as wire
import snapshots
from nexus_test import NexusTestCase
from snapshots import Transfer, build_snapshot
from victims import NEW_OFFSET, OTHER_ID, OUTSIDE, Attacks, Victim, sent

MIB = 1 << 20


# ---- wrong ones: the archive is sound ----


def corrupt(frame, at=-6):
    frame = bytearray(frame)
    frame[at] ^= 0x10
    return bytes(frame)


def put_frame(offset):
    return wire.encode_entry(offset, 1, 7, [wire.put_op(b"evil", b"x")])


def flipped_chunk(transfer):
    data = corrupt(transfer.archive[: transfer.chunk_size])
    return transfer.chunk_frame(0, data=data)


def at(index, *replacement):
    """Frames with others in the place of one: 0 is SnapshotMeta, 1 the first chunk, -1 is
    SnapshotComplete. A replacement may be a function of the Transfer."""

    def edit(transfer):
        frames = transfer.frames()
        end = index + 1 or len(frames)
        frames[index:end] = [
            frame if isinstance(frame, bytes) else frame(transfer) for frame in replacement
        ]
        return frames

    return edit


def one_too_many(transfer):
    """A chunk behind SnapshotComplete, in one piece with it."""
    frames = transfer.frames()
    last = transfer.chunk_frame(transfer.count, data=b"more")
    return [*frames[:-2], frames[-2] + frames[-1] + last]


META = Transfer.meta_frame
COMPLETE = Transfer.complete_frame


def chunk(index, **lies):
    return lambda transfer: transfer.chunk_frame(index, **lies)


BAD_CONVERSATIONS = {
    "a chunk with a wrong CRC": at(1, chunk(0, checksum=1)),
    "a flipped bit with the chunk's CRC right": at(1, flipped_chunk),
    "the first chunk is missing": at(1),
    "a chunk is missing": at(2),
    "the last chunk is missing": at(-2),
    "a chunk twice": at(2, chunk(1), chunk(1)),
    "two chunks in the wrong order": at(2, chunk(2), chunk(1), chunk(3)),
    "chunk 0xFFFFFFFF": at(1, chunk(0, chunk_index=0xFFFFFFFF)),
    "chunks that begin at 1": lambda transfer: [
        transfer.meta_frame(),
        *[transfer.chunk_frame(i, chunk_index=i + 1) for i in range(transfer.count)],
        transfer.complete_frame(),
    ],
    "a chunk of another snapshot": at(2, chunk(1, snapshot_id=OTHER_ID)),
    "a chunk with no id": at(2, chunk(1, snapshot_id="")),
    "a chunk before SnapshotMeta": at(0, chunk(0), META),
    "no SnapshotMeta": at(0),
    "SnapshotMeta twice": at(0, META, META),
    "another SnapshotMeta in the middle": at(
        2, lambda transfer: Transfer(transfer.archive, OTHER_ID, NEW_OFFSET).meta_frame()
    ),
    "SnapshotComplete at once": at(1, COMPLETE),
    "SnapshotComplete before SnapshotMeta": at(0, COMPLETE, META),
    "SnapshotComplete of another snapshot": at(
        -1,
        lambda transfer: wire.build(
            wire.SNAPSHOT_COMPLETE, snapshot_id=OTHER_ID, success=True, **transfer.totals()
        ),
    ),
    "a chunk more than counted": at(
        -1, lambda transfer: transfer.chunk_frame(transfer.count, data=b"x"), COMPLETE
    ),
}

# The conversation is at fault, not the snapshot: what came before may be kept and gone on with.
BROKEN_CONVERSATIONS = {
    "a frame with a wrong CRC": at(1, lambda transfer: corrupt(transfer.chunk_frame(0))),
    "an entry before SnapshotMeta": at(0, put_frame(NEW_OFFSET + 1), META),
    "an entry between chunks": at(2, put_frame(NEW_OFFSET + 1)),
    "an entry that continues the old data": at(2, put_frame(NEW_OFFSET)),
    "a second Welcome": at(2, wire.build_welcome()),
    "a Hello": at(2, wire.build_hello()),
    "RequestSnapshot": at(2, wire.build(wire.REQUEST_SNAPSHOT, replica_id=OTHER_ID)),
    "a chunk of another variant": at(
        1,
        wire.build(
            wire.SNAPSHOT_CHUNK, variant=9, snapshot_id=OTHER_ID, chunk_index=0, data=b"", checksum=0
        ),
    ),
    "a chunk whose data end too early": at(
        1, wire.encode_frame(wire.SNAPSHOT_CHUNK, struct.pack("<IQ", 8, 36) + b"0" * 36)
    ),
}

# What SnapshotMeta says beside the truth.
META_LIES = {
    "a size larger by one": lambda totals: {"total_size": totals["total_size"] + 1},
    "a size smaller by one": lambda totals: {"total_size": totals["total_size"] - 1},
    "a size of 2^63": lambda _: {"total_size": 1 << 63},
    "the largest size": lambda _: {"total_size": (1 << 64) - 1},
    "a chunk more": lambda totals: {"chunk_count": totals["chunk_count"] + 1},
    "a chunk less": lambda totals: {"chunk_count": totals["chunk_count"] - 1},
    "no chunk": lambda _: {"chunk_count": 0},
    "0xFFFFFFFF chunks": lambda _: {"chunk_count": 0xFFFFFFFF},
    "a wrong checksum": lambda totals: {"checksum": totals["checksum"] ^ 1},
    "wal_offset 0": lambda _: {"wal_offset": 0},
    "a higher wal_offset": lambda _: {"wal_offset": NEW_OFFSET + 1},
    "a lower wal_offset": lambda _: {"wal_offset": NEW_OFFSET - 1},
    "the largest wal_offset": lambda _: {"wal_offset": (1 << 64) - 1},
    "a higher epoch": lambda _: {"epoch": 2},
    "no id": lambda _: {"snapshot_id": ""},
    "a path as id": lambda _: {"snapshot_id": "../../../../../../../../" + OUTSIDE},
    "an id with a slash": lambda _: {"snapshot_id": OTHER_ID[:8] + "/" + OTHER_ID[9:]},
    "an id of 4 KiB": lambda _: {"snapshot_id": "a" * 4096},
    "an id with a NUL": lambda _: {"snapshot_id": OTHER_ID[:-1] + "\0"},
}

COMPLETE_LIES = {
    "a size larger by one": lambda totals: {"total_size": totals["total_size"] + 1},
    "a size smaller by one": lambda totals: {"total_size": totals["total_size"] - 1},
    "a chunk more": lambda totals: {"chunk_count": totals["chunk_count"] + 1},
    "a chunk less": lambda totals: {"chunk_count": totals["chunk_count"] - 1},
    "a wrong checksum": lambda totals: {"checksum": totals["checksum"] ^ 1},
    "no success": lambda _: {"success": False},
}


def lying_meta(lie):
    """The id of the chunks is the one of SnapshotMeta, so that it is judged by itself."""

    def change(transfer):
        transfer.meta = lie(transfer.totals())
        transfer.snapshot_id = transfer.meta.get("snapshot_id", transfer.snapshot_id)
        return transfer.frames()

    return change


def lying_complete(lie, known):
    def change(transfer):
        transfer.known = known
        transfer.complete = lie(transfer.totals())
        return transfer.frames()

    return change


BAD_TRANSFERS = {
    **BAD_CONVERSATIONS,
    **{f"SnapshotMeta with {name}": lying_meta(lie) for name, lie in META_LIES.items()},
    **{
        f"SnapshotComplete with {name}": lying_complete(lie, True)
        for name, lie in COMPLETE_LIES.items()
    },
    **{
        f"SnapshotComplete alone with {name}": lying_complete(lie, False)
        for name, lie in COMPLETE_LIES.items()
    },
    "no totals anywhere": lying_complete(lambda totals: dict.fromkeys(totals, 0), False),
}


class Hostile(Attacks):
    def test_01_transfers(self):
        def attack(victim, change):
            transfer = sent(victim, {"compressor": snapshots.raw_frame})  # several chunks
            self.assertGreater(transfer.count, 3)
            victim.endure(transfer, change(transfer))

        self.attack(BAD_TRANSFERS, attack)

    def test_02_broken_conversations(self):
        def attack(victim, change):
            transfer = sent(victim, {"compressor": snapshots.raw_frame})
            victim.endure(
                transfer, change(transfer), about="the master sent", resumable=True
            )

        self.attack(BROKEN_CONVERSATIONS, attack)

    def test_03_not_asked_for(self):
        def attack(victim, fields):
            victim.endure(sent(victim, {}), codes=(2, 6), welcome=fields, about="master")

        cases = {
            "no full sync was announced": {"requires_full_sync": False},
            "another cluster's": {"cluster_id": OTHER_ID},
            "no cluster's": {"cluster_id": ""},
        }
        self.attack(cases, attack)


# ---- right ones ----


class Sound(NexusTestCase):
    """What is accepted, so that the refusals above mean something."""

    def victim(self, name="sound", **settings):
        victim = Victim(name, **settings)
        self.addCleanup(victim.cleanup)
        self.addCleanup(self._show_log, victim.replica)
        return victim

    def accepted(self, victim, transfer, crc, frames=None):
        """Sends it, and waits until the replica comes back with its position: (peer, its Hello)."""
        peer, _ = victim.master.offer(transfer)
        victim.master.send(peer, transfer.frames() if frames is None else frames)
        peer, hello = victim.master.wait_position(transfer.wal_offset)
        self.assertEqual(hello.last_epoch, transfer.epoch)
        self.assertEqual(hello.last_crc, crc)
        return peer, hello

    def check_state(self, replica, records):
        """The replica has these records and no others."""
        wanted = {record[0]: (record[2], *record[3:]) for record in records}
        code, _, body = replica.request("GET", "/kv?keys_only=1&limit=10000")
        self.assertEqual(code, 200, body)
        found = {
            key_of(item): (item["offset"], *([item["expires_at"]] if "expires_at" in item else []))
            for item in json.loads(body)["items"]
        }
        self.assertEqual(found, wanted)
        for key, value, offset, *_ in records:
            with self.subTest(key=key[:20]):
                code, headers, body = replica.request("GET", path_of(key))
                self.assertEqual((code, body), (200, value))
                self.assertEqual(headers["ETag"], f'"{offset}"')

    def records(self):
        later = wire.now_ms() + 3_600_000
        records = [(b"k%03d" % number, b"v%d" % number, number + 1) for number in range(100)]
        records += [
            (b"expires", b"later", 200, later),
            (b"empty", b"", 300),
            (b"large", os.urandom(MIB), 301),
            (b"long" + b"x" * 507, b"long", 302),
            (bytes([0, 1, 0xFF]), bytes(range(256)), 303),
            (b"\xff" * 511, b"last", NEW_OFFSET),
        ]
        return sorted(records)

    def snapshot(self, victim, records, **arguments):
        merged = {"cluster_id": victim.master.cluster_id, "wal_offset": NEW_OFFSET, **arguments}
        return build_snapshot(records, **merged)

    def test_01_a_replica_with_other_data_takes_it_and_goes_on(self):
        victim = self.victim()
        victim.start()
        crc = 0x12345678
        records = self.records()
        archive = self.snapshot(victim, records, per_file=7, wal_crc32=crc)
        transfer = Transfer.of(archive)
        peer, _ = self.accepted(victim, transfer, crc)
        replica = victim.replica
        self.assertEqual(replica.status()["wal_offset"], NEW_OFFSET)
        self.check_state(replica, records)
        self.assertGreaterEqual(replica.stats()["bytes_received"], len(archive))

        log = wire.LogBuilder(offset=NEW_OFFSET, crc=crc)
        victim.master.greet(peer, current_wal_offset=NEW_OFFSET + 2)
        peer.send(log.append(wire.put_op(b"after", b"it"), wire.delete_op(b"k000")))
        peer.send(log.append(wire.put_op(b"k001", b"again")))
        while peer.recv_type(wire.WAL_ACK).offset < log.offset:
            pass
        records = [record for record in records if record[0] not in (b"k000", b"k001")]
        records += [(b"after", b"it", NEW_OFFSET + 1), (b"k001", b"again", NEW_OFFSET + 2)]
        self.check_state(replica, records)
        peer.close()

        for end in (replica.stop, replica.kill_all):
            end()
            replica.launch()
            peer, hello = victim.master.hello()
            self.assertEqual((hello.last_wal_offset, hello.last_crc), (log.offset, log.crc))
            victim.master.greet(peer, current_wal_offset=log.offset)
            replica.wait_answer("/ready")
            self.check_state(replica, records)
        names = sorted(name for name in os.listdir(replica.data_dir) if name.startswith("data-"))
        self.assertEqual(names, [os.readlink(os.path.join(replica.data_dir, "current"))])
        self.assertEqual(os.listdir(victim.snapshots_dir), [])

    def test_02_a_new_replica_answers_nothing_before_it_has_all(self):
        victim = self.victim()
        replica = victim.replica
        replica.launch()
        records = self.records()
        transfer = Transfer.of(self.snapshot(victim, records, wal_crc32=9), known=False)
        peer, hello = victim.master.offer(transfer)
        self.assertEqual((hello.last_wal_offset, hello.cluster_id), (0, ""))
        replica.wait_answer("/health")

        def look(index):
            if index == 3:
                status = replica.wait_status(state="snapshot")
                self.assertEqual(status["wal_offset"], 0)
                for path in ("/kv/k001", "/kv", "/export"):
                    self.assert_problem(replica.request("GET", path), 503, "not_synced")
                self.assertEqual(replica.request("GET", "/ready")[0], 503)
                replica.wait_until(lambda: replica.pids("restore"), what="a restore process")

        victim.master.send(peer, transfer.frames(), look)
        peer, hello = victim.master.wait_position(NEW_OFFSET)
        self.assertEqual(hello.cluster_id, victim.master.cluster_id)
        victim.master.greet(peer, current_wal_offset=NEW_OFFSET)
        replica.wait_answer("/ready")
        self.check_state(replica, records)
        self.assertEqual(replica.status()["cluster_id"], victim.master.cluster_id)

    def test_03_other_forms_of_the_same(self):
        records = self.records()
        crc = 77

        def forms(transfer):
            """What is sent, by name."""
            older = wire.build(
                wire.SNAPSHOT_COMPLETE,
                last="success",
                snapshot_id=transfer.snapshot_id,
                success=True,
            )
            in_one = dataclasses.replace(transfer, chunk_size=len(transfer.archive))
            odd = dataclasses.replace(transfer, chunk_size=4097)
            return {
                "totals in SnapshotMeta alone": transfer.frames()[:-1] + [older],
                "one chunk": in_one.frames(),
                "odd chunks": odd.frames(),
                "totals in SnapshotComplete alone": dataclasses.replace(
                    transfer, known=False
                ).frames(),
            }

        victim = self.victim()
        victim.start()
        for number in range(4):
            offset = NEW_OFFSET + number
            archive = self.snapshot(victim, records, wal_offset=offset, wal_crc32=crc)
            transfer = Transfer.of(archive)
            name, frames = list(forms(transfer).items())[number]
            with self.subTest(name):
                peer, _ = self.accepted(victim, transfer, crc, frames)
                self.check_state(victim.replica, records)
                peer.close()

    def test_04_a_snapshot_that_does_not_know_the_crc_of_its_entry(self):
        victim = self.victim()
        victim.start()
        transfer = Transfer.of(self.snapshot(victim, self.records()))
        peer, _ = self.accepted(victim, transfer, 0)
        log = wire.LogBuilder(offset=NEW_OFFSET, crc=0xABCDEF)
        victim.master.greet(peer, current_wal_offset=NEW_OFFSET + 1)
        peer.send(log.append(wire.put_op(b"after", b"it")))
        self.assertEqual(peer.recv_type(wire.WAL_ACK).offset, NEW_OFFSET + 1)
        peer.close()
        victim.replica.kill_all()
        victim.replica.launch()
        _, hello = victim.master.hello()
        self.assertEqual((hello.last_wal_offset, hello.last_crc), (log.offset, log.crc))

    def test_05_a_later_epoch(self):
        victim = self.victim()
        victim.start()
        archive = self.snapshot(victim, self.records(), epoch=3, wal_crc32=5)
        transfer = Transfer.of(archive)
        peer, _ = self.accepted(victim, transfer, 5)
        victim.master.greet(peer, current_wal_offset=NEW_OFFSET + 1, epoch=3)
        peer.send(wire.encode_entry(NEW_OFFSET + 1, 2, 5, [wire.put_op(b"evil", b"x")]))
        self.assertIn("lower epoch", peer.recv_error(6).message)
        peer, _ = victim.master.hello()
        victim.master.greet(peer, current_wal_offset=NEW_OFFSET + 1, epoch=3)
        peer.send(wire.encode_entry(NEW_OFFSET + 1, 3, 5, [wire.put_op(b"good", b"x")]))
        self.assertEqual(peer.recv_type(wire.WAL_ACK).offset, NEW_OFFSET + 1)
        self.assertEqual(victim.replica.status()["epoch"], 3)

    def test_11_a_chunk_behind_the_end_changes_nothing(self):
        """It comes when all is there already: what counts is the whole, and that was right."""
        victim = self.victim()
        victim.start()
        records = self.records()
        transfer = Transfer.of(self.snapshot(victim, records, wal_crc32=1))
        self.accepted(victim, transfer, 1, one_too_many(transfer))
        self.check_state(victim.replica, records)

    def test_06_a_transfer_that_is_cut_goes_on(self):
        victim = self.victim()
        victim.start()
        records = self.records()
        replica, master = victim.replica, victim.master
        transfer = Transfer.of(self.snapshot(victim, records, wal_crc32=1), known=False)
        self.assertGreater(transfer.count, 8)
        frames = transfer.frames()
        peer, hello = master.offer(transfer)
        self.assertEqual((hello.resume_snapshot_id, hello.resume_chunk), ("", 0))
        master.send(peer, frames[:4])  # SnapshotMeta and chunks 0 to 2
        peer.send(frames[4][: len(frames[4]) // 2])
        peer.close()

        peer, hello = master.offer(transfer)
        self.assertEqual(hello.last_wal_offset, victim.log.offset)
        self.assertEqual(hello.resume_snapshot_id, transfer.snapshot_id)
        self.assertEqual(hello.resume_chunk, 3)
        master.send(peer, transfer.frames(3)[:4])  # chunks 3 to 5
        replica.wait_status(state="snapshot")
        self.assertEqual(replica.get("old01"), b"value 1")
        peer.close()

        peer, hello = master.hello()  # all of it has come: the next Hello says so
        self.assertEqual((hello.resume_snapshot_id, hello.resume_chunk), (transfer.snapshot_id, 6))
        replica.kill_all()
        peer.close()
        replica.launch()
        peer, hello = master.offer(transfer)
        self.assertEqual(hello.last_wal_offset, victim.log.offset)
        first = transfer.first_for(hello)
        self.assertIn(first, (0, 6))  # after a crash it may begin anew
        master.send(peer, transfer.frames(first))
        master.wait_position(NEW_OFFSET)
        self.check_state(replica, records)

    def test_07_a_master_that_has_another_snapshot_by_now(self):
        victim = self.victim()
        victim.start()
        records = self.records()
        master = victim.master
        first = Transfer.of(self.snapshot(victim, records, wal_crc32=1))
        peer, _ = master.offer(first)
        master.send(peer, first.frames()[:4])
        peer.close()
        second = Transfer.of(
            self.snapshot(victim, records[:50], wal_crc32=2, wal_offset=NEW_OFFSET + 1)
        )
        peer, hello = master.offer(second)
        self.assertEqual(hello.resume_snapshot_id, first.snapshot_id)
        master.send(peer, second.frames())
        master.wait_position(NEW_OFFSET + 1)
        self.check_state(victim.replica, records[:50])
        self.assertEqual(os.listdir(victim.snapshots_dir), [])

    def test_08_the_same_snapshot_with_other_bytes(self):
        victim = self.victim()
        victim.start()
        master = victim.master
        snapshot_id = str(uuid.uuid4())
        first, second = (
            Transfer.of(self.snapshot(victim, self.records(), snapshot_id=snapshot_id, wal_crc32=1))
            for _ in range(2)
        )
        peer, _ = master.offer(first)
        master.send(peer, first.frames()[:4])
        peer.close()
        peer, hello = master.offer(second)
        self.assertEqual((hello.resume_snapshot_id, hello.resume_chunk), (snapshot_id, 3))
        master.send(peer, second.frames(3))
        master.refusal(peer)
        victim.check()
        peer, hello = master.offer(second)  # what it had is gone
        self.assertEqual(hello.resume_chunk, 0)
        master.send(peer, second.frames())
        master.wait_position(NEW_OFFSET)

    def test_09_larger_than_snapshot_max_size(self):
        victim = self.victim(**{"snapshot.max_size": "1MiB"})
        victim.start()
        records = [(b"k%d" % number, os.urandom(MIB), number + 1) for number in range(3)]
        archive = self.snapshot(victim, records, wal_crc32=1)
        for known in (True, False):
            with self.subTest(known=known):
                _, line = victim.endure(Transfer.of(archive, known=known))
                self.assertIn("max_size", line)
                victim.session()

    def test_10_an_empty_state(self):
        victim = self.victim()
        victim.start()
        transfer = Transfer.of(self.snapshot(victim, [], wal_crc32=1))
        self.accepted(victim, transfer, 1)
        self.assertEqual(victim.replica.export(), b"")
        self.assertEqual(victim.replica.status()["wal_offset"], NEW_OFFSET)


def path_of(key):
    return "/kv/" + "".join(f"%{byte:02X}" for byte in key)


def key_of(item):
    """The key of a JSON item."""
    return base64.b64decode(item["key_base64"]) if "key_base64" in item else item["key"].encode()


if __name__ == "__main__":
    unittest.main()
