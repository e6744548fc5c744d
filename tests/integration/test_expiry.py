# timeout: 300
"""Keys that expire: they are absent at their time on every node, the master's log deletes each once and only the version
that expired, whatever happens in between.

NEXUS_EXPIRY_KEYS=1000000 NEXUS_EXPIRY_SECONDS=60 makes the last test the large one."""
import json
import os
import threading
import unittest

import expiry
from load import Connection, put
from nexus_test import NexusTestCase

SETTINGS = {"replication.heartbeat_ms": 200, "http.workers": 1}
KEYS = int(os.environ.get("NEXUS_EXPIRY_KEYS", "6000"))
SECONDS = int(os.environ.get("NEXUS_EXPIRY_SECONDS", "6"))
PRESENT, PAST = 3600, 1  # ttl in s; expires_at in ms: long ago


class ExpiryCase(NexusTestCase):
    def wait_gone(self, node, key):
        node.wait_until(lambda: node.get(key) is None, what=f"the end of {key}")

    def wait_deleted(self, node, offset):
        """The log has gone beyond an offset without a client's write: by a deletion."""
        node.wait_until(lambda: node.status()["wal_offset"] > offset, what="the deletion")

    def touch(self, node, key, ttl, expect=(200,)):
        return node.json("POST", f"/kv/{key}?ttl={ttl}", expect=expect)

    def import_expired(self, node, *keys):
        """Keys that have expired as they are written."""
        lines = [{"key": key, "value": "v", "expires_at": PAST} for key in keys]
        return node.import_lines("".join(json.dumps(line) + "\n" for line in lines).encode())

    def merge(self, node):
        """All that is logged goes into the state: what has expired must be found there then."""
        node.json("POST", "/replication/snapshot")

    def deleted(self, node):
        node.stop()
        return [key for key, _, _ in expiry.deletions(node)]


