# timeout: 180
"""What the server may do and what others may see of it: the user that it becomes (server.user), modes of its files, and
that nothing that it runs gets more rights."""

import os
import pwd
import signal
import socket
import stat
import subprocess
import unittest

from nexus_test import HOST, SERVER, SHM_DIR, NexusTestCase, free_port, secret_file

CTL = os.path.join(os.path.dirname(SERVER), "nexus-ctl")
TOKEN = "a-token-of-the-test"


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class User(NexusTestCase):
    """server.user; and what of the server's files and memory others may see."""

    USER = "daemon"

    def owner(self, path):
        return pwd.getpwuid(os.lstat(path).st_uid).pw_name

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

    def test_04_a_log_file_where_only_root_can_make_one(self):
        node = self.started()
        path = os.path.join(node.directory, "own.log")
        node.settings["server.log_file"] = path
        node.start()
        self.assertEqual(self.owner(path), self.USER)
        node.stop()
        os.chown(path, 0, 0)
        node.launch()
        self.assertEqual(node.wait_exit(), 1)
        with open(node.log_path, encoding="utf-8") as file:
            self.assertRegex(file.read(), f"log file {path} is root's and has something in it: give it to user daemon")
        self.assertEqual(self.owner(path), "root")

    def test_05_a_configuration_that_the_user_cannot_read(self):
        node = self.started()
        path = secret_file(os.path.join(node.directory, "own.conf"), "[wal]\nsegment_size = 64MiB\n")
        result = node.run("-D", node.data_dir, "-c", path, f"--server.user={self.USER}")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, f"user {self.USER} .* can't read {path}")

    def test_06_a_configuration_and_a_log_in_the_directory_before_the_first_start(self):
        node = self.started()
        os.mkdir(node.data_dir, 0o700)
        for name in ("nexus.conf", "nexus.log"):
            with open(os.path.join(node.data_dir, name), "w", encoding="ascii") as file:
                file.write("# a comment\n")
        node.start()
        for name in (".", "nexus.conf", "nexus.log"):
            self.assertEqual(self.owner(os.path.join(node.data_dir, name)), self.USER)

    def test_11_a_link_in_the_data_directory_s_place(self):
        """Where it leads to isn't given away: who can set the link may not be root."""
        node = self.started()
        other = os.path.join(node.directory, "other")
        os.mkdir(other, 0o700)
        os.symlink(other, node.data_dir)
        for path in (node.data_dir, node.data_dir + "/"):
            result = node.run("-D", path, f"--server.user={self.USER}")
            self.assertEqual(result.returncode, 1, result)
            self.assertEqual(self.owner(other), "root")
        os.chown(other, pwd.getpwnam(self.USER).pw_uid, -1)
        node.start()

    def test_07_only_root_can_become_another(self):
        node = self.node("master", start=False)
        os.chmod(node.directory, 0o777)
        result = subprocess.run(
            [SERVER, "-D", node.data_dir, "--server.user=nobody"],
            capture_output=True,
            text=True,
            user=self.USER,
            group=pwd.getpwnam(self.USER).pw_gid,
            extra_groups=[],
            check=False,
        )
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, "server.user = nobody, but the server was started by uid [0-9]+: start it as")
        self.assertFalse(os.path.exists(node.data_dir))

    def test_08_root_itself_is_warned(self):
        node = self.node("master")
        node.wait_log("this server runs as root: set server.user")

    def ctl(self, *arguments, **options):
        done = subprocess.run(
            [CTL, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **options
        )
        self.assertEqual(done.returncode, 0, done)
        return done.stdout

    def test_09_nexus_ctl_as_root(self):
        """It leaves the rest to that user at once: root reads no options from a directory that isn't root's, and writes
        through no link that may stand there."""
        place = self.node("standalone", start=False)
        os.chmod(place.directory, 0o755)
        data = place.data_dir
        self.addCleanup(subprocess.run, [CTL, "stop", "-D", data, "-m", "immediate"], capture_output=True, check=False)
        ports = [f"--http.bind_addr={HOST}:{free_port()}", f"--replication.bind_addr={HOST}:{free_port()}"]
        self.ctl("start", "-D", data, "--", f"--server.user={self.USER}", *ports)
        for name in os.listdir(data):
            self.assertEqual(self.owner(os.path.join(data, name)), self.USER, name)
        victim = os.path.join(place.directory, "victim")
        with open(victim, "w", encoding="ascii") as file:
            file.write("root's\n")
        with open(os.path.join(data, "nexus.opts"), "a", encoding="ascii") as file:
            file.write("arg --server.user=\n")  # as who has broken into the server would
        os.symlink(victim, os.path.join(data, "nexus.opts.tmp"))
        self.ctl("restart", "-D", data)
        self.ctl("status", "-D", data)
        with open(os.path.join(data, "nexus.pid"), encoding="ascii") as file:
            self.assertEqual(self.owner(f"/proc/{file.readline().strip()}/task"), self.USER)
        with open(victim, encoding="ascii") as file:
            self.assertEqual(file.read(), "root's\n")
        self.ctl("stop", "-D", data)

    def test_10_nexus_ctl_of_a_server_with_secrets(self):
        """Its descriptors are root's alone to see, and yet its user looks after it."""
        place = self.node("standalone", start=False)
        user = pwd.getpwnam(self.USER)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        token = secret_file(os.path.join(place.directory, "token"), TOKEN, user=self.USER)
        os.chown(place.directory, user.pw_uid, user.pw_gid)
        data = place.data_dir
        self.addCleanup(subprocess.run, [CTL, "stop", "-D", data, "-m", "immediate"], capture_output=True, check=False)
        ports = [f"--http.bind_addr={HOST}:{free_port()}", f"--replication.bind_addr={HOST}:{free_port()}"]
        self.ctl("start", "-D", data, "--", f"--http.auth_token_file={token}", *ports, **as_user)
        self.assertIn("server is running (pid ", self.ctl("status", "-D", data, **as_user))
        self.ctl("reload", "-D", data, **as_user)
        self.ctl("restart", "-D", data, **as_user)
        self.ctl("stop", "-D", data, **as_user)
        done = subprocess.run([CTL, "status", "-D", data], capture_output=True, check=False, **as_user)
        self.assertEqual(done.returncode, 3, done)

    def test_03_a_secret_that_the_user_cannot_read(self):
        node = self.started()
        path = secret_file(os.path.join(node.directory, "auth"), TOKEN)
        node.settings["http.auth_token_file"] = path
        node.launch()
        self.assertEqual(node.wait_exit(), 1)
        self.assertRegex(node.log(), f"user {self.USER} .* can't read {path}")
        os.chown(path, pwd.getpwnam(self.USER).pw_uid, -1)
        node.start()


def field_of(pid, name):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(line.split()[1] for line in file if line.startswith(name + ":"))


def is_guarded(pid):
    """Whether this process's memory is root's alone to look at: its files in /proc are root's then."""
    try:
        return os.stat(f"/proc/{pid}/environ").st_uid == 0
    except FileNotFoundError:  # it has ended meanwhile
        return False


class Guards(NexusTestCase):
    def test_01_children_get_no_more_rights_but_failover_command_may(self):
        cluster = self.cluster(
            1,
            settings={"replication.heartbeat_ms": 200},
            replica_settings={"replication.failover_command": "grep NoNewPrivs /proc/self/status"},
        )
        for node in cluster.nodes:
            self.assertEqual({field_of(child.pid, "NoNewPrivs") for child in node.children()}, {"1"})
        cluster.wait_level()
        cluster.master.kill9()
        cluster.replica.wait_log(r"NoNewPrivs:\s+0")

    @unittest.skipUnless(os.geteuid() == 0, "root's own files in /proc look alike")
    def test_02_a_first_token_by_a_reload_closes_the_memory(self):
        node = self.node("master", start=False, settings={"server.user": "daemon"})
        os.chmod(node.directory, 0o755)
        path = secret_file(os.path.join(node.directory, "nexus.conf"), "[http]\n", user="daemon")
        token = secret_file(os.path.join(node.directory, "token"), TOKEN, user="daemon")
        node.env["NEXUS_CONFIG"] = path
        node.start()
        # Waited for: the files of a process whose memory is being torn down, as one that a start needs, are root's too.
        node.wait_until(lambda: not any(is_guarded(child.pid) for child in node.children()))
        with open(path, "a", encoding="ascii") as file:
            file.write(f"auth_token_file = {token}\n")
        os.kill(node.pid, signal.SIGHUP)
        node.wait_log("configuration reloaded: 1 key changed: http.auth_token_file")
        node.wait_until(lambda: all(is_guarded(child.pid) for child in node.children()))
        self.assertTrue(is_guarded(node.pid))
        for child in node.children():  # as when it is started anew
            if "http" in child.title:
                os.kill(child.pid, signal.SIGKILL)
                break
        node.wait_log("http.* was ended by signal 9")
        node.wait_until(lambda: all(is_guarded(child.pid) for child in node.children()))


class Modes(NexusTestCase):
    def shared_memory(self, node):
        """pid -> the mode of the object that it has mapped. It has no name any more, but the kernel knows it still."""
        modes = {}
        for process in node.all_processes():
            try:
                with open(f"/proc/{process.pid}/maps", encoding="utf-8") as file:
                    areas = [line.split()[0] for line in file if f" {SHM_DIR}/nexus-{node.pid}-" in line]
                for area in areas:
                    first, last = (int(number, 16) for number in area.split("-"))
                    modes[process.pid] = os.stat(f"/proc/{process.pid}/map_files/{first:x}-{last:x}").st_mode
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has ended meanwhile
        return modes

    @unittest.skipUnless(os.geteuid() == 0, "only root sees objects that have no name")
    def test_nobody_else_can_open_the_shared_memory(self):
        node = self.node("master")
        try:
            modes = self.shared_memory(node)
        except PermissionError as error:
            self.skipTest(f"a root that doesn't see them: {error}")
        self.assertIn(node.pid, modes)
        for kind in ("walwriter", "http", "checkpointer"):
            self.assertIn(node.pids(kind)[0], modes, kind)
        self.assertEqual({stat.filemode(mode) for mode in modes.values()}, {"-rw-------"})

    def test_nobody_else_can_read_anything(self):
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

    def test_what_stands_in_the_socket_s_place(self):
        node = self.node("master", start=False)
        os.makedirs(os.path.join(node.data_dir, "nexus.sock"), 0o700)
        os.chmod(node.data_dir, 0o700)
        node.launch()
        self.assertEqual(node.wait_exit(), 1)
        self.assertRegex(node.log(), "nexus.sock can't be made: what stands there can't be removed: move it away")

    def test_the_socket_is_the_owner_s(self):
        node = self.node("master")
        path = os.path.join(node.data_dir, "nexus.sock")
        self.assertEqual(stat.S_IMODE(os.lstat(path).st_mode), 0o600)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)


if __name__ == "__main__":
    unittest.main()
