"""nexus-ctl: every command, where it works and where it must refuse.

Each test gives nexus-ctl a directory and ports of its own; no NEXUS_* variable of the caller reaches
it.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import unittest

from nexus_test import (
    BUILD_DIR,
    HOST,
    TIMEOUT,
    Client,
    Process,
    free_port,
    is_alive,
    session_processes,
    shm_objects,
    wait_until,
)

CTL = os.path.join(BUILD_DIR, "nexus-ctl")
DONE, FAILED, NOT_RUNNING, NO_DIRECTORY = 0, 1, 3, 4


class Place:
    """A directory to work in, with what nexus-ctl is run with there."""

    def __init__(self):
        self.base = os.path.realpath(tempfile.mkdtemp(prefix="nexus-ctl-"))
        self.data = os.path.join(self.base, "data")
        self.http_port = free_port()
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("NEXUS_")}
        self.ports = [
            f"--http.bind_addr={HOST}:{self.http_port}",
            f"--replication.bind_addr={HOST}:{free_port()}",
        ]
        self.client = Client(self.http_port)
        self.sessions = []  # of the servers that were seen running here
        self._shm_before = shm_objects()

    def path(self, *parts):
        return os.path.join(self.base, *parts)

    def read(self, *parts):
        with open(self.path(*parts), encoding="utf-8") as file:
            return file.read()

    def write(self, text, *parts):
        with open(self.path(*parts), "w", encoding="utf-8") as file:
            file.write(text)

    def ctl(self, *arguments, env=None, cwd=None):
        """-> CompletedProcess with text output."""
        done = subprocess.run(
            [CTL, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=cwd or self.base,
            env={**self.env, **(env or {})},
            timeout=3 * TIMEOUT,
            check=False,
        )
        self.note_server()
        return done

    def start(self, *server_options, options=(), env=None):
        """`start` in self.data; AssertionError when it fails. -> CompletedProcess"""
        done = self.ctl(
            "start", "-D", self.data, *options, "--", *self.ports, *server_options, env=env
        )
        if done.returncode != DONE:
            raise AssertionError(f"start: {done}")
        return done

    def locked_pid(self):
        with open(os.path.join(self.data, "nexus.lock"), encoding="ascii") as file:
            return int(file.read())

    def note_server(self):
        """A server that nexus-ctl started leads a session of its own."""
        try:
            process = Process(self.locked_pid())
        except (OSError, ValueError):
            return
        if process.session == process.pid and "nexus" in process.title:
            self.sessions.append(process.pid)

    def cleanup(self):
        self.client.close()
        self.note_server()
        left = [process for session in set(self.sessions) for process in session_processes(session)]
        for process in left:
            try:
                os.kill(process.pid, signal.SIGCONT)
                if process.pid in self.sessions:
                    os.kill(process.pid, signal.SIGQUIT)  # its children end with it
            except ProcessLookupError:
                pass
        wait_until(
            lambda: not any(is_alive(process.pid) for process in left), what=f"the end of {left}"
        )
        wait_until(lambda: not shm_objects() - self._shm_before, what="removal of shared memory")
        shutil.rmtree(self.base)


class CtlTestCase(unittest.TestCase):
    maxDiff = 4000

    def place(self):
        place = Place()
        self.addCleanup(place.cleanup)
        return place

    def assert_ctl(self, done, status, out="", error=""):
        """It ended with this status, and its output and its errors match these expressions."""
        said = f"{done.args} -> {done.returncode}\n{done.stdout}{done.stderr}"
        self.assertEqual(done.returncode, status, said)
        self.assertRegex(done.stdout, f"(?s){out}", said)
        self.assertRegex(done.stderr, f"(?s){error}", said)
        if status == DONE and not error:
            self.assertEqual(done.stderr, "", said)
        return done

    def bystander(self):
        """A process that any of nexus-ctl's signals would end."""
        process = subprocess.Popen(["sleep", "600"], start_new_session=True)

        def end():
            process.kill()
            process.wait()

        self.addCleanup(end)
        return process


