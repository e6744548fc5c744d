# timeout: 240
"""Networks that swallow packets, and slow lines, between nodes in network namespaces of their own; and addresses of
strangers, which loopback has none of. Needs root, iproute2 and nftables; skipped elsewhere."""

import json
import unittest

import netns
from netns import HTTP, Host, Network
from nexus_test import NexusTestCase

QUICK = {"replication.heartbeat_ms": 300, "replication.missed_heartbeats_threshold": 3}
SYNC = {"replication.mode": "sync", "replication.sync_timeout_ms": 1500}


@unittest.skipUnless(netns.available(), "needs root, ip, nft and tc")
class NetworkCase(NexusTestCase):
    prefix = "10.77.0"

    def setUp(self):
        self.network = Network(3, self.prefix)
        self.addCleanup(self.network.close)

    def host(self, number, role="standalone", **settings):
        return self.adopt(Host(self.network, number, role, **settings))

    def peers(self, number):
        others = ",".join(f"{self.network.address(other)}:{HTTP}" for other in (1, 2, 3) if other != number)
        return {"replication.peers": others}

    def cluster(self, **settings):
        master = self.host(1, "master", **QUICK, **settings, **self.peers(1)).start()
        follows = {"replication.master_addr": master.replication_addr}
        settings = {**QUICK, **settings}
        replicas = [self.host(number, "replica", **follows, **settings, **self.peers(number)) for number in (2, 3)]
        for replica in replicas:
            replica.start()
        for replica in replicas:
            replica.wait_status(connected=True)
        return master, replicas

    def wait_level(self, master, *replicas):
        offset = master.status()["wal_offset"]
        for replica in replicas:
            replica.wait_status(wal_offset=offset)


class Swallowed(NetworkCase):
    def test_01_a_replica_behind_a_hole(self):
        """Found on both sides by silence; nobody else is held up; it catches up without a full sync."""
        master, (first, second) = self.cluster()
        master.put("before", b"v")
        self.wait_level(master, first, second)
        self.network.cut(2, 1)
        for number in range(50):
            master.put(f"meanwhile{number}", b"v")
        first.wait_status(connected=False)
        first.wait_log("appears dead", 30)
        master.wait_status(replica_count=1)
        self.wait_level(master, second)
        self.network.heal()
        first.wait_status(connected=True)
        self.wait_level(master, first)
        self.assertNotIn("full sync", first.log())

    def test_02_one_direction_only(self):
        for receiver, sender in ((1, 2), (2, 1)):
            with self.subTest(f"{receiver} hears nothing of {sender}"):
                self.doCleanups()
                self.setUp()
                master, (first, second) = self.cluster()
                master.put("before", b"v")
                self.wait_level(master, first, second)
                self.network.drop(receiver, sender)
                master.put("meanwhile", b"v")
                master.wait_status(replica_count=1)
                self.network.heal()
                self.wait_level(master, first, second)

    def test_03_a_sync_master_alone(self):
        """What is on its way is unknown in time, what comes then is refused; with the network all goes on."""
        master, (first, second) = self.cluster(**SYNC)
        master.wait_written("before", b"v", 30)
        self.network.cut(1, 2, 3)
        status, _, body = master.request("PUT", "/kv/unknown", b"v")
        self.assertIn((status, json.loads(body)["code"]), ((504, "quorum_timeout"), (503, "quorum_unavailable")))
        master.wait_until(
            lambda: b"quorum_unavailable" in master.request("PUT", "/kv/refused", b"v")[2], 30, "a refusal"
        )
        self.network.heal()
        master.wait_written("after", b"v", 60)
        self.wait_level(master, first, second)

    def test_04_a_master_behind_a_hole_is_replaced_and_fenced(self):
        master, (first, second) = self.cluster(**SYNC)
        master.wait_written("before", b"v", 30)
        self.wait_level(master, first, second)
        self.network.cut(1, 2, 3)
        first.wait_status(promotable=True)
        answer = first.json("POST", "/replication/promote", timeout=60)
        self.assertEqual(answer["unreached_peers"], [master.addr], answer)
        second.json("POST", "/replication/follow", {"master_addr": first.replication_addr})
        first.wait_written("after", b"v", 60)
        self.network.heal()
        master.wait_status(state="fenced")
        self.assert_problem(master.request("PUT", "/kv/old", b"v"), 409, "fenced")


class Slow(NetworkCase):
    def test_a_line_of_one_megabit(self):
        """A replica behind it lags and is level in the end; the other one and the clients are not held up."""
        master, (first, second) = self.cluster()
        self.network.slow(2, "100kbit")  # what is written would take a minute
        for number in range(60):
            master.put(f"large{number}", b"x" * 10000)
        self.wait_level(master, second)
        self.assertLess(first.status()["wal_offset"], 60)
        self.network.slow(2, "1mbit")
        first.wait_status(wal_offset=60)  # some five seconds later
        self.network.fast(2)
        self.wait_level(master, first)
        self.assertNotIn("full sync", first.log())


class Strangers(NetworkCase):
    """Addresses that are no private ones (TEST-NET-3)."""

    prefix = "203.0.113"

    def test_they_are_not_served_without_a_token(self):
        master = self.host(1, "master").start()
        self.assertEqual(master.put("own", b"v"), 1)
        stranger = self.host(2).client(to=master)
        for method, path in (("GET", "/kv/own"), ("PUT", "/kv/x"), ("POST", "/replication/stop"), ("GET", "/no/such")):
            answer = stranger.request(method, path, b"" if method != "GET" else None)
            self.assert_problem(answer, 403, "token_required")
        for path in ("/", "/health", "/ready"):
            self.assertEqual(stranger.request("GET", path)[0], 200)
        replica = self.host(3, "replica", **{"replication.master_addr": master.replication_addr}).start()
        replica.wait_log("not served without a token", 30)
        self.assertEqual(master.status()["replica_count"], 0)


if __name__ == "__main__":
    unittest.main()
