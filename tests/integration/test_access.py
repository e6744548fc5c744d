# timeout: 180
"""Who is served: tokens of HTTP and of replication (docs/http.md, "Access"), their files, and the user that the server
becomes."""

import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import unittest
import uuid

import nexus_wire as wire
from failover import FailoverCase
from nexus_test import SERVER, NexusTestCase

AUTH = "auth-token-of-the-test"
READ = "read-token-of-the-test"
NODE = "node-token-of-the-test"
OPEN = ("/", "/health", "/ready", "/primary", "/replica")
REALM = 'Bearer realm="nexus"'


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


class AccessCase(NexusTestCase):
    def token_file(self, node, name, token, mode=0o600):
        path = os.path.join(node.directory, name)
        if os.path.exists(path):
            os.unlink(path)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, mode), "w", encoding="ascii") as file:
            file.write(token + "\n")
        os.chmod(path, mode)
        return path

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
        done = subprocess.run([ctl, "status", "-D", node.data_dir], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done)

    def test_06_who_asks_for_a_change_is_logged(self):
        node = self.guarded()
        node.request("POST", "/replication/snapshot", None, bearer(AUTH))
        node.wait_log("POST /replication/snapshot is asked for by 127.0.0.1:[0-9]+")
        self.assertNotIn(AUTH, node.log())

    def test_07_without_tokens_promotion_and_the_rest_are_for_known_names(self):
        node = self.node("master")
        for path in ("promote", "stop", "snapshot"):
            answer = node.request("POST", f"/replication/{path}", None, {"Host": "rebound.example"})
            self.assert_problem(answer, 403, "cross_origin")
            foreign = {"Origin": "http://elsewhere.example"}
            self.assert_problem(node.request("POST", f"/replication/{path}", None, foreign), 403, "cross_origin")


class Files(AccessCase):
    def refused(self, pattern, **settings):
        node = self.node("master", start=False)
        options = [f"--{key}={value}" for key, value in settings.items()]
        result = node.run("-D", node.data_dir, *options)
        self.assertEqual(result.returncode, 1, result)
        self.assertRegex(result.stderr, pattern)
        self.assertFalse(os.path.exists(node.data_dir))

    def test_01_a_file_that_cannot_be_trusted_or_read(self):
        scratch = self.node("master", start=False)
        good = self.token_file(scratch, "good", AUTH)
        for key in ("http.auth_token_file", "replication.token_file"):
            self.refused(f"{key} = /nowhere/x: it can't be opened: No such file", **{key: "/nowhere/x"})
            for mode in (0o644, 0o604, 0o602, 0o660):
                path = self.token_file(scratch, "loose", AUTH, mode)
                self.refused(rf"{key} = {path}: others can read or change it \(mode 0{mode:o}\)", **{key: path})
            for text in ("", "two words", "two\nlines", "x" * 257, "tab\there", "\x7f"):
                path = self.token_file(scratch, "bad", text)
                self.refused(f"{key} = {path}: it must hold one line", **{key: path})
            self.refused("no regular file", **{key: scratch.directory})
        self.refused("http.read_token_file needs http.auth_token_file", **{"http.read_token_file": good})
        both = {"http.read_token_file": good, "http.auth_token_file": good}
        self.refused("hold the same token", **both)

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
        for method, path in (("PUT", "/kv/k"), ("GET", "/kv/k"), ("GET", "/export")):
            answer = guarded.request(method, path, b"", bearer(NODE))
            self.assert_problem(answer, 403, "token_required")

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


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class User(NexusTestCase):
    """server.user; and what of the server's files and memory others may see."""

    USER = "daemon"

    def started(self, **settings):
        node = self.node("master", start=False, settings={"server.user": self.USER, **settings})
        os.chmod(node.directory, 0o755)
        return node

    def test_01_root_becomes_another_user(self):
        node = self.started()
        node.start()
        node.put("k", b"v")
        uid = pwd.getpwnam(self.USER).pw_uid
        for process in node.all_processes():
            with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
                fields = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
            self.assertEqual(set(fields["Uid"].split()), {str(uid)})
            self.assertEqual(int(fields["CapEff"], 16), 0)
        for directory, _, names in os.walk(node.data_dir):
            for name in [*names, ""]:
                info = os.lstat(os.path.join(directory, name))
                self.assertEqual(info.st_uid, uid, os.path.join(directory, name))
        node.stop()
        node.start()
        self.assertEqual(node.get("k"), b"v")
        self.assertNotIn("runs as root", node.log())

    def test_02_users_that_cannot_be(self):
        for user, pattern in (("no-such-user", "there is no such user"),):
            node = self.node("master", start=False, settings={"server.user": user})
            node.launch()
            self.assertEqual(node.wait_exit(), 1)
            self.assertRegex(node.log(), pattern)
        node = self.node("master", start=False)
        node.start()
        node.stop()
        node.settings["server.user"] = self.USER
        os.chmod(node.directory, 0o755)
        node.launch()
        self.assertEqual(node.wait_exit(), 1)
        self.assertRegex(node.log(), "belongs to uid 0, but this server runs as uid [0-9]+")

    def test_03_a_secret_that_the_user_cannot_read(self):
        node = self.started()
        path = os.path.join(node.directory, "auth")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
            file.write(AUTH)
        node.settings["http.auth_token_file"] = path
        node.launch()
        self.assertEqual(node.wait_exit(), 1)
        self.assertRegex(node.log(), f"user {self.USER} .* can't read {path}")
        os.chown(path, pwd.getpwnam(self.USER).pw_uid, -1)
        node.start()


class Modes(NexusTestCase):
    def test_nobody_else_can_read_anything(self):
        before = set(os.listdir("/dev/shm"))
        node = self.node("master")
        node.put("k", b"v")
        node.export()
        status, _, _ = node.request("POST", "/replication/snapshot?wait=1", timeout=60)
        self.assertEqual(status, 200)
        loose = []
        for directory, _, names in os.walk(node.data_dir):
            for name in [*names, "."]:
                path = os.path.join(directory, name)
                info = os.lstat(path)
                if not stat.S_ISLNK(info.st_mode) and info.st_mode & 0o077:
                    loose.append((path, oct(info.st_mode)))
        self.assertEqual(loose, [])
        for name in set(os.listdir("/dev/shm")) - before:
            try:
                self.assertEqual(os.stat(os.path.join("/dev/shm", name)).st_mode & 0o077, 0, name)
            except FileNotFoundError:
                pass

    def test_the_socket_is_the_owner_s(self):
        node = self.node("master")
        path = os.path.join(node.data_dir, "nexus.sock")
        self.assertEqual(stat.S_IMODE(os.lstat(path).st_mode), 0o600)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)


if __name__ == "__main__":
    unittest.main()