class Running(CtlTestCase):
    """What a running server is asked and told; none of it changes how it runs."""

    @classmethod
    def setUpClass(cls):
        cls.here = Place()
        cls.addClassCleanup(cls.here.cleanup)
        os.mkdir(cls.here.data, 0o700)
        cls.here.write("[http]\nmax_connections = 500\n", "data", "nexus.conf")
        cls.started = cls.here.start("--replication.role=master")
        cls.pid = cls.here.locked_pid()

    def ctl(self, command, *arguments, **options):
        return self.here.ctl(command, "-D", self.here.data, *arguments, **options)

    def test_start_tells_both_paths_and_the_addresses(self):
        out = self.started.stdout
        self.assertIn(f"data directory: {self.here.data}\n", out)
        self.assertIn(f"configuration file: {self.here.data}/nexus.conf\n", out)
        self.assertIn(f"log: {self.here.data}/nexus.log\n", out)
        self.assertIn(f"HTTP on {HOST}:{self.here.http_port}", out)
        self.assertEqual(self.here.client.request("GET", "/health")[0], 200)

    def test_the_server_is_detached_and_its_files_are_private(self):
        self.assertEqual(Process(self.pid).session, self.pid)
        self.assertEqual(os.readlink(f"/proc/{self.pid}/fd/0"), "/dev/null")
        for name in ("nexus.log", "nexus.opts"):
            mode = os.stat(os.path.join(self.here.data, name)).st_mode
            self.assertEqual(stat.S_IMODE(mode), 0o600, name)

    def test_a_second_start_is_refused(self):
        done = self.here.ctl("start", "-D", self.here.data)
        self.assert_ctl(done, FAILED, error=f"runs already .*pid {self.pid}")
        self.assertTrue(is_alive(self.pid))

    def test_status_tells_pid_addresses_and_processes(self):
        offset = self.here.client.put("k", b"v")
        done = self.assert_ctl(self.ctl("status"), DONE)
        rows = dict(line.strip().split(None, 1) for line in done.stdout.splitlines()[1:])
        self.assertIn(f"running (pid {self.pid})", done.stdout)
        self.assertEqual(rows["HTTP"], f"{HOST}:{self.here.http_port}")
        self.assertEqual(rows["state"], "ready")
        self.assertTrue(rows["role"].startswith("master, async"), rows)
        self.assertTrue(rows["offset"].startswith(f"{offset} durable"), rows)
        self.assertEqual(rows["lag"], "0")
        for kind in ("walwriter", "checkpointer", "http"):
            pid = int(rows[kind].split()[1])
            self.assertEqual(Process(pid).parent, self.pid)

    def test_status_is_quiet(self):
        done = self.assert_ctl(self.ctl("status", "-s"), DONE)
        self.assertEqual(done.stdout, "")

    def test_status_runs_without_an_answer(self):
        socket_path = os.path.join(self.here.data, "nexus.sock")
        os.rename(socket_path, socket_path + ".away")
        try:
            self.assert_ctl(self.ctl("status"), DONE, f"pid {self.pid}", "doesn't answer")
        finally:
            os.rename(socket_path + ".away", socket_path)

    def test_status_through_other_names_of_the_directory(self):
        os.symlink(self.here.data, self.here.path("link"))
        self.addCleanup(os.unlink, self.here.path("link"))
        for options, env in (
            (["-D", "link"], {}),
            (["-Ddata/../link/"], {}),
            ([], {"NEXUS_DATA_DIR": "data"}),
            ([], {}),  # ./data
        ):
            with self.subTest(options=options, env=env):
                done = self.here.ctl("status", *options, env=env)
                self.assert_ctl(done, DONE, f"pid {self.pid}.*{self.here.data}\n")

    def test_the_directory_is_found_through_the_configuration_file(self):
        self.here.write(f"[server]\ndata_dir = {self.here.data}\n", "elsewhere.conf")
        done = self.here.ctl("status", "-c", "elsewhere.conf", cwd=self.here.base)
        self.assert_ctl(done, DONE, f"pid {self.pid}")
        done = self.here.ctl("status", env={"NEXUS_CONFIG": "elsewhere.conf"})
        self.assert_ctl(done, DONE, f"pid {self.pid}")
        self.here.write("nonsense\n", "elsewhere.conf")
        done = self.here.ctl("status", "-c", "elsewhere.conf")
        self.assert_ctl(done, NO_DIRECTORY, error="elsewhere.conf:1")

    def test_reload(self):
        self.assert_ctl(self.ctl("reload"), DONE, "configuration reloaded")
        self.addCleanup(self.ctl, "reload")
        self.addCleanup(
            self.here.write, "[http]\nmax_connections = 500\n", "data", "nexus.conf"
        )
        self.here.write("[http]\nmax_connections = 600\nworkers = 3\n", "data", "nexus.conf")
        done = self.assert_ctl(self.ctl("reload"), DONE, "1 key changed: http.max_connections")
        self.assertIn("wait for a restart: http.workers", done.stdout)
        self.here.write("[http]\nmax_connections = many\n", "data", "nexus.conf")
        self.assert_ctl(self.ctl("reload"), FAILED, "^$", "nexus.conf:2: http.max_connections")
        self.assertTrue(is_alive(self.pid))

    def test_reload_whatever_the_log_is(self):
        self.addCleanup(self.ctl, "reload")
        self.addCleanup(
            self.here.write, "[http]\nmax_connections = 500\n", "data", "nexus.conf"
        )
        self.here.write("[server]\nlog_format = json\n", "data", "nexus.conf")
        done = self.assert_ctl(self.ctl("reload"), DONE, "^configuration reloaded: ")
        self.assertNotIn('"', done.stdout)
        self.here.write("[server]\nlog_level = warning\n", "data", "nexus.conf")
        self.assert_ctl(self.ctl("reload"), DONE, "the configuration is good")

    def test_config_is_the_running_servers(self):
        """Its own options and variables count, not those of whoever asks."""
        self.here.write("[http]\nworkers = 7\n", "asker.conf")
        env = {"NEXUS_CONFIG": "asker.conf", "NEXUS_HTTP_REQUEST_TIMEOUT_MS": "77"}
        done = self.assert_ctl(self.ctl("config", env=env), DONE)
        self.assertIn("\nrole = master  # --replication.role\n", done.stdout)
        self.assertIn("\nworkers = 0  # default\n", done.stdout)
        self.assertIn("\nrequest_timeout_ms = 10000  # default\n", done.stdout)
        self.assertIn(f"bind_addr = {HOST}:{self.here.http_port}  #", done.stdout)
        self.assertIn("  # default\n", done.stdout)

    def test_config_diff(self):
        done = self.assert_ctl(self.ctl("config", "--diff"), DONE)
        self.assertRegex(done.stdout, r"\[http\]\n.*\nmax_connections = \d+  # .*nexus.conf:2")
        self.assertNotIn("  # default\n", done.stdout)
        self.assertNotIn("[wal]", done.stdout)

    def test_snapshot(self):
        self.here.client.put("k", b"v")
        waiting = f"waiting for the server \\(pid {self.pid}\\)"
        done = self.assert_ctl(self.ctl("snapshot"), DONE, r'^\{"id":".*\}\n$', waiting)
        made = json.loads(done.stdout)
        self.assertEqual(self.here.client.json("GET", "/replication/snapshot"), made)
        self.assertTrue(os.path.exists(made["path"]))
        self.assert_ctl(self.ctl("snapshot", "-s"), DONE, r'^\{"id":".*\}\n$')
        done = self.assert_ctl(self.ctl("snapshot", "-W"), DONE, r'^\{"id":"[0-9a-f-]*"\}\n$')
        path = f"/replication/snapshot/{json.loads(done.stdout)['id']}"
        wait_until(lambda: self.here.client.request("GET", path)[0] == 200, what=path)

    def test_a_snapshot_that_is_refused(self):
        here = self.place()
        here.start("--snapshot.max_size=1MiB")
        for number in range(2):
            here.client.put(f"k{number}", os.urandom(1 << 20))
        done = here.ctl("snapshot", "-s", "-D", here.data)
        self.assert_ctl(done, FAILED, "^$", r"^nexus-ctl: The snapshot .*snapshot\.max_size[^{}]*$")
        self.assert_ctl(here.ctl("stop", "-D", here.data), DONE)
        done = here.ctl("snapshot", "-D", here.data)
        self.assert_ctl(done, FAILED, "^$", "no server runs")

    def test_logs(self):
        whole = self.here.read("data", "nexus.log")
        done = self.assert_ctl(self.ctl("logs", "-n", "2"), DONE)
        self.assertEqual(len(done.stdout.splitlines()), 2)
        self.assertIn(done.stdout, self.here.read("data", "nexus.log"))
        self.assertIn(whole.splitlines()[0], self.ctl("logs", "-n", "1000").stdout)

    def test_logs_follow(self):
        with subprocess.Popen(
            [CTL, "logs", "-f", "-n0", "-D", self.here.data], stdout=subprocess.PIPE, text=True
        ) as tail:
            try:
                wait_until(lambda: Process(tail.pid).name == "tail", what="the start of tail")
                self.ctl("reload")
                self.assertIn("reload", tail.stdout.readline())
            finally:
                tail.kill()

    def test_the_log_is_opened_anew_after_a_rotation(self):
        log, old = self.here.path("data", "nexus.log"), self.here.path("data", "nexus.log.1")
        os.rename(log, old)
        os.kill(self.pid, signal.SIGUSR1)
        wait_until(lambda: os.path.exists(log), what="a new log file")
        self.ctl("reload")
        self.assertIn("configuration reloaded", self.here.read("data", "nexus.log"))


