# timeout: 300
"""The HTTP side of failover and nexus-ctl's, as far as one node alone shows it: wrong roles, bad parameters and
bodies, the master that is asked to become one, offsets with an epoch. See test_promote.py for what changes a
role."""

import http.server
import json
import os
import socketserver
import subprocess
import threading
import unittest
import uuid

from nexus_test import BUILD_DIR, HOST, NexusTestCase, free_port

CTL = os.path.join(BUILD_DIR, "nexus-ctl")
PROMOTE = "/replication/promote"
FOLLOW = "/replication/follow"
PROMISE = "/replication/promise"
MESSAGE = "Replica promoted to master. Start master manually if needed."
MEMBERS = [
    "success",
    "message",
    "detail",
    "old_epoch",
    "epoch",
    "offset",
    "missing_entries",
    "master_seconds_ago",
    "master_answers",
    "unreached_peers",
    "sync_loss_possible",
    "warnings",
]
ADDR = "10.0.0.9:15475"


def lonely(**settings):
    """Settings of a replica whose master isn't there."""
    return {"replication.master_addr": f"{HOST}:{free_port()}", **settings}


class RoleCase(NexusTestCase):
    def of(self, role):
        settings = lonely() if role == "replica" else None
        return self.node(role, settings=settings)

    def refused(self, node, method, path, body=None, status=400, code="bad_parameter"):
        """-> the message"""
        return self.assert_problem(node.request(method, path, body), status, code)["message"]


class Promote(RoleCase):
    def test_01_a_master_is_one_already(self):
        master = self.of("master")
        master.put("k", b"v")
        for query in ("", "?dry_run=1", "?force=true", "?dry_run=false&force=0"):
            with self.subTest(query=query):
                status, headers, body = master.request("POST", PROMOTE + query)
                self.assertEqual((status, headers.get_content_type()), (200, "application/json"))
                answer = json.loads(body)
                self.assertEqual(list(answer), MEMBERS)
                self.assertEqual(
                    list(answer.values()),
                    [
                        True,
                        MESSAGE,
                        "this node is the master already; nothing was changed",
                        1,
                        1,
                        1,
                        0,
                        None,
                        False,
                        [],
                        False,
                        [],
                    ],
                )
        self.assertEqual(master.status()["epoch"], 1)
        self.assertEqual(master.put("k", b"w"), 2)

    def test_02_wrong_roles(self):
        message = self.refused(self.of("standalone"), "POST", PROMOTE, None, 409, "wrong_role")
        self.assertIn("standalone", message)
        self.assertIn("replication.role", message)
        replica = self.of("replica")
        for query in ("", "?force=1", "?dry_run=1"):
            message = self.refused(replica, "POST", PROMOTE + query, None, 409, "wrong_role")
            self.assertIn("never synced with its master", message)
        self.assertEqual(replica.status()["role"], "replica")

    def test_03_parameters(self):
        master = self.of("master")
        message = self.refused(master, "POST", PROMOTE + "?dryrun=1")
        self.assertIn("did you mean 'dry_run'", message)
        for query in ("force=yes", "force=", "dry_run=2", "force=1&force=1", "to=1"):
            self.refused(master, "POST", f"{PROMOTE}?{query}")

    def test_04_methods(self):
        master = self.of("master")
        for path, allow in (
            (PROMOTE, "POST, OPTIONS"),
            (FOLLOW, "POST, OPTIONS"),
            (PROMISE, "POST, DELETE, OPTIONS"),
        ):
            status, headers, _ = master.request("OPTIONS", path)
            self.assertEqual((status, headers["Allow"]), (204, allow))
            for method in ("GET", "PUT", "HEAD"):
                status, headers, _ = master.request(method, path)
                self.assertEqual((status, headers["Allow"]), (405, allow), f"{method} {path}")
            self.refused(master, "POST", path + "/", None, 404, "no_such_endpoint")
        listed = {(row["method"], row["path"]) for row in master.json("GET", "/")["endpoints"]}
        self.assertLessEqual(
            {("POST", PROMOTE), ("POST", FOLLOW), ("POST", PROMISE), ("DELETE", PROMISE)}, listed
        )


