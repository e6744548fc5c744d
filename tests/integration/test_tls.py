# timeout: 240
"""TLS of the HTTP interface and of the replication stream (docs/tls.md)."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest
import warnings

import certificates
import nexus_wire as wire
from certificates import Authority
from failover import FOLLOW, PROMOTE, FailoverCase
from full_sync import SMALL, FullSyncCase, put_many, random_pairs
from nexus_test import SOURCE_DIR, NexusTestCase, secret_file, wait_until


HALF_A_HELLO = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb"  # the first bytes of a ClientHello of 16 KiB


def shows(port, pair):
    """Whether a connection is shown this pair's certificate."""
    certificate = ssl.get_server_certificate(("127.0.0.1", port))
    with open(pair[0], encoding="ascii") as file:
        return certificate.strip() == file.read().strip()


class TlsCase(NexusTestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="nexus-tls-")
        cls.authority = Authority(cls.directory)
        cls.pair = cls.authority.sign("node")
        cls.stranger = Authority(cls.directory, "stranger")
        cls.foreign = cls.stranger.sign("foreign")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.directory)

    def https(self, pair=None, **options):
        node = self.node("master", start=False, **options)
        node.settings.update(certificates.http(pair or self.pair))
        node.ca = self.authority.cert
        return node

    def drip(self, sock):
        """Sends a byte at a time from here on, for as long as the other side takes it."""
        peer = wire.RawPeer(sock=sock, timeout=60)
        thread = threading.Thread(target=peer.drip, args=(bytes(10000), 0.05))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(peer.close)  # which ends it


