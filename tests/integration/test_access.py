# timeout: 180
"""Who is served: tokens of HTTP and of replication (docs/http.md, "Access"), and their files."""

import json
import os
import re
import signal
import subprocess
import time
import unittest
import uuid

import nexus_wire as wire
from failover import FailoverCase
from nexus_test import SERVER, NexusTestCase, secret_file

AUTH = "auth-token-of-the-test"
READ = "read-token-of-the-test"
NODE = "node-token-of-the-test"
OPEN = ("/", "/health", "/ready", "/primary", "/replica")
REALM = 'Bearer realm="nexus"'


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


class AccessCase(NexusTestCase):
    def token_file(self, node, name, token, mode=0o600):
        return secret_file(os.path.join(node.directory, name), token + "\n", mode)

    def guarded(self, read=True, replication=False, **options):
        node = self.node("master", start=False, **options)
        node.settings["http.auth_token_file"] = self.token_file(node, "auth", AUTH)
        if read:
            node.settings["http.read_token_file"] = self.token_file(node, "read", READ)
        if replication:
            node.settings["replication.token_file"] = self.token_file(node, "node", NODE)
        node.start()
        return node

    def assert_unauthorized(self, answer):
        status, headers, _ = answer
        self.assertEqual(headers["WWW-Authenticate"], REALM)
        return self.assert_problem(answer, 401, "unauthorized")