class Follow(RoleCase):
    def test_01_wrong_roles(self):
        body = json.dumps({"master_addr": ADDR})
        message = self.refused(self.of("standalone"), "POST", FOLLOW, body, 409, "wrong_role")
        self.assertIn("standalone", message)
        master = self.of("master")
        for force in (False, True):
            body = json.dumps({"master_addr": ADDR, "force": force})
            message = self.refused(master, "POST", FOLLOW, body, 409, "wrong_role")
            self.assertIn("a master that leads follows nobody", message)
        self.assertEqual(master.put("k", b"v"), 1)

    def test_02_bodies(self):
        replica = self.of("replica")
        expected = '{"master_addr": "host:port", "force"?: true}'
        for body, code, says in (
            (None, "bad_json", "empty"),
            ("", "bad_json", "empty"),
            ("{", "bad_json", "too early"),
            ("[]", "bad_json", "object"),
            ("{}", "bad_json", '"master_addr"'),
            ("{'master_addr': 1}", "bad_json", ""),
            ('{"master_addr": "h:1", "master_addr": "h:2"}', "bad_json", "twice"),
            ('{"master_addr": "h:1", "role": 1}', "bad_json", '"role"'),
            ('{"master_addr": "h:1", "force": "yes"}', "bad_json", "true or false"),
            ('{"master_addr": "nowhere"}', "bad_parameter", "host:port"),
            ('{"master_addr": "0.0.0.0:15475"}', "bad_parameter", "any address"),
        ):
            with self.subTest(body=body):
                message = self.refused(replica, "POST", FOLLOW, body, 400, code)
                self.assertIn(says, message)
                self.assertIn(expected, message)
        own = json.dumps({"master_addr": replica.replication_addr})
        self.assertIn("own", self.refused(replica, "POST", FOLLOW, own))
        self.refused(replica, "POST", FOLLOW + "?force=1", "{}")

    def test_03_a_body_is_small(self):
        replica = self.of("replica")
        for path, method in ((FOLLOW, "POST"), (PROMISE, "POST"), (PROMISE, "DELETE")):
            body = json.dumps({"x": "y" * 4096})
            message = self.refused(replica, method, path, body, 413, "value_too_large")
            self.assertIn("4096 bytes", message)
            pieces = iter([body.encode()])
            self.assertEqual(replica.request(method, path, pieces)[0], 413)
            self.refused(replica, method, path, " " * 4094 + "{}", 400, "bad_json")
        status, _, _ = replica.request(
            "POST", FOLLOW, "{}", {"Content-Encoding": "gzip"}
        )
        self.assertEqual(status, 415)


class Promise(RoleCase):
    def test_01_wrong_roles_and_bodies(self):
        good = json.dumps({"epoch": 2, "node_id": str(uuid.uuid4())})
        standalone = self.of("standalone")
        replica = self.of("replica")
        own = json.dumps({"epoch": 2, "node_id": replica.status()["node_id"].upper()})
        for method in ("POST", "DELETE"):
            self.refused(standalone, method, PROMISE, good, 409, "wrong_role")
            for body, code, says in (
                (None, "bad_json", "empty"),
                ("{}", "bad_json", '"epoch"'),
                ('{"epoch": 0, "node_id": ""}', "bad_json", '"epoch"'),
                ('{"epoch": 1}', "bad_json", '"node_id"'),
                ('{"epoch": 1, "node_id": "x"}', "bad_parameter", "UUID"),
                (own, "bad_parameter", "node's own"),
                (good[:-1] + ', "x": 1}', "bad_json", '"x"'),
            ):
                with self.subTest(method=method, body=body):
                    self.assertIn(says, self.refused(replica, method, PROMISE, body, 400, code))


