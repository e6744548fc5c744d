# timeout: 300
"""What operators do on their worst day: a node made master beside one that lives, a restored one that meets its
cluster, a fenced master that follows a wrong address, promises that no promotion asks for."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
import unittest
import uuid

from failover import FOLLOW, PROMOTE, FailoverCase, leads
from nexus_test import BUILD_DIR, free_port

CTL = os.path.join(BUILD_DIR, "nexus-ctl")
PROMISE = "/replication/promise"


class BesideALivingMaster(FailoverCase):
    """A node that would lead only in an epoch that it has yet to begin yields to whoever leads in its log's own."""

    def make_master(self, node):
        node.role = "master"
        node.settings["replication.master_addr"] = None

    def wait_stays_fenced(self, node, master):
        self.wait_fenced(node, by=master)
        node.stop()
        node.start("/health")
        self.wait_fenced(node, by=master)

    def test_01_a_replica_that_is_configured_as_master(self):
        cluster = self.failover_cluster(2, mode="sync")
        master, node, _ = cluster.nodes
        node.kill9()
        written = self.write_many(master, "kept")
        self.make_master(node)
        node.start("/health")
        self.wait_stays_fenced(node, master)
        self.assertTrue(leads(master))
        self.follow(node, master)
        self.wait_follows(node, master)
        self.assert_has(node, written)

    def test_02_one_that_was_restored(self):
        cluster = self.failover_cluster(1)
        made = cluster.master.json("POST", "/replication/snapshot")
        written = self.write_many(cluster.master, "kept")
        new = self.node("master", start=False, name="new", settings=dict(cluster.master.settings))
        new.settings["replication.peers"] = ",".join(node.addr for node in cluster.nodes)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NEXUS_")}
        environment["ASAN_OPTIONS"] = "detect_leaks=0"
        subprocess.run(
            [CTL, "restore", made["path"], "-D", new.data_dir],
            stderr=subprocess.PIPE, env=environment, timeout=60, check=True,
        )
        new.start("/health")
        self.wait_stays_fenced(new, cluster.master)
        self.assertTrue(leads(cluster.master))
        self.assert_has(cluster.master, written)
        # It is what the cluster goes on with if all else is lost.
        for node in cluster.nodes:
            node.kill9()
        self.not_promoted(new, "fenced")
        self.assertEqual(self.promote(new, "?force=1")["epoch"], 2)
        new.put("more", b"v")
        new.stop()
        new.start()
        self.assertTrue(leads(new))

    def test_03_a_master_that_is_silent_at_that_moment_is_told_later(self):
        cluster = self.failover_cluster(1)
        master, node = cluster.nodes
        processes = master.all_processes()
        for process in processes:
            os.kill(process.pid, signal.SIGSTOP)
        try:
            node.stop()
            self.make_master(node)
            node.start("/health")
            self.assertEqual(node.status()["epoch"], 2)
        finally:
            for process in processes:
                os.kill(process.pid, signal.SIGCONT)
        self.wait_fenced(master, by=node)
        self.assertTrue(leads(node))


    def test_04_a_copy_of_the_masters_data(self):
        cluster = self.failover_cluster(1)
        master, node = cluster.nodes
        master.stop()
        copy = self.node("master", start=False, name="copy", settings=dict(master.settings))
        shutil.copytree(master.data_dir, copy.data_dir, symlinks=True)
        # A node's own address among its peers is no copy of it.
        master.settings["replication.peers"] += f",{master.addr}"
        master.start()
        copy.settings["replication.peers"] = f"{node.addr},{master.addr}"
        copy.launch()
        self.assertEqual(copy.wait_exit(), 1)
        copy.wait_log(f"the master at {master.addr} has this node's own id")
        self.assertTrue(leads(master))


class ListedTwice(FailoverCase):
    def test_01_a_node_counts_once(self):
        """A list with one node twice lacks another one, which may have confirmed alone."""
        cluster = self.failover_cluster(2, mode="sync")
        master, node, other = cluster.nodes
        peers = f"{master.addr},{other.addr},localhost:{other.http_port}"
        node.stop()
        node.settings["replication.peers"] = peers
        node.start()
        for query in ("?dry_run=1", ""):
            problem = self.not_promoted(node, "quorum_not_seen", query)
            self.assertIn("replication.peers lists it twice", problem["message"])
        answer = self.promote(node, "?force=1")
        self.assertIs(answer["sync_loss_possible"], True)
        self.wait_fenced(master, by=node)