class StartAndStop(CtlTestCase):
    def test_start_makes_the_directory_and_stop_ends_all(self):
        here = self.place()
        here.start()
        self.assertEqual(stat.S_IMODE(os.stat(here.data).st_mode), 0o700)
        pid = here.locked_pid()
        offset = here.client.put("k", b"v")
        self.assert_ctl(here.ctl("stop", "-D", here.data), DONE, f"pid {pid}, fast.*server stopped")
        self.assertEqual(session_processes(pid), [])
        self.assertFalse(os.path.exists(here.path("data", "nexus.pid")))
        self.assert_ctl(here.ctl("status", "-D", here.data), NOT_RUNNING, "no server runs")
        self.assert_ctl(here.ctl("stop", "-D", here.data), FAILED, error="no server runs")
        self.assert_ctl(here.ctl("reload", "-D", here.data), FAILED, error="no server runs")
        here.start()
        self.assertEqual(here.client.json("GET", "/replication/status")["wal_offset"], offset)

    def test_stop_modes(self):
        here = self.place()
        words = (("smart", "stopping .smart"), ("fast", "stopping .fast"), ("immediate", "immediate"))
        for mode, word in words:
            with self.subTest(mode=mode):
                here.start("--http.workers=1", options=["-s"])
                pid = here.locked_pid()
                done = self.assert_ctl(here.ctl("stop", "-s", "-D", here.data, "-m", mode), DONE)
                self.assertEqual(done.stdout, "")
                self.assertEqual(session_processes(pid), [])
                self.assertRegex(here.read("data", "nexus.log"), word)

    def test_no_waiting(self):
        here = self.place()
        here.start(options=["-W"])
        wait_until(
            lambda: here.ctl("status", "-s", "-D", here.data).returncode == DONE,
            what="the running server",
        )
        pid_file = here.path("data", "nexus.pid")
        wait_until(
            lambda: os.path.exists(pid_file) and here.read("data", "nexus.pid").endswith("ready\n"),
            what="the ready server",
        )
        self.assert_ctl(here.ctl("stop", "-W", "-D", here.data), DONE, "server stops")
        wait_until(
            lambda: here.ctl("status", "-D", here.data).returncode == NOT_RUNNING,
            what="the stopped server",
        )

    def test_waiting_ends_in_time(self):
        here = self.place()
        done = here.ctl("start", "-D", here.data, "-t", "0", "--", *here.ports)
        self.assert_ctl(done, FAILED, error="doesn't serve yet after 0 s")
        wait_until(
            lambda: "ready" in here.ctl("status", "-D", here.data).stdout, what="the ready server"
        )
        pid = here.locked_pid()
        os.kill(pid, signal.SIGSTOP)
        done = here.ctl("stop", "-D", here.data, "-t", "0")
        self.assert_ctl(done, FAILED, error=f"pid {pid}. still runs after 0 s.*immediate")
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not is_alive(pid), what="the end of the server")

    def test_after_a_crash(self):
        """The number that the dead server left is no reason to believe that it lives."""
        here = self.place()
        here.start()
        pid = here.locked_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), what="the end of the server")
        self.assert_ctl(here.ctl("status", "-D", here.data), NOT_RUNNING)
        self.assertEqual(here.read("data", "nexus.pid").splitlines()[0], str(pid))
        here.start()
        self.assertNotEqual(here.locked_pid(), pid)

    def test_a_log_file_of_ones_own(self):
        here = self.place()
        self.assert_ctl(here.start(options=["-l", "mine.log"]), DONE, here.path("mine.log"))
        self.assertIn("ready", here.read("mine.log"))
        self.assertFalse(os.path.exists(here.path("data", "nexus.log")))
        self.assert_ctl(here.ctl("logs"), DONE, "starts: data directory")
        self.assert_ctl(here.ctl("restart"), DONE, here.path("mine.log"))
        self.assertEqual(here.read("mine.log").count("starts: data directory"), 2)

    def test_the_log_file_of_the_configuration(self):
        here = self.place()
        os.mkdir(here.data, 0o700)
        here.write(f"[server]\nlog_file = {here.path('theirs.log')}\n", "data", "nexus.conf")
        here.start()
        self.assert_ctl(here.ctl("logs"), DONE, "starts: data directory")
        self.assertFalse(os.path.exists(here.path("data", "nexus.log")))