class Http(AccessCase):
    def test_01_each_token_opens_what_it_is_for(self):
        node = self.guarded()
        writes = (
            ("PUT", "/kv/k", b"v"),
            ("POST", "/batch", b'{"ops":[]}'),
            ("DELETE", "/kv/absent", None),
            ("POST", "/replication/snapshot", None),
            ("DELETE", "/replication/snapshot/x", None),
        )
        for method, path, body in writes:
            with self.subTest(f"{method} {path}"):
                self.assert_unauthorized(node.request(method, path, body))
                self.assert_unauthorized(node.request(method, path, body, bearer("wrong")))
                answer = node.request(method, path, body, bearer(READ))
                self.assert_problem(answer, 403, "token_required")
                self.assertNotIn(node.request(method, path, body, bearer(AUTH))[0], (401, 403))
        for path in ("/kv/k", "/kv", "/export", "/replication/status", "/replication/entry/1"):
            for method in ("GET", "HEAD"):
                with self.subTest(f"{method} {path}"):
                    status, headers, _ = node.request(method, path)
                    self.assertEqual((status, headers["WWW-Authenticate"]), (401, REALM))
                    for token in (READ, AUTH):
                        self.assertEqual(node.request(method, path, None, bearer(token))[0], 200)
        for path in OPEN:
            self.assertNotIn(node.request("GET", path)[0], (401, 403), path)
        self.assertIs(node.json("GET", "/replication/status", headers=bearer(READ))["open_access"], False)

    def test_02_reads_need_the_auth_token_where_there_is_no_other(self):
        node = self.guarded(read=False)
        self.assert_unauthorized(node.request("GET", "/kv/k"))
        self.assertEqual(node.request("GET", "/kv/k", None, bearer(AUTH))[0], 404)

    def test_03_what_is_no_bearer_token(self):
        node = self.guarded()
        for value in (
            AUTH,
            f"Basic {AUTH}",
            f"Bearer{AUTH}",
            "Bearer",
            "Bearer ",
            f"Bearer {AUTH}x",
            f"Bearer {AUTH[:-1]}",
            f"Bearer {AUTH.upper()}",
            f"Bearer {AUTH} {AUTH}",
            "Bearer " + "x" * 9000,
        ):
            with self.subTest(value[:60]):
                self.assert_unauthorized(node.request("GET", "/kv/k", None, {"Authorization": value}))
        twice = f"Authorization: Bearer {AUTH}\r\n" * 2
        answer = node.raw_http(f"GET /kv/k HTTP/1.1\r\nHost: localhost\r\n{twice}\r\n".encode())
        self.assertTrue(answer.startswith(b"HTTP/1.1 401 "), answer[:100])
        for value in (f"bearer {AUTH}", f"BEARER   {AUTH}", f"Bearer {AUTH}  "):
            with self.subTest(value):
                self.assertEqual(node.request("GET", "/kv/k", None, {"Authorization": value})[0], 404)

    def test_04_a_guarded_node_and_strangers(self):
        """Promote, stop, follow and snapshot; foreign pages; a name that was bound anew; unknown paths and methods."""
        node = self.guarded()
        for path in ("promote", "stop", "follow", "snapshot"):
            for headers in ({}, bearer("wrong")):
                self.assert_unauthorized(node.request("POST", f"/replication/{path}", None, headers))
        foreign = {**bearer(AUTH), "Origin": "http://elsewhere.example"}
        self.assert_problem(node.request("POST", "/replication/stop", None, foreign), 403, "cross_origin")
        rebound = {**bearer(AUTH), "Host": "rebound.example"}  # with a token no harm is done
        self.assertEqual(node.request("GET", "/replication/status", None, rebound)[0], 200)
        self.assert_unauthorized(node.request("GET", "/replication/stop"))
        answer = node.request("GET", "/replication/stop", None, bearer(AUTH))
        self.assert_problem(answer, 405, "method_not_allowed")
        self.assert_unauthorized(node.request("GET", "/no/such"))
        node.wait_log("a request of 127.0.0.1:[0-9]+ is refused: it shows no token")
        self.assertTrue(node.is_running())

    def test_05_the_unix_socket_needs_none(self):
        node = self.guarded()
        self.assertEqual(node.unix_client().request("PUT", "/kv/k", b"v")[0], 201)
        ctl = os.path.join(os.path.dirname(SERVER), "nexus-ctl")
        for command in ("status", "snapshot"):
            done = subprocess.run([ctl, command, "-D", node.data_dir], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done)

    def test_06_who_asks_for_a_change_is_logged(self):
        node = self.guarded()
        node.request("POST", "/replication/snapshot", None, bearer(AUTH))
        node.wait_log("POST /replication/snapshot is asked for by 127.0.0.1:[0-9]+")
        self.assertNotIn(AUTH, node.log())

    def test_08_a_token_opens_to_anybody_what_addresses_open_to_nobody(self):
        node = self.guarded(settings={"http.allow_without_token": "none"})
        node.wait_log(r"served without a token: by HTTP nobody but the Unix socket \(http.auth_token_file\), as a replica loopback and")
        self.assertEqual(node.request("GET", "/health")[0], 200)
        self.assert_unauthorized(node.request("GET", "/kv/k"))
        self.assertEqual(node.request("GET", "/kv/k", None, bearer(READ))[0], 404)

    def test_09_what_is_open_to_all_is_so_by_get_alone(self):
        node = self.guarded()
        for path in OPEN:
            status, _, _ = node.request("HEAD", path)
            self.assertNotIn(status, (401, 403), path)
            answer = node.request("POST", path)
            self.assert_problem(answer, 405, "method_not_allowed")

    def test_07_without_tokens_promotion_and_the_rest_are_for_known_names(self):
        node = self.node("master")
        for path in ("promote", "stop", "snapshot"):
            answer = node.request("POST", f"/replication/{path}", None, {"Host": "rebound.example"})
            self.assert_problem(answer, 403, "cross_origin")
            foreign = {"Origin": "http://elsewhere.example"}
            self.assert_problem(node.request("POST", f"/replication/{path}", None, foreign), 403, "cross_origin")


