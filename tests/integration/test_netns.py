# timeout: 240
"""Networks that swallow packets, and slow lines, between nodes in network namespaces of their own; and addresses of
strangers, which loopback has none of. Needs root, iproute2 and nftables; skipped elsewhere."""

import json
import unittest

import netns
from netns import HTTP, REPLICATION, Host, Network
from nexus_test import wait_until

QUICK = {"replication.heartbeat_ms": 300, "replication.missed_heartbeats_threshold": 3}
SYNC = {"replication.mode": "sync", "replication.sync_timeout_ms": 1500}


@unittest.skipUnless(netns.available(), "needs root, ip, nft and tc")
class NetworkCase(unittest.TestCase):
    prefix = "10.77.0"

    def setUp(self):
        self.network = Network(3, self.prefix)
        self.addCleanup(self.network.close)

    def host(self, number, **settings):
        host = Host(self.network, number, **settings)
        self.addCleanup(host.close)
        return host

    def peers(self, number):
        others = ",".join(f"{self.network.address(other)}:{HTTP}" for other in (1, 2, 3) if other != number)
        return {"replication.peers": others}

    def cluster(self, **settings):
        master = self.host(1, **{"replication.role": "master", **QUICK, **settings, **self.peers(1)}).start()
        follows = {"replication.role": "replica", "replication.master_addr": f"{self.network.address(1)}:{REPLICATION}"}
        replicas = [self.host(number, **follows, **QUICK, **settings, **self.peers(number)) for number in (2, 3)]
        for replica in replicas:
            replica.start()
        for replica in replicas:
            replica.wait_status(connected=True)
        return master, replicas

    def put(self, host, key, expect=(200, 201)):
        status, answer = host.request("PUT", f"/kv/{key}", b"v")
        self.assertIn(status, expect, answer)
        return answer

    def wait_level(self, master, *replicas):
        offset = master.status()["wal_offset"]
        for replica in replicas:
            replica.wait_status(wal_offset=offset)


class Swallowed(NetworkCase):
    def test_01_a_replica_behind_a_hole(self):
        """Found on both sides by silence; nobody else is held up; it catches up without a full sync."""
        master, (first, second) = self.cluster()
        self.put(master, "before")
        self.wait_level(master, first, second)
        self.network.cut(2, 1)
        for number in range(50):
            self.put(master, f"meanwhile{number}")
        first.wait_status(connected=False)
        wait_until(lambda: "appears dead" in first.log(), 30, first.log)
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
                self.put(master, "before")
                self.wait_level(master, first, second)
                self.network.drop(receiver, sender)
                self.put(master, "meanwhile")
                master.wait_status(replica_count=1)
                self.network.heal()
                self.wait_level(master, first, second)

    def test_03_a_sync_master_alone(self):
        """What is on its way is unknown in time, what comes then is refused; with the network all goes on."""
        master, (first, second) = self.cluster(**SYNC)
        wait_until(lambda: master.request("PUT", "/kv/before", b"v")[0] in (200, 201), 30)
        self.network.cut(1, 2, 3)
        status, answer = master.request("PUT", "/kv/unknown", b"v")
        self.assertIn((status, answer["code"]), ((504, "quorum_timeout"), (503, "quorum_unavailable")), answer)
        wait_until(lambda: master.request("PUT", "/kv/refused", b"v")[1].get("code") == "quorum_unavailable", 30)
        self.network.heal()
        wait_until(lambda: master.request("PUT", "/kv/after", b"v")[0] in (200, 201), 60)
        self.wait_level(master, first, second)

    def test_04_a_master_behind_a_hole_is_replaced_and_fenced(self):
        master, (first, second) = self.cluster(**SYNC)
        wait_until(lambda: master.request("PUT", "/kv/before", b"v")[0] in (200, 201), 30)
        self.wait_level(master, first, second)
        self.network.cut(1, 2, 3)
        first.wait_status(promotable=True)
        status, answer = first.request("POST", "/replication/promote", timeout=60)
        self.assertEqual((status, answer.get("unreached_peers")), (200, [f"{self.network.address(1)}:{HTTP}"]), answer)
        body = json.dumps({"master_addr": f"{self.network.address(2)}:{REPLICATION}"})
        self.assertEqual(second.request("POST", "/replication/follow", body)[0], 200)
        wait_until(lambda: first.request("PUT", "/kv/after", b"v")[0] in (200, 201), 60)
        self.network.heal()
        master.wait_status(state="fenced")
        status, answer = master.request("PUT", "/kv/old", b"v")
        self.assertEqual((status, answer["code"]), (409, "fenced"))


class Slow(NetworkCase):
    def test_a_line_of_one_megabit(self):
        """A replica behind it lags and is level in the end; the other one and the clients are not held up."""
        master, (first, second) = self.cluster()
        self.network.slow(2, "1mbit")
        for number in range(60):
            status, answer = master.request("PUT", f"/kv/large{number}", b"x" * 10000)
            self.assertEqual(status, 201, answer)
        self.wait_level(master, second)
        self.assertLess(first.status()["wal_offset"], 60)
        first.wait_status(wal_offset=60)  # some five seconds later
        self.network.slow(2, "2mbit")
        status, answer = master.request("PUT", "/kv/more", b"x" * 100000)
        self.network.fast(2)
        self.wait_level(master, first)
        self.assertNotIn("full sync", first.log())


class Strangers(NetworkCase):
    """Addresses that are no private ones (TEST-NET-3)."""

    prefix = "203.0.113"

    def test_they_are_not_served_without_a_token(self):
        master = self.host(1, **{"replication.role": "master"}).start()
        self.assertEqual(self.put(master, "own")["offset"], 1)
        stranger = self.host(2)
        for method, path in (("GET", "/kv/own"), ("PUT", "/kv/x"), ("POST", "/replication/stop"), ("GET", "/no/such")):
            status, answer = stranger.request(method, path, b"" if method != "GET" else None, to=master)
            self.assertEqual((status, answer["code"]), (403, "token_required"), answer)
        for path in ("/", "/health", "/ready"):
            self.assertEqual(stranger.request("GET", path, to=master)[0], 200)
        replica = self.host(3, **{
            "replication.role": "replica",
            "replication.master_addr": f"{self.network.address(1)}:{REPLICATION}",
        }).start()
        wait_until(lambda: "not served without a token" in replica.log(), 30, replica.log)
        self.assertEqual(master.status()["replica_count"], 0)


if __name__ == "__main__":
    unittest.main()