class Epochs(RoleCase):
    """N@E on a node in epoch 1."""

    def test_01_conditions(self):
        master = self.of("master")
        self.assertEqual(master.put("k", b"v"), 1)
        ask = lambda method, tag, header: master.request(method, "/kv/k", b"w", {header: tag})
        self.assertEqual(ask("GET", "1@1", "If-None-Match")[0], 304)
        self.assertEqual(ask("GET", '"1@1", 9', "If-None-Match")[0], 304)
        self.assertEqual(ask("PUT", "2@1", "If-Match")[0], 412)
        self.assertEqual(ask("PUT", "0@1", "If-Match")[0], 412)
        for method, tag in (("GET", "1@2"), ("PUT", "1@2"), ("DELETE", "1@2"), ("PUT", "9@2")):
            for header in ("If-Match", "If-None-Match"):
                with self.subTest(method=method, tag=tag, header=header):
                    problem = self.assert_problem(
                        ask(method, tag, header), 410, "history_changed"
                    )
                    self.assertEqual((problem["offset"], problem["epoch"]), (1, 1))
        # A read is judged by what is here: a later epoch's entry isn't.
        self.assertEqual(ask("GET", "9@2", "If-None-Match")[0], 200)
        self.assertEqual(ask("GET", "9@2", "If-Match")[0], 412)
        self.assertEqual(ask("PUT", "1@1", "If-Match")[0], 200)

    def test_02_batches(self):
        master = self.of("master")
        self.assertEqual(master.put("k", b"v"), 1)

        def batch(*offsets):
            conditions = [{"key": "k", "offset": offset} for offset in offsets]
            body = {"if": conditions, "ops": [{"put": {"key": "j", "value": "v"}}]}
            return master.request("POST", "/batch", json.dumps(body))

        self.assert_problem(batch("1@2"), 410, "history_changed")
        self.assert_problem(batch(1, "1@1", "7@2"), 410, "history_changed")
        self.assertIsNone(master.get("j"))
        self.assert_problem(batch("2@1"), 412, "precondition_failed")
        self.assertEqual(batch("1@1", 1, "1")[0], 200)

    def test_03_an_offset_that_never_comes_is_not_the_masters_to_ask_for(self):
        for role in ("standalone", "master"):
            node = self.node(role, settings={"http.request_timeout_ms": 300})
            node.put("k", b"v")
            read = lambda offset: node.request("GET", "/kv/k", None, {"Nexus-Min-Offset": offset})
            self.assertEqual(read("1@1")[0], 200)
            self.assert_problem(read("1@2"), 410, "history_changed")
            for offset in ("2", "2@1", "2@2"):
                problem = self.assert_problem(read(offset), 504, "min_offset_timeout")
                self.assertNotIn("ask the master", problem["message"])
                self.assertIn("nothing with that offset was written here", problem["message"])