class Unstored(FailoverCase):
    def test_01_what_cannot_be_stored_is_told_in_the_log(self):
        cluster = self.failover_cluster(1)
        master, node = cluster.nodes
        temporary = os.path.join(node.data_dir, "current", "identity.tmp")
        os.mkdir(temporary)
        promise = json.dumps({"epoch": 2, "node_id": str(uuid.uuid4())})
        follow = json.dumps({"master_addr": master.replication_addr})
        for path, body, what in (
            (PROMISE, promise, "the promise"),
            (FOLLOW, follow, "the address to follow"),
            (PROMOTE, None, "the note of the promotion"),
        ):
            problem = self.assert_problem(self.post(node, path, body), 500, "internal")
            self.assertIn(what, problem["message"])
            node.wait_log(f"ERROR .*{what} can't be stored in .*/identity: ")
        os.rmdir(temporary)
        self.wait_follows(node, master)
        self.promote(node)
        self.wait_fenced(master, by=node)


class WrongAddress(FailoverCase):
    def test_01_a_fenced_master_that_follows_nobody_leads_no_more(self):
        cluster = self.failover_cluster(1, peers=False)
        old, new = cluster.nodes
        self.promote(new)
        self.wait_fenced(old)
        written = self.write_many(new, "kept")
        nobody = json.dumps({"master_addr": f"127.0.0.1:{free_port()}"})
        self.assertEqual(self.post(old, FOLLOW, nobody)[0], 200)
        old.wait_status(role="replica")
        self.not_promoted(old, "fenced")
        # Its configuration, changed to and fro, doesn't make it a master beside the other one either.
        old.stop()
        old.settings["replication.master_addr"] = "127.0.0.1:9"
        old.start("/health")
        self.wait_fenced(old, by=new)
        # Once it has the leader's epoch it is a replica like any other.
        self.follow(old, new)
        self.wait_follows(old, new)
        self.assert_has(old, written)
        new.kill9()
        self.assertEqual(self.promote(old)["epoch"], 3)


class PromisesFarAhead(FailoverCase):
    """A promotion begins an epoch above all promises; others must believe it."""

    def promise(self, node, epoch):
        return node.request(
            "POST", PROMISE, json.dumps({"epoch": epoch, "node_id": str(uuid.uuid4())})
        )

    def test_01_none_is_too_far_for_the_former_master(self):
        for who in (1, 2):  # the promoted node has made the promise; its peer has
            with self.subTest(who=who):
                cluster = self.failover_cluster(2)
                master, node, _ = cluster.nodes
                strange = cluster.nodes[who]
                self.assert_problem(self.promise(strange, 502), 400, "bad_parameter")
                self.assertEqual(self.promise(strange, 501)[0], 200)
                self.assertEqual(self.promote(node)["epoch"], 502)
                self.wait_fenced(master, by=node)

    def test_02_follow_is_the_way_out(self):
        cluster = self.failover_cluster(2, mode="sync")
        master, node, other = cluster.nodes
        self.assertEqual(self.promise(other, 501)[0], 200)
        problem = self.not_promoted(node, "quorum_not_seen")
        self.assertIn("Epoch 501", problem["message"])
        self.assertIn(FOLLOW, problem["message"])
        self.follow(other, master)
        self.wait_follows(other, master)
        self.assertEqual(self.promote(node)["epoch"], 2)
        self.wait_fenced(master, by=node)

    def liar(self, node, epoch):
        """-> the address of a peer that has, by its own word, promised that epoch, and else stands where `node` does"""
        status = {**node.status(), "node_id": str(uuid.uuid4())}
        answers = {
            "GET": (200, status),
            "POST": (409, {"code": "quorum_not_seen", "message": "promised", "epoch": epoch}),
        }

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                code, body = answers[self.command]
                body = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return "127.0.0.1:%d" % server.server_address[1]

    def test_03_a_peer_that_lies(self):
        for claimed, begun in ((1001, 2), (502, 2), (501, 502)):
            with self.subTest(claimed=claimed):
                cluster = self.failover_cluster(1)
                master, node = cluster.nodes
                node.settings["replication.peers"] = f"{master.addr},{self.liar(node, claimed)}"
                node.stop()
                node.start()
                self.assertEqual(self.promote(node)["epoch"], begun)
                self.wait_fenced(master, by=node)


if __name__ == "__main__":
    unittest.main()
