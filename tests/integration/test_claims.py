"""Claims to lead, by peers that speak the protocol themselves: what is proven fences a master, what is forged
doesn't, and neither is a way to take its data or its memory. Nor does who was a replica once, and answers a master
that starts, fence it without proof, or keep it from starting."""

import http.server
import json
import struct
import threading
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


class Impostor:
    """Answers whatever it is asked with one status."""

    def __init__(self, status):
        impostor = self
        self.status, self.asked = status, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = json.dumps(impostor.status).encode()
                impostor.asked += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.addr = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class AskedAtAStart(NexusTestCase):
    """The master has had a replica, by the Hello of a stranger; it is killed, and asks there when it starts."""

    def setUp(self):
        self.master = self.node("master", settings={"replication.heartbeat_ms": 500})
        self.master.put("k", b"v")
        self.status = self.master.status()
        self.impostor = Impostor(self.status)
        self.addCleanup(self.impostor.close)
        with wire.RawPeer(self.master.replication_port) as peer:
            peer.handshake(http_addr=self.impostor.addr)
            self.await_known()

    def await_known(self):
        path = f"{self.master.data_dir}/current/identity"

        def known():
            with open(path, encoding="utf-8") as file:
                return self.impostor.addr in file.read()

        self.master.wait_until(known, what=f"{self.impostor.addr} in {path}")

    def start_again(self, **status):
        """-> what it logs, with the impostor saying this."""
        self.impostor.status = {**self.status, **status}
        begin, asked = len(self.master.log()), self.impostor.asked
        self.master.kill9()
        self.master.start()
        self.assertGreater(self.impostor.asked, asked)
        return self.master.log()[begin:]

    def assert_leads(self, log):
        self.master.put("k", b"mine")
        self.assertEqual(self.master.status()["state"], "streaming")
        self.assertRegex(log, rf"WARN .*{self.impostor.addr}.*replication\.peers doesn't list.*forget ID")

    def test_01_its_own_status_told_back(self):
        for _ in range(2):
            log = self.start_again()
            self.assertIn(f"this node's own id {self.status['node_id']}", log)
            self.assert_leads(log)

    def test_02_a_higher_epoch_without_a_history(self):
        epoch = self.status["epoch"] + 900
        first = self.status["epochs"][-1]
        leads = {"epoch": epoch, "first_offset": 9, "node_id": HIGH, "crc": 1}
        for epochs in (self.status["epochs"], None, [leads], [{**first, "node_id": HIGH}, leads]):
            with self.subTest(epochs=epochs):
                log = self.start_again(node_id=HIGH, epoch=epoch, epochs=epochs)
                self.assertIn("it isn't believed", log)
                self.assert_leads(log)

    def test_03_out_of_the_fence_by_force(self):
        """A history of this log is what anybody can tell who may replicate it; as a claim, that can be undone."""
        epoch = self.status["epoch"] + 900
        leads = {"epoch": epoch, "first_offset": 9, "node_id": HIGH, "crc": 1}
        log = self.start_again(node_id=HIGH, epoch=epoch, epochs=[*self.status["epochs"], leads])
        self.assertRegex(log, "this master is fenced: .*nexus-ctl promote --force")
        self.assert_problem(self.master.request("PUT", "/kv/k", b"v"), 409, "fenced")
        self.master.json("POST", "/replication/promote?force=1")
        self.master.put("k", b"mine")
        self.start_again(node_id=HIGH, epoch=epoch, epochs=[*self.status["epochs"], leads])
        self.master.put("k", b"mine")

    def test_04_a_peer_is_believed(self):
        self.master.settings["replication.peers"] = self.impostor.addr
        self.start_again(node_id=HIGH, epoch=2)
        self.assert_problem(self.master.request("PUT", "/kv/k", b"v"), 409, "fenced")


if __name__ == "__main__":
    unittest.main()
