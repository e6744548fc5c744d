"""Claims to lead, by peers that speak the protocol themselves: what is proven fences a master, what is forged
doesn't, and neither is a way to take its data or its memory."""

import struct
import unittest
import uuid

import nexus_wire as wire
from nexus_test import NexusTestCase

ERROR_OTHER_CLUSTER, ERROR_FENCED, ERROR_BEHIND = 2, 8, 11
RECORD = struct.Struct("<QQ16sI")
HIGH, LOW = "ffffffff-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000001"


def records(data):
    return [RECORD.unpack_from(data, at) for at in range(0, len(data), RECORD.size)]


def packed(history):
    return b"".join(RECORD.pack(*record) for record in history)


def claim(epoch, offset, node_id=HIGH, prev_crc=7):
    """An epoch entry, and its record in a history."""
    frame = wire.encode_entry(offset, epoch, prev_crc, [wire.epoch_op(node_id)])
    return frame, (epoch, offset, uuid.UUID(node_id).bytes, wire.frame_crc(frame))


class Claims(NexusTestCase):
    def setUp(self):
        self.master = self.node("master", settings={"replication.heartbeat_ms": 500})
        for number in range(5):
            self.master.put(f"k{number}", b"v")
        self.cluster_id = self.master.status()["cluster_id"]
        with wire.RawPeer(self.master.replication_port) as peer:
            self.history = records(peer.handshake(cluster_id=self.cluster_id).epochs)

    def say(self, frame, history, last_wal_offset=8, replica_id=HIGH, **fields):
        """A Hello with a claim; what it is answered."""
        fields = {"cluster_id": self.cluster_id, "last_epoch": history[-1][0] if history else 9, **fields}
        with wire.RawPeer(self.master.replication_port) as peer:
            peer.send_message(
                wire.HELLO,
                replica_id=replica_id,
                last_wal_offset=last_wal_offset,
                protocol_version=1,
                last_crc=1,
                http_addr="127.0.0.1:15999",
                advertised_addr="127.0.0.1:15998",
                epochs=packed(history),
                claim=frame,
                **fields,
            )
            return peer.recv()

    def assert_leads(self):
        self.assertNotEqual(self.master.status()["state"], "fenced")
        self.master.put("still", b"mine")

    def assert_fenced(self, epoch=2):
        self.master.wait_status(state="fenced")
        problem = self.assert_problem(self.master.request("PUT", "/kv/k", b"v"), 409, "fenced")
        self.assertEqual((problem["epoch"], problem["master"]), (epoch, "http://127.0.0.1:15999"))

    def test_01_the_first_epoch_has_the_masters_id(self):
        node_id = uuid.UUID(self.master.status()["node_id"]).bytes
        self.assertEqual(self.history, [(1, 1, node_id, 0)])

    def test_02_a_proven_claim(self):
        frame, record = claim(2, 4)
        self.assertEqual(self.say(frame, [*self.history, record]).code, ERROR_FENCED)
        self.assert_fenced()
        # Twice, by a replica of it, and over any end of the server.
        self.assertEqual(self.say(frame, [*self.history, record]).code, ERROR_FENCED)
        self.assertEqual(self.say(frame, [*self.history, record], replica_id=LOW).code, ERROR_FENCED)
        self.master.kill9()
        self.master.start()
        self.assert_fenced()
        self.assertEqual(self.master.get("k0"), b"v")

    def test_03_a_higher_one_takes_its_place(self):
        for epoch in (2, 3):
            frame, record = claim(epoch, 4)
            self.say(frame, [*self.history, record])
            self.assert_fenced(epoch)
        frame, record = claim(2, 4)
        self.assertEqual(self.say(frame, [*self.history, record]).code, ERROR_FENCED)
        self.assert_fenced(3)

    def test_04_forged_ones(self):
        frame, record = claim(2, 4)
        broken = frame[:-1] + bytes([frame[-1] ^ 1])
        other_first = [(1, 1, uuid.UUID(HIGH).bytes, 0)]
        put = wire.encode_entry(4, 2, 7, [wire.put_op(b"k", b"v")])
        far, far_record = claim(1002, 4)
        forged = {
            "no entry": (b"", [*self.history, record]),
            "a wrong CRC": (broken, [*self.history, record]),
            "half an entry": (frame[:30], [*self.history, record]),
            "another entry": (put, [*self.history, record]),
            "another epoch than its history's": (claim(3, 4)[0], [*self.history, record]),
            "another node than its history's": (claim(2, 4, LOW)[0], [*self.history, record]),
            "no history": (frame, []),
            "a history of somebody else": (frame, [*other_first, record]),
            "a history without its beginning": (frame, [record]),
            "too far ahead": (far, [*self.history, far_record]),
        }
        for what, (entry, history) in forged.items():
            with self.subTest(what):
                self.assertEqual(self.say(entry, history).code, ERROR_BEHIND)
                self.assert_leads()

    def test_05_histories_that_are_none(self):
        frame, record = claim(2, 4)
        backwards = packed([record, *self.history])
        for what in (backwards, packed([*self.history, record])[:-1], b"x" * 36 * 1001):
            with wire.RawPeer(self.master.replication_port) as peer:
                peer.send_message(
                    wire.HELLO,
                    replica_id=HIGH,
                    last_wal_offset=8,
                    protocol_version=1,
                    cluster_id=self.cluster_id,
                    last_epoch=2,
                    last_crc=1,
                    epochs=what,
                    claim=frame,
                )
                self.assertEqual(peer.recv().code, ERROR_BEHIND)
            self.assert_leads()

    def test_06_of_another_cluster(self):
        frame, record = claim(2, 4)
        answer = self.say(frame, [*self.history, record], cluster_id=str(uuid.uuid4()))
        self.assertEqual(answer.code, ERROR_OTHER_CLUSTER)
        answer = self.say(frame, [*self.history, record], cluster_id="")
        self.assertEqual(answer.name, "Error")
        self.assert_leads()


if __name__ == "__main__":
    unittest.main()