class Files(AccessCase):
    def test_01_a_file_that_cannot_be_trusted_or_read(self):
        scratch = self.node("master", start=False)
        good = self.token_file(scratch, "good", AUTH)
        for key in ("http.auth_token_file", "replication.token_file"):
            self.assert_not_started(f"{key} = /nowhere/x: it can't be opened: No such file", **{key: "/nowhere/x"})
            for mode in (0o644, 0o604, 0o602, 0o660):
                path = self.token_file(scratch, "loose", AUTH, mode)
                self.assert_not_started(rf"{key} = {path}: others can read or change it \(mode 0{mode:o}\)", **{key: path})
            for text in ("", "two words", "two\nlines", "x" * 257, "tab\there", "\x7f"):
                path = self.token_file(scratch, "bad", text)
                self.assert_not_started(f"{key} = {path}: it must hold one line", **{key: path})
            self.assert_not_started("no regular file", **{key: scratch.directory})
        self.assert_not_started("http.read_token_file needs http.auth_token_file", **{"http.read_token_file": good})
        both = {"http.read_token_file": good, "http.auth_token_file": good}
        self.assert_not_started("hold the same token", **both)
        other = self.token_file(scratch, "other", READ)
        read = {"http.auth_token_file": good, "http.read_token_file": other, "replication.token_file": other}
        self.assert_not_started("read_token_file and replication.token_file hold the same token", **read)

    def test_02_a_token_is_changed_by_a_reload(self):
        node = self.guarded()
        old = node.client()
        self.assertEqual(old.request("PUT", "/kv/k", b"v", bearer(AUTH))[0], 201)
        self.token_file(node, "auth", "the-next-one")
        os.kill(node.pid, signal.SIGHUP)
        node.wait_log("configuration reloaded: 1 key changed: http.auth_token_file")
        node.wait_until(lambda: old.request("GET", "/kv/k", None, bearer("the-next-one"))[0] == 200)
        node.wait_until(lambda: old.request("GET", "/kv/k", None, bearer(AUTH))[0] == 401)
        mark = node.log_mark()
        self.token_file(node, "auth", "two words")
        os.kill(node.pid, signal.SIGHUP)
        node.wait_log("the configuration stays as it was: .*auth_token_file.*must hold one line", since=mark)
        self.assertEqual(old.request("GET", "/kv/k", None, bearer("the-next-one"))[0], 200)

    def test_05_a_reload_that_opens_the_node_says_so(self):
        node = self.node("master", start=False)
        config = os.path.join(node.directory, "nexus.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"[http]\nauth_token_file = {self.token_file(node, 'auth', AUTH)}\n")
        os.makedirs(node.data_dir, 0o700)
        os.rename(config, os.path.join(node.data_dir, "nexus.conf"))
        node.start()
        mark = node.log_mark()
        os.unlink(os.path.join(node.data_dir, "nexus.conf"))
        os.kill(node.pid, signal.SIGHUP)
        node.wait_log("served without a token: by HTTP loopback and private networks", since=mark)

    @unittest.skipUnless(os.geteuid() == 0, "only root can give a file away")
    def test_04_a_file_of_somebody_else(self):
        path = self.token_file(self.node("master", start=False), "given", AUTH)
        os.chown(path, 12345, -1)
        self.assert_not_started("it belongs to uid 12345", **{"http.auth_token_file": path})
        os.chown(path, 0, -1)
        os.mkfifo(path + ".fifo", 0o600)
        self.assert_not_started("no regular file", **{"http.auth_token_file": path + ".fifo"})

    def test_03_printed_configurations_have_no_token(self):
        node = self.guarded()
        options = [f"--{key}={value}" for key, value in node.settings.items()]
        result = node.run("-D", node.data_dir, "--print-config", *options)
        self.assertIn("auth_token_file", result.stdout)
        self.assertNotIn(AUTH, result.stdout + node.log())


class Replication(AccessCase, FailoverCase):
    def test_01_a_hello_needs_the_token(self):
        node = self.guarded(replication=True)
        for token in ("", "wrong", NODE[:-1], NODE + "x"):
            with self.subTest(token), wire.RawPeer(node.replication_port) as peer:
                peer.send(wire.build_hello(token=token))
                error = peer.recv()
                self.assertEqual((error.type, error.code), (wire.ERROR, 3))
                self.assertIn("replication.token_file", error.message)
                self.assertIsNone(peer.recv())
        with wire.RawPeer(node.replication_port) as peer:
            peer.send(wire.build_hello(token=NODE))
            self.assertEqual(peer.recv().type, wire.WELCOME)
        self.assertNotIn(NODE, node.log())

    def test_02_promises_are_for_nodes(self):
        node = self.node("master", start=False)
        node.settings["replication.token_file"] = self.token_file(node, "node", NODE)
        node.start()
        body = json.dumps({"epoch": 5, "node_id": str(uuid.uuid4())})
        for method in ("POST", "DELETE"):
            self.assert_unauthorized(node.request(method, "/replication/promise", body))
            answer = node.request(method, "/replication/promise", body, bearer(NODE))
            self.assertNotIn(answer[0], (401, 403), answer)
        guarded = self.guarded(replication=True)
        self.assertEqual(guarded.request("GET", "/replication/status", None, bearer(NODE))[0], 200)
        answer = guarded.request("POST", "/replication/stop", None, bearer(NODE))
        self.assert_problem(answer, 403, "token_required")
        for method, path in (
            ("PUT", "/kv/k"), ("GET", "/kv/k"), ("GET", "/export"), ("GET", "/replication/snapshot"),
            ("GET", f"/replication/snapshot/{uuid.uuid4()}/file"), ("GET", "/replication/diverged"),
            ("GET", "/replication/entry/1"), ("GET", "/replication/replicas"),
        ):
            answer = guarded.request(method, path, b"", bearer(NODE))
            self.assert_problem(answer, 403, "token_required")

    def hello(self, node, token, **fields):
        with wire.RawPeer(node.replication_port) as peer:
            peer.send(wire.build_hello(token=token, **fields))
            return peer.recv()

    def test_05_the_replication_token_opens_what_nodes_ask_where_no_address_does(self):
        """Peers must find out who leads, and get promises, from a node that serves no stranger."""
        node = self.node("master", start=False, settings={"http.allow_without_token": "none"})
        node.settings["replication.token_file"] = self.token_file(node, "node", NODE)
        node.start()
        ask = node.client().request
        node.wait_until(lambda: ask("GET", "/replication/status", None, bearer(NODE))[0] == 200)
        for token in ({}, bearer("wrong")):
            self.assert_problem(ask("GET", "/replication/status", None, token), 403, "token_required")
        for method, path in (("POST", "/replication/stop"), ("POST", "/replication/promote"), ("GET", "/kv/k")):
            self.assert_problem(ask(method, path, None, bearer(NODE)), 403, "token_required")

    def test_06_the_token_is_changed_by_a_reload(self):
        """Sessions that stand are left alone; from then on a Hello needs the new one, and a replica shows it."""
        cluster = self.cluster(1, start=False, settings={"replication.heartbeat_ms": 200})
        for node in cluster.nodes:
            node.settings["replication.token_file"] = self.token_file(node, "node", NODE)
        cluster.start()
        master, replica = cluster.master, cluster.replica
        for node in (master, replica):
            mark = node.log_mark()
            self.token_file(node, "node", "the-next-one")
            os.kill(node.pid, signal.SIGHUP)
            node.wait_log("configuration reloaded: 1 key changed: replication.token_file", since=mark)
        self.assertEqual(self.hello(master, NODE).code, wire.ERROR_AUTH)
        self.assertEqual(self.hello(master, "the-next-one").type, wire.WELCOME)
        master.put("k", b"v")
        cluster.wait_level()
        self.assertEqual(replica.status()["state"], "streaming")
        master.kill9()
        master.start()
        replica.wait_status(connected=True)

    def test_07_a_claim_without_the_token_fences_nobody(self):
        node = self.node("master", start=False)
        node.settings["replication.token_file"] = self.token_file(node, "node", NODE)
        node.start()
        node.put("k", b"v")
        cluster_id, leader = node.status()["cluster_id"], uuid.uuid4()
        with wire.RawPeer(node.replication_port) as peer:
            peer.send(wire.build_hello(token=NODE, cluster_id=cluster_id))
            ours = peer.recv_type(wire.WELCOME).epochs
        frame = wire.encode_entry(4, 2, 7, [wire.epoch_op(str(leader))])
        record = (2, 4, str(leader), wire.frame_crc(frame))
        proven = {
            "cluster_id": cluster_id,
            "last_wal_offset": 8,
            "last_epoch": 2,
            "last_crc": 1,
            "advertised_addr": "127.0.0.1:15998",
            "resume_snapshot_id": "",
            "epochs": ours + wire.build_epochs(record),
            "claim": frame,
        }
        for token in ("", "wrong"):
            self.assertEqual(self.hello(node, token, **proven).code, wire.ERROR_AUTH)
            self.assertNotEqual(node.status()["state"], "fenced")
            node.put("k", b"w")
        self.assertEqual(self.hello(node, NODE, **proven).code, wire.ERROR_FENCED)
        node.wait_status(state="fenced")

    def test_08_wrong_tokens_do_not_fill_the_log(self):
        node = self.node("master", start=False)
        node.settings["replication.token_file"] = self.token_file(node, "node", NODE)
        node.start()
        began = time.monotonic()
        for _ in range(110):
            self.assertEqual(self.hello(node, "wrong").code, wire.ERROR_AUTH)
        node.stop()
        lines = re.findall(r"127.0.0.1:[0-9]+ refused, Error 3", node.log())
        periods = 2 + int((time.monotonic() - began) / 10)  # of 50 lines each
        self.assertGreaterEqual(len(lines), 50)
        self.assertLessEqual(len(lines), 50 * periods)

    def tokens(self, cluster, replication):
        for node in cluster.nodes:
            node.settings["http.auth_token_file"] = self.token_file(node, "auth", AUTH)
            if replication:
                node.settings["replication.token_file"] = self.token_file(node, "node", NODE)

    def follows(self, node):
        status, _, body = node.unix_client().request("GET", "/replication/status")
        return status == 200 and json.loads(body)["connected"]

    def test_03_a_cluster_of_three_fails_over_with_tokens(self):
        for replication in (True, False):
            with self.subTest(replication):
                cluster = self.cluster(2, start=False, settings={"replication.heartbeat_ms": 200})
                self.introduce(cluster.nodes)
                self.tokens(cluster, replication)
                cluster.start()
                master, (first, second) = cluster.master, cluster.replicas
                status, headers, _ = master.request("PUT", "/kv/k", b"v", bearer(AUTH))
                self.assertEqual(status, 201)
                for node in (first, second):
                    node.wait_until(lambda: node.request("GET", "/kv/k", None, bearer(AUTH))[0] == 200)
                master.kill9()
                status, _, body = first.request("POST", "/replication/promote", None, bearer(AUTH), timeout=60)
                answer = json.loads(body)
                self.assertEqual((status, answer["unreached_peers"]), (200, [master.addr]), answer)
                follow = json.dumps({"master_addr": first.replication_addr})
                status, _, body = second.request("POST", "/replication/follow", follow, bearer(AUTH))
                self.assertEqual(status, 200, body)
                self.assertEqual(first.request("PUT", "/kv/l", b"w", bearer(AUTH))[0], 201)
                second.wait_until(lambda: second.request("GET", "/kv/l", None, bearer(AUTH))[0] == 200)
                for node in (first, second):
                    self.assertNotIn(AUTH, node.log())

    def test_04_a_replica_without_the_token_is_told_what_to_do(self):
        master = self.guarded(replication=True)
        replica = self.node(
            "replica", wait=None, settings={"replication.master_addr": master.replication_addr}
        )
        replica.wait_log("wants a token, and the Hello has none: set replication.token_file")


if __name__ == "__main__":
    unittest.main()