class Http(TlsCase):
    def test_01_what_http_does(self):
        node = self.https()
        node.start()
        value = os.urandom(8 << 20)
        self.assertEqual(node.put("large", value), 1)
        self.assertEqual(node.get("large"), value)
        lines = b"".join(b'{"key":"i%05d","value":"v"}\n' % n for n in range(20000))
        self.assertEqual(node.import_lines(lines)["imported"], 20000)
        exported = node.export()
        self.assertEqual(exported.count(b"\n"), 20001)
        status, headers, _ = node.request("HEAD", "/kv/large")
        self.assertEqual((status, int(headers["Content-Length"])), (200, len(value)))
        node.json("POST", "/replication/snapshot?wait=1", timeout=60)
        status, _, content = node.request("GET", "/replication/snapshot/last/file", timeout=60)
        self.assertEqual((status, content[:4]), (200, b"\x28\xb5\x2f\xfd"))
        self.assertEqual(node.unix_client().get("i00000"), b"v")

    def test_02_pipelining_changes_and_curl(self):
        node = self.https()
        node.start()
        context = ssl.create_default_context(cafile=self.authority.cert)
        with context.wrap_socket(socket.create_connection(("127.0.0.1", node.http_port)), server_hostname="localhost") as sock:
            request = b"PUT /kv/p%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv"
            sock.sendall(b"".join(request % n for n in range(50)))
            answers = b""
            while answers.count(b"HTTP/1.1 201") < 50:
                piece = sock.recv(65536)
                self.assertTrue(piece, answers)
                answers += piece
        curl = ["curl", "-sS", "--noproxy", "*", "--cacert", self.authority.cert]
        url = f"https://localhost:{node.http_port}"
        done = subprocess.run([*curl, f"{url}/kv/p7"], capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, b"v"), done)
        follower = subprocess.Popen([*curl, "-N", f"{url}/changes?since=0"], stdout=subprocess.PIPE)
        self.addCleanup(follower.stdout.close)
        events = b""
        while events.count(b"\nid: ") + events.startswith(b"id: ") < 50:
            events += os.read(follower.stdout.fileno(), 65536)
        node.stop()
        self.assertEqual(follower.wait(20), 0)

    def test_08_what_is_refused(self):
        """Clients refuse an authority they don't know and a name that isn't the server's; the server an old TLS."""
        node = self.https()
        node.start()
        curl = ["curl", "-sS", "--noproxy", "*"]
        elsewhere = ["--resolve", f"elsewhere.example:{node.http_port}:127.0.0.1"]
        for authority, options, host in (
            (self.stranger, [], "localhost"),
            (self.authority, elsewhere, "elsewhere.example"),
        ):
            url = f"https://{host}:{node.http_port}/health"
            command = [*curl, "--cacert", authority.cert, *options, url]
            done = subprocess.run(command, capture_output=True, check=False)
            self.assertEqual(done.returncode, 60, done)  # its certificate isn't good
        node.wait_log(r"an HTTPS connection of .* does not accept the certificate of this one \(http.tls_cert_file\)")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", node.http_port)) as sock:
            with self.assertRaises(ssl.SSLError) as refused:
                old.wrap_socket(sock)
        self.assertEqual(refused.exception.reason, "TLSV1_ALERT_PROTOCOL_VERSION")

    def test_09_a_certificate_out_of_its_time(self):
        """Reported at start and by a reload, and no reason not to serve."""
        pair = [path + ".aging" for path in self.pair]
        expired = self.authority.sign("expired", days=-1)
        for source, target in zip(expired, pair):
            shutil.copy(source, target)
        node = self.https(pair)
        node.launch()
        node.wait_log(r"WARN .* http.tls_cert_file = .*: the certificate was good until 20..-..-..: .*reload")
        node.wait_log("ready: role")
        self.assertEqual(node.unix_client().put("k", b"v"), 1)
        for source, target in zip(self.pair, pair):
            os.replace(shutil.copy(source, source + ".copy"), target)
        mark = node.log_mark()
        os.kill(node.pid, signal.SIGHUP)
        node.wait_log("configuration reloaded", since=mark)
        self.assertNotIn("good until", node.log()[mark:])
        soon = self.authority.sign("soon", days=10)
        for source, target in zip(soon, pair):
            os.replace(shutil.copy(source, source + ".copy"), target)
        os.kill(node.pid, signal.SIGHUP)
        node.wait_log(r"the certificate is good until 20..-..-..: put a new one there and reload before that")
        node.wait_until(lambda: self.serves(node), what="the new certificate")

    def serves(self, node):
        try:
            return node.client().get("k") == b"v"
        except ssl.SSLError:
            return False  # the old one still

    def test_03_strangers_at_the_port(self):
        """Plain HTTP, bytes that are nothing, half a handshake, silence: none keeps others waiting."""
        node = self.https()
        node.settings["http.request_timeout_ms"] = 1500
        node.settings["http.workers"] = 1
        node.start()
        self.assertFalse(node.raw_http(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP"))
        node.wait_log("an HTTPS connection of 127.0.0.1:[0-9]+ failed: the other side does not speak TLS")
        silent = [socket.create_connection(("127.0.0.1", node.http_port)) for _ in range(20)]
        for sock in silent[::2]:
            sock.sendall(HALF_A_HELLO)
        self.drip(silent[0])
        self.assertEqual(node.put("k", b"v"), 1)
        for sock in silent:
            sock.settimeout(20)
            try:
                self.assertEqual(sock.recv(1), b"")  # its time is over
            except ConnectionResetError:
                self.assertIs(sock, silent[0])  # what it still sent was not read
            sock.close()

    def test_04_more_connections_than_may_be(self):
        node = self.https()
        node.settings["http.max_connections"] = 3  # and one is the test's own
        node.settings["http.workers"] = 1
        node.start()
        kept = [node.client() for _ in range(2)]
        for client in kept:
            self.assertEqual(client.request("GET", "/health")[0], 200)
        status, _, body = node.client().request("GET", "/health")
        self.assertEqual((status, json.loads(body)["code"]), (503, "overloaded"))

    def test_05_another_certificate_by_a_reload(self):
        pair = [path + ".current" for path in self.pair]
        for source, target in zip(self.pair, pair):
            shutil.copy(source, target)
        node = self.https(pair)
        node.start()
        old = node.client()
        self.assertEqual(old.put("k", b"v"), 1)
        stop = threading.Event()
        failures = []

        def writes():
            number = 0
            while not stop.is_set():
                try:
                    node.client().put(f"w{number}", b"v")
                except OSError as error:
                    failures.append(error)
                number += 1

        writing = threading.Thread(target=writes)
        writing.start()
        try:
            for source, target in zip(self.authority.sign("renewed"), pair):
                os.replace(source, target)
            os.kill(node.pid, signal.SIGHUP)
            node.wait_log("configuration reloaded")
            node.wait_log("certificates, keys and authorities were read again")
            node.wait_until(lambda: shows(node.http_port, pair), what="the new certificate")
        finally:
            stop.set()
            writing.join()
        self.assertEqual(failures, [])
        self.assertEqual(old.get("k"), b"v")  # its connection went on
        with open(pair[1], "w", encoding="ascii") as file:
            file.write("no key\n")
        os.kill(node.pid, signal.SIGHUP)
        node.wait_log("the configuration stays as it was: http.tls_key_file = .* it must hold the private key")
        self.assertEqual(node.client().get("k"), b"v")

    def test_06_files_that_cannot_be_used(self):
        cert, key = self.pair
        loose, pipe = (os.path.join(self.directory, name) for name in ("loose.key", "pipe"))
        os.mkfifo(pipe)
        shutil.copy(key, loose)
        os.chmod(loose, 0o644)
        for section in ("http", "replication"):
            names = (f"{section}.tls_cert_file", f"{section}.tls_key_file")
            self.assert_not_started("go together: set both, or none", **{names[0]: cert})
            self.assert_not_started("go together: set both, or none", **{names[1]: key})
            self.assert_not_started(rf"{names[0]} = /nowhere: .*No such file", **{names[0]: "/nowhere", names[1]: key})
            self.assert_not_started(rf"{names[0]} = .*no regular file", **{names[0]: pipe, names[1]: key})
            self.assert_not_started(rf"{names[1]} = /nowhere: it can't be opened", **{names[0]: cert, names[1]: "/nowhere"})
            self.assert_not_started(rf"{names[1]} = .*others can read", **{names[0]: cert, names[1]: loose})
            self.assert_not_started(rf"{names[1]} = .*key values mismatch", **{names[0]: cert, names[1]: self.foreign[1]})
            self.assert_not_started(rf"{names[0]} = .*as PEM", **{names[0]: key, names[1]: key})
        ca = "replication.tls_ca_file"
        self.assert_not_started("needs replication.tls_cert_file", **{ca: cert})
        settings = certificates.replication(self.pair)
        self.assert_not_started(f"{ca} = .*as PEM", **settings, **{ca: key})


    def test_07_clients_that_end_their_side(self):
        """Who still listens gets the whole answer; who is gone before it is taken leaves no connection behind."""
        node = self.https()
        node.settings["http.max_connections"] = 3  # and one is the test's own
        node.start()
        value = os.urandom(8 << 20)
        node.put("large", value)
        context = ssl.create_default_context(cafile=self.authority.cert)
        for listens in (True, False, False, False):
            plain = socket.socket()
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # the server can't be rid of it at once
            plain.connect(("127.0.0.1", node.http_port))
            with context.wrap_socket(plain, server_hostname="localhost") as sock:
                sock.settimeout(60)
                sock.sendall(b"GET /kv/large HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = sock.recv(65536)
                socket.socket.shutdown(sock, socket.SHUT_WR)  # SSLSocket's own would give up TLS
                while listens and (piece := sock.recv(65536)):
                    answer += piece
            self.assertEqual(answer.endswith(b"\r\n\r\n" + value), listens)
        for _ in range(2):  # all three places are free again but the test's
            client = node.client()
            node.wait_until(lambda: client.request("GET", "/health")[0] == 200, what="a place for a client")


class Replication(TlsCase, FullSyncCase):
    def tls_master(self, pair=None, authority=True, **settings):
        node = self.node("master", start=False, settings={**SMALL, **settings})
        ca = self.authority if authority else None
        node.settings.update(certificates.replication(pair or self.pair, ca))
        node.start()
        return node

    def tls_replica(self, addr, pair=None, authority=True, **settings):
        ca = self.authority if authority else None
        return self.replica(addr, **certificates.replication(pair or self.pair, ca), **settings)

    def test_01_streaming_full_sync_and_deaths(self):
        master = self.tls_master()
        put_many(master, random_pairs("k", 100, 20000))
        master.export()
        replica = self.tls_replica(master.replication_addr)  # by a full sync
        self.assert_level(master, replica)
        put_many(master, random_pairs("l", 300, 3000))
        self.assert_level(master, replica)
        for node, kind in ((master, "walsender"), (replica, "walreceiver")):
            old = node.kill_child(kind)
            node.wait_replaced(kind, old)
            put_many(master, random_pairs(kind, 50, 3000))
            self.assert_level(master, replica)

    def test_02_sync_writes_are_confirmed(self):
        settings = {"replication.mode": "sync", "replication.sync_timeout_ms": 20000}
        master = self.tls_master(**settings)
        replica = self.tls_replica(master.replication_addr)
        master.wait_written()
        put_many(master, random_pairs("k", 200, 500))
        self.assert_level(master, replica)

    def test_03_who_is_not_of_the_cluster_is_refused(self):
        master = self.tls_master()
        master.put("k", b"v")
        for pair, fault in (
            (self.foreign, "unable to get local issuer certificate"),
            (self.authority.sign("late", days=-1), "certificate has expired"),
        ):
            mark = master.log_mark()
            replica = self.tls_replica(master.replication_addr, pair)
            master.wait_log(f"the other side's certificate is not accepted: {fault}", since=mark)
            replica.wait_log(r"does not accept the certificate of this one \(replication.tls_cert_file\)")
            replica.kill9()
        self.assertEqual(master.status()["replica_count"], 0)
        with socket.create_connection(("127.0.0.1", master.replication_port)) as sock:  # not TLS at all
            sock.sendall(wire.build_hello())
            sock.settimeout(20)
            self.assertLess(len(sock.recv(100)), 10)  # an alert at most
        master.wait_log("the other side does not speak TLS")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority.cert)
        plain = socket.create_connection(("127.0.0.1", master.replication_port))
        with self.assertRaises((OSError, AssertionError)):
            with context.wrap_socket(plain, server_hostname="localhost") as sock:  # without a certificate
                sock.sendall(wire.build_hello())
                self.assertNotEqual(sock.recv(100), b"")

    def test_04_a_master_that_is_not_who_it_should_be(self):
        for pair in (self.foreign, self.authority.sign("elsewhere", "DNS:elsewhere.example")):
            with self.subTest(pair[0]):
                master = self.tls_master(pair, authority=False)
                replica = self.tls_replica(master.replication_addr)
                replica.wait_log("the other side's certificate is not accepted: ")
                self.assertEqual(replica.status()["wal_offset"], 0)

    def test_05_one_side_without_tls(self):
        plain = self.master()
        replica = self.tls_replica(plain.replication_addr)
        plain.wait_log("0x16, which is how TLS begins: replication.tls_cert_file must be set on all nodes")
        replica.wait_log(r"the other side does not speak TLS, which is configured here \(replication.tls_cert_file\)")
        master = self.tls_master()
        replica = self.replica(master.replication_addr, name="plain")
        master.wait_log(r"the other side does not speak TLS, which is configured here \(replication.tls_cert_file\)")
        replica.wait_log("replication.tls_cert_file (must be )?set on (both|all) nodes")

    def test_06_slow_and_silent_handshakes(self):
        """They end with the time for a Hello, and a replica connects meanwhile."""
        master = self.tls_master(**{"replication.connect_timeout_ms": 1500})
        silent = [socket.create_connection(("127.0.0.1", master.replication_port)) for _ in range(8)]
        for sock in silent[::2]:
            sock.sendall(HALF_A_HELLO)
        self.drip(silent[0])
        replica = self.tls_replica(master.replication_addr)
        master.put("k", b"v")
        self.assert_level(master, replica)
        for sock in silent:
            sock.settimeout(30)
            try:
                while sock.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            sock.close()

    def test_08_a_certificate_that_has_expired_is_no_death(self):
        """Of either side: nobody takes over from a master that lives."""
        late = self.authority.sign("expired", days=-1)
        quick = {"replication.heartbeat_ms": 200, "replication.missed_heartbeats_threshold": 5}
        for number, side in enumerate(("master", "replica")):
            with self.subTest(side):
                pairs = {name: [f"{path}.{name}{number}" for path in self.pair] for name in ("master", "replica")}
                for pair in pairs.values():
                    for source, target in zip(self.pair, pair):
                        shutil.copy(source, target)
                master = self.tls_master(pairs["master"], **quick)
                fired = os.path.join(master.directory, "fired")
                command = {"replication.failover_command": f"touch {fired}", **quick}
                replica = self.tls_replica(master.replication_addr, pairs["replica"], **command)
                self.assert_level(master, replica)
                for source, target in zip(late, pairs[side]):
                    os.replace(shutil.copy(source, target + ".new"), target)
                node = {"master": master, "replica": replica}[side]
                os.kill(node.pid, signal.SIGHUP)
                node.wait_log("certificates, keys and authorities were read again")
                mark = master.log_mark()
                replica.kill_child("walreceiver")
                # Each attempt comes later than a heartbeat after the last: the limit has passed by then.
                master.wait_until(lambda: master.log()[mark:].count("certificate") > 8, 60)
                self.assertNotIn("appears dead", replica.log())
                self.assertFalse(os.path.exists(fired))
                master.kill9()
                replica.wait_until(lambda: os.path.exists(fired))

    def test_09_a_stranger_in_a_dead_master_s_place_is_no_life(self):
        """Neither by a certificate of its own, nor by the master's without its key, nor by an alert."""
        quick = {"replication.heartbeat_ms": 200, "replication.missed_heartbeats_threshold": 5}
        late = self.authority.sign("late", days=-1)
        replayed = certificates.without_key(late, late[1] + ".forged")
        for what, pair in (("its own", self.foreign), ("the master's", replayed), ("alert", None)):
            with self.subTest(what):
                master = self.tls_master(**quick)
                replica = self.tls_replica(master.replication_addr, **quick)
                self.assert_level(master, replica)
                master.kill9()
                with certificates.Impostor(master.replication_port, pair):
                    replica.wait_log("the connection to the master broke: ")
                    replica.wait_log("appears dead")
                    replica.wait_status(master_alive=False)

    def test_07_another_certificate_by_a_reload(self):
        """Who streams goes on; who comes is judged by the new files, and by the old ones if those can't be used."""
        pair = [path + ".stream" for path in self.pair]

        def change(source):
            for old, new in zip(source, pair):
                os.replace(shutil.copy(old, new + ".new"), new)
            mark = master.log_mark()
            os.kill(master.pid, signal.SIGHUP)
            master.wait_log("configuration reloaded|configuration stays as it was", since=mark)

        for source, target in zip(self.pair, pair):
            shutil.copy(source, target)
        master = self.tls_master(pair)
        replica = self.tls_replica(master.replication_addr)
        self.assert_level(master, replica)
        change(self.foreign)
        self.assertNotEqual(master.pids("walsender"), [])
        put_many(master, random_pairs("k", 20, 100))
        self.assert_level(master, replica)
        mark = replica.log_mark()
        replica.kill_child("walreceiver")
        replica.wait_log("the other side's certificate is not accepted: ", since=mark)
        change((self.pair[0], self.foreign[1]))
        self.assertTrue(shows(master.replication_port, self.foreign))
        change(self.pair)
        put_many(master, random_pairs("l", 20, 100))
        self.assert_level(master, replica)


class Failover(TlsCase, FailoverCase):
    def test_a_cluster_of_three(self):
        """Nodes ask each other by HTTPS, dial each other by TLS, and the old master is fenced."""
        cluster = self.cluster(2, start=False, settings={"replication.heartbeat_ms": 200})
        self.introduce(cluster.nodes)
        for node in cluster.nodes:
            node.settings.update(certificates.http(self.pair))
            node.settings.update(certificates.replication(self.pair, self.authority))
            node.ca = self.authority.cert
        self.start_level(cluster)
        master, (first, second) = cluster.master, cluster.replicas
        refused = first.request("PUT", "/kv/x", b"v")
        problem = self.assert_problem(refused, 403, "read_only_replica")
        self.assertEqual(problem["master"], f"https://{master.addr}")
        master.kill9()
        self.wait_promotable(first, second)
        answer = first.json("POST", PROMOTE, timeout=60)
        self.assertEqual(answer["unreached_peers"], [master.addr])
        second.json("POST", FOLLOW, json.dumps({"master_addr": first.replication_addr}))
        self.wait_follows(second, first)
        master.launch()
        master.wait_until(
            lambda: master.is_running() and self.fenced(master), what="the old master, fenced"
        )

    def test_a_peer_with_a_certificate_of_strangers(self):
        """Its HTTP interface counts as not reached, and a promotion says why; the stream has its own files."""
        cluster = self.cluster(2, start=False, settings={"replication.heartbeat_ms": 200})
        self.introduce(cluster.nodes)
        master, (first, second) = cluster.master, cluster.replicas
        for node in cluster.nodes:
            pair, authority = (self.foreign, self.stranger) if node is second else (self.pair, self.authority)
            node.settings.update(certificates.http(pair))
            node.settings.update(certificates.replication(self.pair, self.authority))
            node.ca = authority.cert
        self.start_level(cluster)
        master.kill9()
        self.wait_promotable(first, second)
        answer = first.json("POST", PROMOTE, timeout=60)
        self.assertEqual(set(answer["unreached_peers"]), {master.addr, second.addr})
        text = " ".join(answer["warnings"])
        self.assertIn(f"{second.addr} (the other side's certificate is not accepted: ", text)
        self.assertIn(f"{master.addr} (no connection)", text)

    def fenced(self, node):
        try:
            status, _, body = node.unix_client().request("GET", "/replication/status")
        except OSError:
            return False
        return status == 200 and json.loads(body)["state"] == "fenced"


class Mirror(TlsCase):
    def test_https_and_tokens(self):
        nodes = []
        for name in ("source", "target"):
            node = self.https(name=name)
            node.settings["http.auth_token_file"] = secret_file(os.path.join(node.directory, "token"), name)
            nodes.append(node.start())
        source, target = nodes
        tokens = [node.settings["http.auth_token_file"] for node in nodes]
        bearer = {"Authorization": "Bearer source"}
        self.assertEqual(source.put("k", b"v", headers=bearer), 1)
        command = [os.path.join(SOURCE_DIR, "scripts", "nexus-mirror"), "--ca-file", self.authority.cert]
        command += ["--from", f"https://{source.addr}", "--to", f"https://{target.addr}"]
        command += ["--token-file", tokens[0], "--to-token-file", tokens[1]]
        mirror = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(mirror.wait, 20)
        self.addCleanup(mirror.terminate)
        bearer = {"Authorization": "Bearer target"}
        target.wait_until(lambda: target.get("k", bearer) == b"v", what="the mirrored key")


class Documentation(NexusTestCase):
    def test_the_commands_of_the_page(self):
        with open(os.path.join(SOURCE_DIR, "docs", "tls.md"), encoding="utf-8") as file:
            text = file.read()
        commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        node = self.node("master", start=False)
        script = "set -eu\n" + "".join(block for block in commands if block.startswith("openssl"))
        subprocess.run(["bash", "-c", script], cwd=node.directory, check=True, capture_output=True)
        settings = re.search(r"```ini\n(.*?)```", text, re.DOTALL).group(1)
        path = os.path.join(node.directory, "nexus.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(settings.replace("/etc/nexus", node.directory))
        node.env["NEXUS_CONFIG"] = path
        node.ca = os.path.join(node.directory, "ca.pem")
        node.start()
        (curl,) = [block for block in commands if block.startswith("curl")]
        command = curl.replace("15474", str(node.http_port)).replace("curl", "curl -fsS --noproxy '*'")
        subprocess.run(["bash", "-c", command], cwd=node.directory, check=True, capture_output=True)
        wait_until(lambda: node.put("k", b"v"), what="a write")


if __name__ == "__main__":
    unittest.main()