class Refusals(CtlTestCase):
    """A start that can't succeed says why, and leaves nothing behind."""

    def start(self, here, *server_options):
        return here.ctl("start", "-D", here.data, "--", *here.ports, *server_options)

    def test_a_bad_option(self):
        here = self.place()
        done = self.start(here, "--http.workerz=2")
        self.assert_ctl(done, FAILED, "^$", "--http.workerz.*did you mean --http.workers")
        self.assertFalse(os.path.exists(here.data))

    def test_a_bad_file(self):
        here = self.place()
        here.write("[replication]\nheartbeat_ms = soon\n", "bad.conf")
        done = here.ctl("start", "-D", here.data, "-c", "bad.conf")
        self.assert_ctl(done, FAILED, "^$", "bad.conf:2: replication.heartbeat_ms")
        self.assertFalse(os.path.exists(here.data))

    def test_a_port_in_use(self):
        here = self.place()
        with socket.socket() as taken:
            taken.bind((HOST, here.http_port))
            taken.listen()
            done = self.start(here)
        self.assert_ctl(
            done, FAILED, error=f"ended with status 1 .*nexus.log.*{HOST}:{here.http_port}"
        )
        self.assert_ctl(here.ctl("status", "-D", here.data), NOT_RUNNING)
        self.assert_ctl(self.start(here), DONE)

    def test_only_the_new_lines_of_the_log_are_shown(self):
        here = self.place()
        os.mkdir(here.data, 0o700)
        here.write("what was before\n", "data", "nexus.log")
        with socket.socket() as taken:
            taken.bind((HOST, here.http_port))
            taken.listen()
            done = self.start(here)
        self.assert_ctl(done, FAILED, error="ended with status 1")
        self.assertNotIn("what was before", done.stderr)

    def test_a_directory_open_to_others(self):
        here = self.place()
        os.mkdir(here.data, 0o755)
        here.write("", "data", "something")
        os.chmod(here.data, 0o755)
        self.assert_ctl(self.start(here), FAILED, error=f"chmod 700 {here.data}")
        self.assertEqual(os.listdir(here.data), ["something"])

    def test_an_empty_directory_is_made_private(self):
        here = self.place()
        os.mkdir(here.data)
        os.chmod(here.data, 0o755)
        self.assert_ctl(self.start(here), DONE)
        self.assertEqual(stat.S_IMODE(os.stat(here.data).st_mode), 0o700)

    @unittest.skipIf(os.geteuid() != 0, "only root can give a directory away")
    def test_a_directory_of_another_user(self):
        here = self.place()
        os.mkdir(here.data, 0o700)
        os.chown(here.data, 12345, -1)
        self.assert_ctl(self.start(here), FAILED, error="belongs to")
        self.assertEqual(os.listdir(here.data), [])

    def test_a_directory_that_is_a_file(self):
        here = self.place()
        here.write("", "data")
        self.assert_ctl(self.start(here), FAILED, error="it is a file")

    def test_a_directory_in_none(self):
        here = self.place()
        done = here.ctl("start", "-D", "none/data", "--", *here.ports)
        self.assert_ctl(done, FAILED, error="none/data")

    def test_a_log_that_cant_be_written(self):
        here = self.place()
        done = here.ctl("start", "-D", here.data, "-l", "none/log", "--", *here.ports)
        self.assert_ctl(done, FAILED, error="log file can't be written")
        self.assertFalse(os.path.exists(here.path("data", "nexus.id")))

    def test_no_data_directory(self):
        here = self.place()
        os.mkdir(here.path("empty"))
        here.write("", "file")
        for name in ("missing", "empty", "file"):
            done = here.ctl("status", "-D", name)
            self.assert_ctl(done, NO_DIRECTORY, "^$", f"{name} isn't a data directory")
            for command in ("stop", "restart", "reload", "logs"):
                done = here.ctl(command, "-D", name)
                self.assert_ctl(done, FAILED, "^$", f"{name} isn't a data directory")
        self.assertEqual(os.listdir(here.path("empty")), [])

    @unittest.skipIf(os.geteuid() == 0, "root has access to all")
    def test_no_access(self):
        here = self.place()
        os.mkdir(here.data, 0o000)
        self.addCleanup(os.chmod, here.data, 0o700)
        self.assert_ctl(here.ctl("status", "-D", here.data), NO_DIRECTORY, error="no access")