class OneAnswer(http.server.BaseHTTPRequestHandler):
    """Answers everything with server.answer, and keeps what was asked."""

    def answer(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        self.server.asked.append((self.command, self.path, body))
        status, content = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    do_POST = do_DELETE = answer

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        pass


class UnixServer(socketserver.UnixStreamServer):
    asked, answer = [], (200, "{}")


class Ctl(NexusTestCase):
    def ctl(self, node, *arguments):
        return subprocess.run(
            [CTL, *arguments, "-D", node.data_dir],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=node.environment(),
            timeout=60,
            check=False,
        )

    def assert_ctl(self, done, status, out="", error=""):
        said = f"{done.args}: {done.stdout}{done.stderr}"
        self.assertEqual(done.returncode, status, said)
        self.assertRegex(done.stdout, f"(?s)^{out}$", said)
        self.assertRegex(done.stderr, f"(?s)^{error}$", said)

    def stand_in(self, node):
        """Takes the place of the node's socket; its `answer` is what it says to all."""
        path = os.path.join(node.data_dir, "nexus.sock")
        os.unlink(path)
        server = UnixServer(path, OneAnswer)
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def end():
            server.shutdown()
            thread.join()
            server.server_close()

        self.addCleanup(end)
        return server

    def test_01_what_the_server_refuses(self):
        node = self.node("standalone")
        refused = "nexus-ctl: This endpoint is for masters and replicas only[^{}]*\n"
        self.assert_ctl(self.ctl(node, "promote"), 1, "", refused)
        self.assert_ctl(self.ctl(node, "promote", "--dry-run", "--force"), 1, "", refused)
        self.assert_ctl(self.ctl(node, "follow", ADDR), 1, "", refused)
        node.stop()
        self.assert_ctl(self.ctl(node, "promote"), 1, "", "nexus-ctl: no server runs in .*")
        self.assert_ctl(self.ctl(node, "follow", ADDR), 1, "", "nexus-ctl: no server runs in .*")

    def test_02_a_master_already(self):
        node = self.node("master")
        node.put("k", b"v")
        said = r"this node is the master already \(epoch 1, offset 1\); nothing was changed\n"
        self.assert_ctl(self.ctl(node, "promote"), 0, said)
        self.assert_ctl(self.ctl(node, "promote", "-s"), 0)

    def test_03_usage(self):
        node = self.node("master")
        for arguments, error in (
            (["follow"], "follow: name the master's"),
            (["follow", "a:1", "b:1"], "'b:1' behind follow"),
            (["follow", "a:1", "--dry-run"], "follow takes no --dry-run"),
            (["follow", "nowhere"], "'nowhere' isn't an address"),
            (["follow", "a:b"], "'a:b' isn't an address"),
            (["follow", "a:1\"}"], "isn't an address"),
            (["promote", "now"], "'now' behind promote"),
            (["promote", "--dryrun"], "unknown option --dryrun"),
            (["promote", "--", "--http.workers=1"], "no options for the server"),
            (["stop", "--force"], "stop takes no --force"),
            (["status", "--dry-run"], "status takes no --dry-run"),
            (["promoet"], "did you mean 'promote'"),
            (["folow"], "did you mean 'follow'"),
        ):
            with self.subTest(arguments=arguments):
                self.assert_ctl(self.ctl(node, *arguments), 1, "", f"nexus-ctl: .*{error}.*")
        done = self.ctl(node, "--help")
        for command in ("promote", "follow"):
            self.assertRegex(done.stdout, rf"(?m)^  {command} ")

    def test_04_what_it_makes_of_the_answers(self):
        node = self.node("master")
        server = self.stand_in(node)
        figures = {
            "old_epoch": 1,
            "epoch": 2,
            "offset": 123,
            "missing_entries": 0,
            "master_seconds_ago": 16,
            "master_answers": False,
            "unreached_peers": [],
            "sync_loss_possible": False,
            "warnings": [],
        }
        frame = {"success": True, "message": MESSAGE, "detail": "d"}
        begun = "promoted: epoch 1 -> 2, at offset 123;"
        none = f"{begun} no entry of the former master is known to be missing here\n"
        heard = "the former master was last heard 16 s ago; what it wrote after that is not known\n"
        rows = (
            ({}, none + heard, ""),
            (
                {"missing_entries": 1, "master_seconds_ago": None},
                f"{begun} 1 entry of the former master is missing here\n"
                "the former master was not heard since this node's start; what it had is not known\n",
                "",
            ),
            (
                {"missing_entries": 42, "master_answers": True, "sync_loss_possible": True},
                f"{begun} 42 entries of the former master are missing here\n"
                "the former master still answers: what it writes until it is fenced is missing here too\n"
                "writes that the former master confirmed to its clients may be missing here\n",
                "",
            ),
            (
                {
                    "unreached_peers": ["10.0.0.7:15474", "[fd00::1]:15474"],
                    "warnings": ['one "quoted" [a], \\ b', "another: \"epoch\": 9"],
                },
                none + heard +
                "not reached: 10.0.0.7:15474\nnot reached: [fd00::1]:15474\n",
                'nexus-ctl: warning: one "quoted" [a], \\ b\n'
                'nexus-ctl: warning: another: "epoch": 9\n',
            ),
        )
        for changes, out, error in rows:
            for separators in ((",", ":"), (", ", ": ")):
                text = json.dumps({**frame, **figures, **changes}, separators=separators)
                server.answer = (200, text + "\n")
                done = self.ctl(node, "promote")
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, out, error))
        server.answer = (200, json.dumps({**frame, **figures}))
        done = self.ctl(node, "promote", "--dry-run")
        self.assertEqual(
            done.stdout,
            "would be " + none + heard + "nothing was changed\n",
        )
        server.answer = (409, '{"status":409,"code":"quorum_not_seen","message":"Only \\"1\\"."}')
        done = self.ctl(node, "promote", "--force")
        self.assertEqual((done.returncode, done.stderr), (1, 'nexus-ctl: Only "1".\n'))

    def test_05_what_it_asks(self):
        node = self.node("master")
        server = self.stand_in(node)
        server.answer = (200, '{"success":true}')
        for arguments, asked in (
            (["promote"], ("POST", PROMOTE, "")),
            (["promote", "--dry-run"], ("POST", PROMOTE + "?dry_run=1", "")),
            (["promote", "--force"], ("POST", PROMOTE + "?force=1", "")),
            (["--force", "promote", "--dry-run"], ("POST", PROMOTE + "?dry_run=1&force=1", "")),
            (["follow", ADDR], ("POST", FOLLOW, {"master_addr": ADDR})),
            (
                ["follow", "--force", "[fd00::1%eth0]:1"],
                ("POST", FOLLOW, {"master_addr": "[fd00::1%eth0]:1", "force": True}),
            ),
        ):
            with self.subTest(arguments=arguments):
                server.asked.clear()
                done = self.ctl(node, *arguments)
                self.assertEqual(done.returncode, 0, done)
                method, path, body = server.asked[0]
                self.assertEqual((method, path, json.loads(body) if body else ""), asked)
        self.assertEqual(done.stdout, "this node follows [fd00::1%eth0]:1 now\n")


if __name__ == "__main__":
    unittest.main()
