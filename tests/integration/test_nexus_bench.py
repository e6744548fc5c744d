# timeout: 180
"""nexus-bench: what it counts is what the server did, what it measures has no coordinated omission, and whatever goes
wrong is said and shows in the exit status: 1 for a run that wasn't good, 2 for wrong options."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from nexus_test import BUILD_DIR, HOST, NexusTestCase, free_port, secret_file, wait_until

BENCH = os.path.join(BUILD_DIR, "nexus-bench")
TIMEOUT = 60


def start(*options):
    return subprocess.Popen([BENCH, *map(str, options)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def bench(*options):
    """-> (exit status, stdout, stderr)"""
    result = subprocess.run([BENCH, *map(str, options)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=TIMEOUT, check=False)
    return result.returncode, result.stdout, result.stderr


class BenchCase(NexusTestCase):
    def good(self, target, *options):
        """The JSON of a run in which every answer was good."""
        status, out, err = bench("--target", getattr(target, "addr", target), "--json", *options)
        self.assertEqual((status, err), (0, ""), out)
        found = json.loads(out)
        self.assertEqual((found["errors"], found["unanswered"], found["unsent"]), (0, 0, 0))
        return found

    def keys_of(self, node):
        return [json.loads(line)["key"] for line in node.export().splitlines()]


class Usage(BenchCase):
    def test_wrong_options_are_said_and_nothing_else_happens(self):
        for options, said in [
            (["--clinets", "5"], "did you mean --clients?"),
            (["--clients", "none"], '--clients: "none" is not what is expected: a number from 1 to 65536'),
            (["--mix", "set=1"], "get=, put=, delete=, import= or wait="),
            (["--protocol", "sql"], "http, redis or etcd"),
            (["--target", "localhost"], "HOST:PORT"),
            (["--protocol", "etcd", "--pipeline", "2"], "--pipeline: this protocol has one request under way"),
            (["--token-file", "/nonexistent"], "/nonexistent"),
        ]:
            with self.subTest(options=options):
                status, out, err = bench(*options)
                self.assertEqual((status, out), (2, ""), err)
                self.assertTrue(err.startswith("nexus-bench: "), err)
                self.assertIn(said, err)
                self.assertEqual(err.count("\n"), 1)

    def test_help_lists_every_option_and_operation(self):
        status, out, err = bench("--help")
        self.assertEqual((status, err), (0, ""))
        for word in ("--rate N", "--lag HOST:PORT", "--json", "\n  import ", "\n  wait ", "Exit status"):
            self.assertIn(word, out)
        self.assertLessEqual(max(map(len, out.splitlines())), 120)
        status, out, err = bench("--version")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"\Anexus-bench [0-9]+\.[0-9]+\.[0-9]+\n\Z")


class Counts(BenchCase):
    def test_as_many_puts_as_the_server_has_entries(self):
        node = self.node()
        before = node.status()["wal_offset"]
        found = self.good(node, "--requests", 777, "--clients", 5, "--threads", 2, "--pipeline", 3, "--value", 50)
        self.assertEqual(found["operations"], 777)
        self.assertEqual(node.status()["wal_offset"] - before, 777)
        self.assertEqual(sum(found["answers"].values()), 777)
        self.assertLessEqual(set(found["answers"]), {"200", "201"})
        self.assertAlmostEqual(found["operations_per_s"], 777 / found["seconds"], delta=777 / found["seconds"] / 50)
        self.assertAlmostEqual(found["bytes_per_s"], 50 * found["operations_per_s"], delta=1)
        self.assertEqual(
            [found[name] for name in ("protocol", "mix", "clients", "threads", "pipeline", "rate", "value", "order")],
            ["http", "put=1", 5, 2, 3, None, 50, "uniform"])
        latency = found["latency_us"]
        self.assertEqual(found["by_operation"]["put"]["latency_us"], latency)
        self.assertTrue(0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p999"] <= latency["max"])

    def test_a_time_limit_and_a_warm_up_that_counts_nowhere(self):
        node = self.node()
        began = time.monotonic()
        found = self.good(node, "--warmup", "0.4", "--duration", "0.5", "--clients", 4)
        self.assertGreaterEqual(time.monotonic() - began, 0.9)
        self.assertTrue(0.5 <= found["seconds"] < 5, found)
        self.assertLess(found["operations"], node.status()["wal_offset"])
        offset = node.status()["wal_offset"]
        found = self.good(node, "--warmup", "0.3", "--requests", 100, "--clients", 2)
        self.assertEqual(found["operations"], 100)
        self.assertGreater(node.status()["wal_offset"] - offset, 100)

    def test_a_run_that_ends_before_its_time_has_the_time_that_it_took(self):
        found = self.good(self.node(), "--duration", 60, "--requests", 100)
        self.assertEqual(found["operations"], 100)
        self.assertLess(found["seconds"], 60)
        self.assertAlmostEqual(found["operations_per_s"], 100 / found["seconds"], delta=100 / found["seconds"] / 50)

    def test_an_import_goes_through_all_keys_once(self):
        node = self.node()
        found = self.good(node, "--mix", "import=1", "--order", "sequential", "--keys", 2500, "--clients", 2,
                          "--threads", 2, "--value", 20)
        self.assertEqual((found["operations"], found["by_operation"]["import"]["requests"]), (2500, 3))
        self.assertEqual(self.keys_of(node), [f"key:{number:012d}" for number in range(2500)])
        values = [json.loads(line)["value"] for line in node.export().splitlines()]
        self.assertEqual({(len(value), value[10:]) for value in values}, {(20, "x" * 10)})
        self.assertEqual(len({value[:10] for value in values}), 2500)

        found = self.good(node, "--mix", "get=1", "--order", "sequential", "--keys", 2500, "--value", 20)
        self.assertEqual((found["operations"], found["answers"]), (2500, {"200": 2500}))
        self.assertAlmostEqual(found["bytes_per_s"], 20 * found["operations_per_s"], delta=1)

    def test_a_mix_and_its_writes_that_wait_for_a_replica(self):
        cluster = self.cluster()
        before = cluster.master.status()["wal_offset"]
        found = self.good(cluster.master, "--mix", "get=2,put=2,delete=1,import=1,wait=2", "--keys", 50, "--batch", 10,
                          "--requests", 400, "--clients", 8, "--order", "zipf")
        kinds = found["by_operation"]
        self.assertEqual(set(kinds), {"get", "put", "delete", "import", "wait"})
        self.assertEqual(sum(kind["requests"] for kind in kinds.values()), 400)
        self.assertEqual(kinds["import"]["operations"], 10 * kinds["import"]["requests"])
        written = sum(kinds[name]["requests"] for name in ("put", "import", "wait"))
        deletes = kinds["delete"]["requests"]
        self.assertTrue(written <= cluster.master.status()["wal_offset"] - before <= written + deletes)
        cluster.wait_level()
        self.assertEqual(cluster.replica.export(), cluster.master.export())

    def test_a_seed_repeats_keys_and_values(self):
        exports = []
        for seed in (7, 7, 8):
            node = self.node()
            self.good(node, "--seed", seed, "--requests", 300, "--clients", 1, "--keys", 100)
            exports.append(node.export())
            node.stop()
        self.assertEqual(exports[0], exports[1])
        self.assertNotEqual(exports[0], exports[2])

    def test_a_name_with_several_addresses(self):
        node = self.node()  # not on ::1
        self.good(f"localhost:{node.http_port}", "--requests", 5)

    def test_connections_are_spread_over_the_targets(self):
        nodes = [self.node(), self.node()]
        self.good(",".join(node.addr for node in nodes), "--clients", 4, "--threads", 2, "--requests", 400,
                  "--rate", 4000)
        offsets = [node.status()["wal_offset"] for node in nodes]
        self.assertEqual(sum(offsets), 400)
        self.assertGreater(min(offsets), 100)

    def test_large_values_and_long_pipelines(self):
        node = self.node()
        self.good(node, "--value", "1MiB", "--keys", 4, "--requests", 24, "--clients", 2, "--pipeline", 4)
        found = self.good(node, "--mix", "get=1", "--value", "1MiB", "--keys", 4, "--requests", 24, "--clients", 2,
                          "--pipeline", 4)
        self.assertEqual(found["operations"], 24)
        found = self.good(node, "--value", 0, "--keys", 4, "--requests", 5000, "--clients", 2, "--pipeline", 1000)
        self.assertEqual(found["operations"], 5000)


class Trouble(BenchCase):
    def test_keys_that_are_not_there_are_errors(self):
        node = self.node()
        status, out, err = bench("--target", node.addr, "--mix", "get=1", "--requests", 10, "--json")
        found = json.loads(out)
        self.assertEqual((status, found["errors"], found["operations"], found["answers"]), (1, 10, 0, {"404": 10}))
        self.assertIn("10 bad answers; the first: get was answered 404: ", err)
        self.assertIn("key_not_found", err)
        self.good(node, "--mix", "get=1,delete=1", "--requests", 10)

    def test_a_refusal_is_shown_in_its_own_words(self):
        node = self.node()
        status, out, err = bench("--target", node.addr, "--mix", "wait=1", "--requests", 3)
        self.assertEqual(status, 1)
        self.assertIn("3 errors", out)
        self.assertIn("wait was answered 400: ", err)
        self.assertIn("this node is standalone", err)

    def test_a_token_opens_a_server(self):
        node = self.node(start=False)
        token = secret_file(os.path.join(node.directory, "token"), "secret-token\n")
        node.settings["http.auth_token_file"] = token
        node.start()
        status, out, _ = bench("--target", node.addr, "--requests", 1, "--clients", 1, "--json")
        self.assertEqual((status, json.loads(out)["answers"]), (1, {"401": 1}))
        found = self.good(node, "--requests", 5, "--token-file", token)
        self.assertNotIn("secret-token", json.dumps(found))
        self.good(node, "--requests", 5, "--header", "Authorization: Bearer secret-token")

    def test_no_server(self):
        port = free_port()
        status, out, err = bench("--target", f"{HOST}:{port}")
        self.assertEqual((status, out), (1, ""))
        self.assertIn(f"can't connect to {HOST}:{port}: Connection refused; nothing was done", err)

    def test_a_server_that_goes_away(self):
        node = self.node()
        process = start("--target", node.addr, "--clients", 4, "--threads", 2, "--json")
        with process:
            node.wait_until(lambda: node.status()["wal_offset"] > 100, what="writes")
            node.kill9()
            out, err = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(err, rf"ended early: {node.addr}: (the connection was closed|Connection reset by peer)")
        self.assertRegex(err, r"until then [0-9]+ operations done, 0 bad answers")
        self.assertGreater(json.loads(out)["operations"], 0)

    def test_what_is_no_answer(self):
        with socket.create_server((HOST, 0)) as server:
            process = start("--target", f"{HOST}:{server.getsockname()[1]}", "--clients", 1)
            with process:
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"-ERR unknown command\r\n")
                    _, err = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 1)
        self.assertIn("what came is no answer of this --protocol", err)
        self.assertIn("1 request without an answer", err)

    def test_a_signal_ends_it_early_and_what_was_done_is_told(self):
        node = self.node()
        process = start("--target", node.addr, "--clients", 2, "--json")
        with process:
            node.wait_until(lambda: node.status()["wal_offset"] > 10, what="writes")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 1)
        self.assertIn("ended early: stopped by a signal; until then ", err)
        found = json.loads(out)
        self.assertTrue(0 < found["operations"] <= node.status()["wal_offset"])
        self.assertLess(found["seconds"], 9)


class OpenLoop(BenchCase):
    RATE = 200
    SECONDS = 4
    PAUSE = 1.5

    def run_with_a_pause(self, *options):
        """A run of SECONDS, in which the writer of the log stands still for PAUSE."""
        node = self.node()
        process = start("--target", node.addr, "--duration", self.SECONDS, "--json", *options)
        with process:
            node.wait_until(lambda: node.status()["wal_offset"] > 20, what="writes")
            walwriter = node.kill_child("walwriter", signal.SIGSTOP)
            try:
                time.sleep(self.PAUSE)
            finally:
                os.kill(walwriter, signal.SIGCONT)
            out, err = process.communicate(timeout=TIMEOUT)
        self.assertEqual((process.returncode, err), (0, ""))
        return node, json.loads(out)

    def test_a_pause_of_the_server_shows_in_full(self):
        # One connection could hide all but one of the requests that a pause delays.
        node, found = self.run_with_a_pause("--rate", self.RATE, "--clients", 1)
        self.assertEqual(found["operations"], self.RATE * self.SECONDS)  # what was due is made up for
        self.assertEqual(node.status()["wal_offset"], self.RATE * self.SECONDS)
        latency = {name: value / 1e6 for name, value in found["latency_us"].items()}
        self.assertGreater(latency["max"], 0.95 * self.PAUSE)
        # 3/8 of all requests were due in the pause; those of its first quarter waited for 3/4 of it.
        self.assertGreater(latency["p99"], 0.8 * self.PAUSE)
        self.assertGreater(latency["p90"], 0.5 * self.PAUSE)

    def test_a_closed_loop_asks_nothing_in_a_pause(self):
        _, found = self.run_with_a_pause("--clients", 1)
        latency = {name: value / 1e6 for name, value in found["latency_us"].items()}
        self.assertGreater(latency["max"], 0.95 * self.PAUSE)
        self.assertLess(latency["p90"], 0.5 * self.PAUSE)

    def test_a_rate_is_kept(self):
        node = self.node()
        found = self.good(node, "--rate", 1000, "--requests", 500, "--clients", 16, "--threads", 2)
        self.assertEqual((found["operations"], found["rate"]), (500, 1000))
        self.assertTrue(0.49 < found["seconds"] < 5, found["seconds"])


class Lag(BenchCase):
    def test_how_long_a_write_takes_to_a_replica(self):
        cluster = self.cluster()
        found = self.good(cluster.master, "--lag", cluster.replica.addr, "--requests", 25)
        self.assertEqual((found["operations"], found["clients"], found["mix"]), (25, 1, "lag"))
        self.assertEqual(cluster.master.status()["wal_offset"], 25)
        self.assertGreaterEqual(found["polls"], 1)
        self.assertGreater(found["latency_us"]["p50"], 0)

    def test_a_value_that_never_comes_is_waited_for(self):
        nodes = [self.node(), self.node()]
        process = start("--target", nodes[0].addr, "--lag", nodes[1].addr, "--requests", 1)
        with process:
            nodes[0].wait_offset(1)
            self.assertIsNone(process.poll())
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=TIMEOUT)
        self.assertIn(" 0 operations in ", out)


class Others(BenchCase):
    """Real servers of the other protocols, where they are installed."""

    def server(self, port, *command):
        directory = tempfile.mkdtemp(prefix="nexus-bench-")
        self.addCleanup(shutil.rmtree, directory)
        with open(os.path.join(directory, "log"), "wb") as log:
            process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def answers():
            with socket.socket() as probe:
                return probe.connect_ex((HOST, port)) == 0

        wait_until(answers, what=f"{command[0]} on port {port}")
        return f"{HOST}:{port}"

    def check_all_operations(self, protocol, addr, **extra):
        run = ("--protocol", protocol, "--keys", 300, "--batch", 100, "--clients", 4)
        found = self.good(addr, *run, "--mix", "import=1", "--order", "sequential")
        self.assertEqual((found["operations"], found["by_operation"]["import"]["requests"]), (300, 3))
        found = self.good(addr, *run, "--mix", "get=1", "--order", "sequential")
        self.assertEqual((found["operations"], found["answers"]), (300, {"ok": 300}))
        self.assertAlmostEqual(found["bytes_per_s"], 100 * found["operations_per_s"], delta=1)
        found = self.good(addr, *run, "--mix", "get=1,put=1,delete=1", "--requests", 300)
        self.assertEqual(found["operations"], 300)
        found = self.good(addr, *run, "--value", 300000, "--requests", 20)
        self.assertEqual(found["operations"], 20)
        found = self.good(addr, "--protocol", protocol, "--lag", addr, "--requests", 5)
        self.assertEqual((found["operations"], found["polls"]), (5, 1))
        status, _, err = bench("--target", addr, "--protocol", protocol, "--mix", "get=1", "--requests", 1)
        self.assertEqual(status, 1)
        self.assertIn("there is no such key", err)

    @unittest.skipUnless(shutil.which("redis-server"), "redis-server is not installed")
    def test_redis(self):
        master_port, replica_port = free_port(), free_port()
        options = ("--save", "", "--appendonly", "no", "--bind", HOST)
        addr = self.server(master_port, "redis-server", "--port", str(master_port), *options)
        self.check_all_operations("redis", addr)
        found = self.good(addr, "--protocol", "redis", "--pipeline", 16, "--requests", 1000, "--threads", 2)
        self.assertEqual(found["operations"], 1000)
        replica = self.server(replica_port, "redis-server", "--port", str(replica_port), *options,
                              "--repl-diskless-sync-delay", "0", "--replicaof", HOST, str(master_port))
        self.good(addr, "--protocol", "redis", "--mix", "wait=1", "--requests", 50, "--clients", 4)
        found = self.good(addr, "--protocol", "redis", "--lag", replica, "--requests", 5)
        self.assertEqual(found["operations"], 5)
        status, _, err = bench("--target", replica, "--protocol", "redis", "--requests", 1)
        self.assertEqual(status, 1)
        self.assertIn("put was answered: -READONLY", err)

    @unittest.skipUnless(shutil.which("etcd"), "etcd is not installed")
    def test_etcd(self):
        port, peer = free_port(), f"http://{HOST}:{free_port()}"
        client = f"http://{HOST}:{port}"
        addr = self.server(port, "etcd", "--data-dir", "data", "--listen-client-urls", client,
                           "--advertise-client-urls", client, "--listen-peer-urls", peer,
                           "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}")
        self.check_all_operations("etcd", addr)
        status, _, err = bench("--target", addr, "--protocol", "etcd", "--mix", "import=1", "--requests", 1)
        self.assertEqual(status, 1)
        self.assertIn("import was answered: a gRPC error; a transaction takes 128 puts", err)


if __name__ == "__main__":
    unittest.main()