class ForeignProcesses(CtlTestCase):
    """Nothing but a server of this data directory is ever signalled, whatever its files say."""

    def stale_place(self, pid):
        here = self.place()
        os.mkdir(here.data, 0o700)
        here.write("[http]\n", "data", "nexus.conf")
        here.write(f"{pid}\n", "data", "nexus.lock")
        lines = [pid, here.data, 1, f"{HOST}:1", f"{HOST}:2", "ready"]
        here.write("".join(f"{line}\n" for line in lines), "data", "nexus.pid")
        return here

    def test_the_recorded_pid_is_somebody_elses(self):
        other = self.bystander()
        here = self.stale_place(other.pid)
        self.assert_ctl(here.ctl("status", "-D", here.data), NOT_RUNNING, "no server runs")
        for mode in ("smart", "fast", "immediate"):
            done = here.ctl("stop", "-D", here.data, "-m", mode)
            self.assert_ctl(done, FAILED, error="no server runs")
        self.assert_ctl(here.ctl("reload", "-D", here.data), FAILED, error="no server runs")
        done = here.ctl("restart", "-D", here.data, "--", *here.ports)
        self.assert_ctl(done, DONE, "server started")
        self.assertIsNone(other.poll())
        self.assertNotEqual(here.locked_pid(), other.pid)

    def test_the_lock_is_held_and_the_recorded_pid_is_somebody_elses(self):
        other = self.bystander()
        here = self.stale_place(other.pid)
        with open(here.path("data", "nexus.lock"), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assert_ctl(here.ctl("status", "-s", "-D", here.data), DONE)
            for command in ("stop", "restart"):
                done = here.ctl(command, "-D", here.data)
                self.assert_ctl(done, FAILED, "^$", "process that can't be seen")
            done = here.ctl("start", "-D", here.data, "--", *here.ports)
            self.assert_ctl(done, FAILED, error="runs already")
        self.assertIsNone(other.poll())

    def test_lock_files_with_anything_in_them(self):
        for text in ("", "\n", "-1\n", "0\n", "1 2\n", "$(touch made)\n", "../1\n", "9" * 40):
            with self.subTest(text=text):
                here = self.stale_place(text)
                here.write(text, "data", "nexus.lock")
                self.assert_ctl(here.ctl("status", "-D", here.data), NOT_RUNNING)
                self.assert_ctl(here.ctl("stop", "-D", here.data), FAILED, error="no server")
                self.assertFalse(os.path.exists(here.path("made")))


class Restart(CtlTestCase):
    def test_it_is_started_as_it_was(self):
        here = self.place()
        here.start("--replication.role=master", env={"NEXUS_HTTP_MAX_CONNECTIONS": "77"})
        first = here.locked_pid()
        for _ in range(2):
            self.assert_ctl(here.ctl("restart", "-m", "immediate"), DONE, "server started")
        self.assertFalse(is_alive(first))
        self.assertEqual(here.client.json("GET", "/replication/status")["role"], "master")
        self.assert_ctl(here.ctl("config"), DONE, "max_connections = 77")
        lines = here.read("data", "nexus.opts").splitlines()
        self.assertEqual(len(lines), len(set(lines)), "options pile up")

        here.ctl("stop")
        done = here.ctl("restart", env={"NEXUS_HTTP_MAX_CONNECTIONS": "78"})
        self.assert_ctl(done, DONE, "server started")
        self.assertEqual(here.client.json("GET", "/replication/status")["role"], "master")
        self.assert_ctl(here.ctl("config"), DONE, "max_connections = 78")

        self.assert_ctl(here.ctl("restart", "--", *here.ports), DONE, "server started")
        self.assertEqual(here.client.json("GET", "/replication/status")["role"], "standalone")
        self.assert_ctl(here.ctl("config"), DONE, "max_connections = 10000  # default")

    def test_a_bad_configuration_leaves_the_server_alone(self):
        here = self.place()
        here.start()
        pid = here.locked_pid()
        here.write("[http]\nworkers = x\n", "data", "nexus.conf")
        self.assert_ctl(here.ctl("restart"), FAILED, "^$", "nexus.conf:2")
        self.assertEqual(here.locked_pid(), pid)
        self.assertEqual(here.client.request("GET", "/health")[0], 200)

    def test_a_server_started_by_other_means(self):
        """Its options aren't known: restarted without them, or with those of an earlier start by
        nexus-ctl, it could be another node."""
        here = self.place()
        here.start("--replication.role=master")
        self.assert_ctl(here.ctl("stop"), DONE)
        os.unlink(here.path("data", "nexus.log"))
        server = subprocess.Popen(
            [os.path.join(BUILD_DIR, "nexus-server"), "-D", here.data, *here.ports],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=here.env,
            start_new_session=True,
        )
        try:
            wait_until(
                lambda: "ready" in here.ctl("status").stdout, what="the ready server"
            )
            self.assert_ctl(here.ctl("logs"), FAILED, error="no log file")
            self.assert_ctl(here.ctl("reload"), DONE, "configuration is good")
            self.assertNotIn("role = master", here.ctl("config").stdout)
            self.assert_ctl(here.ctl("restart"), FAILED, error="options behind --")
            self.assertIsNone(server.poll())
            self.assert_ctl(here.ctl("stop"), DONE, "server stopped")
            self.assertEqual(server.wait(TIMEOUT), 0)
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()


class Usage(CtlTestCase):
    @classmethod
    def setUpClass(cls):
        cls.here = Place()
        cls.addClassCleanup(cls.here.cleanup)

    def test_unknown_commands(self):
        for typed, near in {
            "statsu": "status",
            "strat": "start",
            "sto": "stop",
            "reboot": None,
            "conf": "config",
            "log": "logs",
            "snap": "snapshot",
            "forgot": "forget",
            "promte": "promote",
            "follwo": "follow",
            "x": None,
        }.items():
            with self.subTest(typed=typed):
                done = self.here.ctl(typed)
                error = f"did you mean '{near}'" if near else "the commands are: start stop"
                self.assert_ctl(done, FAILED, "^$", f"unknown command '{typed}'.*{error}")

    def test_bad_options(self):
        for arguments, error in (
            ([], "name a command"),
            (["status", "stop"], "'stop' behind status"),
            (["status", "--jason"], "unknown option --jason"),
            (["status", "-x"], "unknown option -x"),
            (["status", "-D"], "-D needs a value"),
            (["start", "-t", "soon"], "-t soon: expected a number"),
            (["start", "-t-1"], "-t -1: expected a number"),
            (["logs", "-n", ""], "-n needs a value"),
            (["stop", "-m", "slow"], "expected smart, fast or immediate"),
            (["stop", "--", "--http.workers=1"], "no options for the server"),
            (["start", "--force"], "start takes no --force"),
            (["stop", "--dry-run"], "stop takes no --dry-run"),
            (["follow"], "follow: name the master's"),
            (["follow", "x"], "'x' isn't an address"),
            (["start", "--", "-D", "data"], "-D before --"),
            (["start", "--", "--server.data_dir=x"], "-D before --"),
            (["start", "--", "-c", "x"], "-c before --"),
            (["start", "--", ""], "empty argument"),
            (["start", "--", "--server.user=a\nb"], "line break"),
        ):
            with self.subTest(arguments=arguments):
                self.assert_ctl(self.here.ctl(*arguments), FAILED, "^$", error)
        self.assertEqual(os.listdir(self.here.base), [])

    def test_help_and_version(self):
        for option in ("--help", "-h", "-?"):
            done = self.assert_ctl(self.here.ctl(option), DONE, "usage: nexus-ctl COMMAND")
        for command in (
            "start",
            "stop",
            "restart",
            "reload",
            "status",
            "snapshot",
            "restore",
            "promote",
            "follow",
            "forget",
            "logs",
            "config",
        ):
            self.assertRegex(done.stdout, rf"(?m)^  {command} ")
        self.assert_ctl(self.here.ctl("--version"), DONE, r"^nexus-server \d+\.\d+\.\d+\n$")

    def test_config_of_a_server_that_doesnt_run(self):
        done = self.here.ctl("config", "--diff", "--", "--http.workers=3")
        self.assert_ctl(done, DONE, r"\[http\]\nworkers = 3  # --http.workers\n")
        done = self.here.ctl("config", env={"NEXUS_HTTP_WORKERS": "many"})
        self.assert_ctl(done, FAILED, "^$", "NEXUS_HTTP_WORKERS")

    def test_the_server_is_found_beside_the_script_else_in_path(self):
        alone = self.here.path("alone")
        os.mkdir(alone)
        self.addCleanup(shutil.rmtree, alone)
        shutil.copy(CTL, alone)
        for path, status, out, error in (
            (os.environ["PATH"], FAILED, "^$", "nexus-server is neither beside"),
            (f"{BUILD_DIR}:{os.environ['PATH']}", DONE, "^nexus-server", ""),
        ):
            done = subprocess.run(
                [os.path.join(alone, "nexus-ctl"), "--version"],
                capture_output=True,
                text=True,
                env={**self.here.env, "PATH": path},
                check=False,
            )
            self.assert_ctl(done, status, out, error)
        os.symlink(CTL, os.path.join(alone, "ctl"))
        done = subprocess.run(
            [os.path.join(alone, "ctl"), "-V"], capture_output=True, text=True, check=False
        )
        self.assert_ctl(done, DONE, "^nexus-server")


if __name__ == "__main__":
    unittest.main()