class OneNode(ExpiryCase):
    def test_01_a_key_is_gone_after_its_time_and_deleted(self):
        node = self.node(settings=SETTINGS)
        offset = node.put("a", "v", ttl=1)
        node.put("b", "v", ttl=PRESENT)
        self.assertEqual(node.get("a"), b"v")
        self.wait_gone(node, "a")
        self.wait_deleted(node, offset + 1)
        self.assertEqual(node.get("b"), b"v")
        self.assertEqual(self.deleted(node), ["a"])

    def test_02_only_the_version_that_expired_is_deleted(self):
        node = self.node(settings=SETTINGS)
        for key in ("again", "touched", "kept", "removed", "gone"):
            node.put(key, "v", ttl=2)
        node.put("again", "w")
        self.touch(node, "touched", PRESENT)
        self.touch(node, "kept", 0)
        node.delete("removed")
        offset = node.put("last", "v")
        self.wait_gone(node, "gone")
        self.wait_deleted(node, offset)
        self.assertEqual(node.get("again"), b"w")
        self.assertEqual(node.get("touched"), b"v")
        self.assertEqual(node.get("kept"), b"v")
        self.assertNotIn("nexus-expires-at", node.request("GET", "/kv/kept")[1])
        self.assertEqual(self.deleted(node), ["gone"])

    def test_03_an_expired_key_is_absent_to_every_condition(self):
        node = self.node(settings=SETTINGS)
        self.import_expired(node, "a", "b", "c")
        self.assertEqual(node.request("PUT", "/kv/a", b"w", {"If-None-Match": "*"})[0], 201)
        self.assertEqual(node.request("PUT", "/kv/b", b"w", {"If-Match": "*"})[0], 412)
        self.assertFalse(node.delete("b")["deleted"])
        self.touch(node, "b", PRESENT, expect=(404,))
        self.assertEqual(node.request("PUT", "/kv/c", b"w")[0], 201)
        status, _, body = node.request("POST", "/batch", json.dumps(
            {"if": [{"key": "b", "offset": 1}], "ops": [{"put": {"key": "d", "value": "v"}}]}))
        self.assertEqual(status, 412)
        self.assertEqual(json.loads(body)["failed"], [{"key": "b", "expected": 1, "actual": 0}])
        self.assertEqual(sorted(node.versions()), ["a", "c"])

    def test_04_what_is_merged_is_deleted_too(self):
        node = self.node(settings={**SETTINGS, "state.checkpoint_interval": "3600s"})
        moments = expiry.spread(500, expiry.now_ms() // 1 + 3000, expiry.now_ms() // 1 + 4000)
        moments = {key: int(moment) for key, moment in moments.items()}
        expiry.store(node, moments)
        self.merge(node)
        offset = node.status()["checkpoint_offset"]
        self.assertEqual(offset, node.status()["wal_offset"])
        node.wait_until(lambda: not expiry.exported(node), what="the end of all keys")
        expiry.wait_deleted(node, moments)
        node.stop()
        expiry.check_deletions(expiry.deletions(node), moments)

    def test_05_a_restart_and_crashes_lose_no_deletion(self):
        node = self.node(settings=SETTINGS)
        moments = {key: int(moment) for key, moment in
                   expiry.spread(2000, expiry.now_ms() + 1000, expiry.now_ms() + 6000).items()}
        expiry.store(node, moments)
        for number, end in enumerate(("stop", "kill_all", "walwriter", "checkpointer", "kill_all")):
            node.wait_until(lambda: node.status()["wal_offset"] > 2 + number * 2, what="some deletions")
            if number == 1:
                self.merge(node)
            if end in ("stop", "kill_all"):
                getattr(node, end)()
                node.start()
            else:
                # The old http workers may still answer: only a new process says that the crash is over.
                node.wait_replaced(end, node.kill_child(end))
                node.wait_answer("/ready")
        node.wait_until(lambda: not node.versions(), what="the end of all keys")
        expiry.wait_deleted(node, moments)
        node.stop()
        expiry.check_deletions(expiry.deletions(node), moments)

    def test_06_a_waiting_read_hears_of_the_end(self):
        node = self.node(settings=SETTINGS)
        offset = node.put("a", "v", ttl=1)
        status, _, _ = node.request("GET", "/kv/a?wait=60", headers={"If-None-Match": f'"{offset}"'}, timeout=60)
        self.assertEqual(status, 404)

    def test_07_a_large_value_keeps_under_a_touch(self):
        node = self.node(settings=SETTINGS)
        value = os.urandom(8 << 20)
        node.put("large", value)
        for merged in (False, True):
            if merged:
                self.merge(node)
            answer = self.touch(node, "large", PRESENT)
            self.assertEqual(node.get("large"), value)
            self.assertEqual(node.request("HEAD", "/kv/large")[1]["etag"], f'"{answer["offset"]}"')
        conditional = {"If-Match": '"1"'}
        self.assertEqual(node.request("POST", "/kv/large?ttl=5", headers=conditional)[0], 412)
        node.stop()
        node.start()
        self.assertEqual(node.get("large"), value)

    def test_08_a_full_map_takes_writes_again_when_its_keys_have_expired(self):
        node = self.node(settings={**SETTINGS, "state.map_size": "16MiB", "wal.shm_size": "32MiB",
                                   "wal.segment_size": "1MiB", "state.checkpoint_interval": "1s"})
        first = int(expiry.now_ms()) + 4000
        stored = 0
        while stored < 400000:
            lines = "".join(json.dumps({"key": f"k{number * 7919 % 400000}", "value": "v" * 60,
                                        "expires_at": first + number * 7919 % 2000}) + "\n"
                            for number in range(stored, stored + 2000))
            status, _, body = node.request("POST", "/import", lines.encode())
            if status == 507:
                self.assertEqual(json.loads(body)["code"], "map_full")
                break
            self.assertEqual(status, 200)
            stored += 2000
        self.assertGreater(stored, 4000)
        node.wait_until(lambda: not node.versions(), timeout=60, what="the end of all keys")
        node.wait_written("again", b"v", timeout=60)
        self.assertEqual([json.loads(line)["key"] for line in node.export().splitlines()], ["again"])


class Replicas(ExpiryCase):
    def test_01_replicas_agree(self):
        cluster = self.cluster(2, settings=SETTINGS)
        master = cluster.master
        master.put("a", "v", ttl=1)
        self.touch(master, "a", 2)
        master.put("b", "v", ttl=PRESENT)
        cluster.wait_level()
        moment = master.request("GET", "/kv/b")[1]["nexus-expires-at"]
        for node in cluster.nodes:
            self.assertEqual(node.request("GET", "/kv/b")[1]["nexus-expires-at"], moment)
        for node in cluster.nodes:
            self.wait_gone(node, "a")
        self.wait_deleted(master, 3)
        cluster.wait_level()
        for node in reversed(cluster.nodes):
            self.assertEqual(self.deleted(node), ["a"])

    def test_02_a_replica_hides_and_does_not_delete(self):
        cluster = self.cluster(1, settings=SETTINGS)
        offset = cluster.master.put("a", "v", ttl=2)
        cluster.wait_level()
        cluster.master.kill_all()
        self.wait_gone(cluster.replica, "a")
        self.assertEqual(cluster.replica.status()["wal_offset"], offset)
        cluster.replica.json("POST", "/replication/promote")
        self.wait_deleted(cluster.replica, offset + 1)
        self.assertEqual(self.deleted(cluster.replica), ["a"])

    def test_03_after_a_full_sync_the_new_master_deletes_what_came_with_the_snapshot(self):
        cluster = self.cluster(1, start=False, settings=SETTINGS)
        cluster.master.start()
        moments = {key: int(moment) for key, moment in
                   expiry.spread(300, expiry.now_ms() + 15000, expiry.now_ms() + 15500).items()}
        expiry.store(cluster.master, moments)
        self.merge(cluster.master)
        cluster.replica.start("/ready")
        cluster.wait_level()
        self.assertEqual(expiry.exported(cluster.replica), expiry.exported(cluster.master))
        self.assertEqual({key: line["expires_at"] for key, line in expiry.exported(cluster.replica).items()}, moments)
        cluster.master.kill_all()
        cluster.replica.json("POST", "/replication/promote")
        expiry.wait_deleted(cluster.replica, moments)
        cluster.replica.stop()
        expiry.check_deletions(expiry.deletions(cluster.replica), moments)

    def test_04_sync_mode_deletes_by_the_quorum(self):
        cluster = self.cluster(1, settings={**SETTINGS, "replication.mode": "sync", "replication.sync_quorum": 1})
        master = cluster.master
        master.wait_written("first", b"v")
        offset = master.put("a", "v", ttl=1)
        for node in cluster.nodes:
            self.wait_gone(node, "a")
        self.wait_deleted(master, offset)
        cluster.wait_level()


class Many(ExpiryCase):
    """The issue's own measure: many keys over a time, with readers on all nodes and a writer beside."""

    def write(self, node, stop, offsets):
        with Connection(node.http_port) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                connection.send([put(f"w{number % 100}", b"x")])
                status, headers, _ = connection.answer()
                offsets.append((status, headers.get("nexus-offset")))

    def test_none_early_none_late_all_alike(self):
        log = max(2 * KEYS, 10000)
        cluster = self.cluster(2, settings={**SETTINGS, "http.workers": 2, "replication.max_log_size": log})
        lead = max(2000, KEYS // 20)  # ms for the import
        began = int(expiry.now_ms()) + lead
        moments = expiry.spread(KEYS, began, began + SECONDS * 1000)
        expiry.store(cluster.master, moments)
        cluster.wait_level()
        stop, offsets = threading.Event(), []
        writer = threading.Thread(target=self.write, args=(cluster.master, stop, offsets), daemon=True)
        readers = expiry.Readers(cluster.nodes, moments)
        writer.start()
        cluster.master.wait_until(lambda: expiry.now_ms() > began + SECONDS * 1000, timeout=lead + SECONDS + 60,
                                  what="the last key's time")
        # All deletions are logged when two writes stand next to each other again and again.
        cluster.master.wait_until(lambda: self.quiet(offsets), timeout=60, what="the last deletion")
        stop.set()
        writer.join()
        readers.end()
        self.assertEqual({status for status, _ in offsets} - {200, 201}, set())
        self.assertEqual(readers.early, [])
        self.assertGreater(readers.reads, 1000)
        for name, late in readers.latest_ms.items():
            self.assertLess(late, 1000, name)  # a stamp's way to a busy replica; the master's is its own clock
        print(f"{readers.reads} reads; served after its time for at most (ms): {readers.latest_ms}")
        self.assertEqual(cluster.master.export("e"), b"")
        cluster.wait_level()
        crc = {node.status()["last_crc"] for node in cluster.nodes}
        self.assertEqual(len(crc), 1, "logs differ")
        for node in reversed(cluster.nodes):
            node.stop()
            expiry.check_deletions(expiry.deletions(node), moments)

    def quiet(self, offsets):
        count = len(offsets)
        last = [int(offset) for _, offset in offsets[max(0, count - 50) : count] if offset]
        return count > 50 and last[-1] - last[0] == len(last) - 1


if __name__ == "__main__":
    unittest.main()
