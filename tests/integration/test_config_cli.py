"""The configuration from outside: the command line's answers, which source wins, what is refused and
how, and reloads of a running server."""
import json
import os
import re
import shutil
import signal
import tempfile
import unittest

from nexus_test import SOURCE_DIR, NexusTestCase, Node, wait_until

# Each variable of the replication guide: its default there, and another value with how it is printed.
GUIDE = {
    "NEXUS_REPLICATION_ROLE": ("standalone", "master", "master"),
    "NEXUS_REPLICATION_BIND_ADDR": ("0.0.0.0:15475", "127.0.0.1:25475", "127.0.0.1:25475"),
    "NEXUS_REPLICATION_MASTER_ADDR": ("", "192.168.1.100:15475", "192.168.1.100:15475"),
    "NEXUS_REPLICATION_MODE": ("async", "ASYNC", "async"),
    "NEXUS_REPLICATION_SYNC_QUORUM": ("1", "2", "2"),
    "NEXUS_REPLICATION_HEARTBEAT_MS": ("5000", "250", "250"),
    "NEXUS_REPLICATION_CONNECT_TIMEOUT_MS": ("5000", "700", "700"),
    "NEXUS_REPLICATION_MAX_LOG_SIZE": ("1000000", "20000", "20000"),
    "NEXUS_REPLICATION_AUTO_FAILOVER": ("true", "false", "false"),
    "NEXUS_SNAPSHOT_COMPRESSION_LEVEL": ("3", "22", "22"),
    "NEXUS_SNAPSHOT_MAX_SIZE": ("10GB", "20GB", "20GiB"),
    "NEXUS_SNAPSHOT_CHUNK_SIZE": ("1MB", "2MB", "2MiB"),
}

# What a bad value's message must say, by kind of value.
BAD_VALUES = (
    ("replication.heartbeat_ms", "soon", "expected milliseconds from 10 to 3600000"),
    ("replication.sync_quorum", "0", "expected a whole number from 1 to 128"),
    ("replication.auto_failover", "maybe", "expected "),
    ("replication.role", "slave", "expected standalone, master or replica"),
    ("replication.bind_addr", "15475", "expected "),
    ("http.max_value_size", "1GB", "expected a size from 1 to 15MiB"),
    ("http.max_connections", "-1", "expected a whole number from 1 to 1000000"),
    ("snapshot.interval", "1.5h", "expected a time"),
    ("wal.fsync", "sometimes", "expected always, everysec or off"),
    ("server.log_level", "loud", "expected error, warning, info or debug"),
)


def section_of(name):
    return name.split(".")[0]


def key_of(name):
    return name.split(".")[1]


def variable_of(name):
    return "NEXUS_" + name.removeprefix("server.").replace(".", "_").upper()


def printed(text):
    """--print-config's lines -> {"section.key": (value, where it comes from)}"""
    found, section = {}, None
    for line in text.splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
        elif match := re.fullmatch(r"(\w+) =(?: (.*?))?  # (.*)", line):
            found[f"{section}.{match[1]}"] = (match[2] or "", match[3])
    return found


class CommandLine(NexusTestCase):
    """The program run to its end: no server is started, no data directory made."""

    @classmethod
    def setUpClass(cls):
        cls.base = tempfile.mkdtemp(prefix="nexus-config-")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.base)

    def setUp(self):
        self.directory = tempfile.mkdtemp(dir=self.base)
        self.program = Node(directory=self.directory)

    def run_server(self, *arguments, env=None, status=0):
        """-> (stdout, stderr) of an end with that status."""
        self.program.env = dict(env or {})
        result = self.program.run(*arguments)
        said = f"{arguments} {env}\n{result.stdout}\n{result.stderr}"
        self.assertEqual(result.returncode, status, said)
        return result.stdout, result.stderr

    def refused(self, *arguments, env=None):
        """The message on stderr; nothing on stdout, nothing made."""
        out, error = self.run_server(*arguments, env=env, status=1)
        self.assertEqual(out, "")
        self.assertFalse(os.path.exists(os.path.join(self.directory, "data")))
        return error

    def print_config(self, *arguments, env=None):
        out, error = self.run_server("--print-config", *arguments, env=env)
        self.assertEqual(error, "")
        return printed(out)

    def write(self, text, name="a.conf"):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    # -- what can be asked for --

    def test_version(self):
        for option in ("--version", "-V"):
            out, error = self.run_server(option)
            self.assertRegex(out, r"^nexus-server \d+\.\d+\.\d+\S*\n$")
            self.assertEqual(error, "")

    def test_help_names_every_key(self):
        keys = self.print_config()
        self.assertGreater(len(keys), 40)
        for option in ("--help", "-h"):
            out, error = self.run_server(option)
            self.assertEqual(error, "")
            for name, (value, _) in keys.items():
                self.assertRegex(out, rf"(?m)^  --{re.escape(name)}=", name)
            for option_said in ("-D DIR", "-c FILE", "--print-config", "--check-config"):
                self.assertIn(option_said, out)

    def test_help_and_version_work_with_a_broken_configuration(self):
        self.run_server("--help", "-c", "missing.conf")
        self.run_server("--version", env={"NEXUS_WAL_FSYNC": "sometimes"})

    def test_check_config(self):
        path = self.write("[replication]\nrole = master\n")
        out, error = self.run_server("--check-config", "-c", "a.conf", "-D", "data")
        self.assertEqual(error, "")
        self.assertIn("configuration ok\n", out)
        self.assertIn(f"configuration file: {path}\n", out)
        self.assertIn(f"data directory: {self.directory}/data\n", out)
        self.write("[replication]\nrole = replica\n")
        self.assertIn("needs replication.master_addr", self.refused("--check-config", "-c", "a.conf"))
        self.assertIn("missing.conf", self.refused("--check-config", "-c", "missing.conf"))

    def test_what_is_printed_is_a_configuration_file_of_the_same_meaning(self):
        env = {"NEXUS_REPLICATION_HEARTBEAT_MS": "1s", "NEXUS_LOG_FORMAT": "json"}
        options = ("--snapshot.interval=90min", "--http.allowed_hosts=a.example.com, b.example.com")
        out, _ = self.run_server("--print-config", *options, env=env)
        self.write(out)
        again = self.print_config("-c", "a.conf")
        self.assertEqual(
            {name: value for name, (value, _) in printed(out).items()},
            {name: value for name, (value, _) in again.items()},
        )
        self.assertEqual(again["replication.heartbeat_ms"][0], "1000")

    def test_output_that_nobody_gets_is_a_failure(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        for option in ("--print-config", "--help", "--version", "--check-config"):
            result = self.program.run_to("/dev/full", option)
            self.assertNotEqual(result, 0, option)

    # -- sources --

    def test_file_then_environment_then_command_line(self):
        path = self.write("[replication]\n\nheartbeat_ms = 100\n")
        name = "replication.heartbeat_ms"
        env = {"NEXUS_REPLICATION_HEARTBEAT_MS": "200"}
        self.assertEqual(self.print_config()[name], ("5000", "default"))
        self.assertEqual(self.print_config("-c", "a.conf")[name], ("100", f"{path}:3"))
        self.assertEqual(
            self.print_config("-c", "a.conf", env=env)[name],
            ("200", "NEXUS_REPLICATION_HEARTBEAT_MS"),
        )
        self.assertEqual(
            self.print_config("-c", "a.conf", f"--{name}=300", env=env)[name],
            ("300", f"--{name}"),
        )
        # An empty variable is an unset one, as compose files make them.
        env = {"NEXUS_REPLICATION_HEARTBEAT_MS": "", "NEXUS_CONFIG": "a.conf"}
        self.assertEqual(self.print_config(env=env)[name], ("100", f"{path}:3"))

    def test_the_file_of_the_data_directory_is_found(self):
        os.mkdir(os.path.join(self.directory, "data"))
        path = self.write("[http]\nworkers = 3\n", "data/nexus.conf")
        for arguments, env in (((), {}), (("-D", "data"), {}), ((), {"NEXUS_DATA_DIR": "data"})):
            self.assertEqual(
                self.print_config(*arguments, env=env)["http.workers"], ("3", f"{path}:2")
            )

    def test_every_variable_of_the_guide(self):
        defaults = self.print_config()
        env = {variable: value for variable, (_, value, _) in GUIDE.items()}
        out, error = self.run_server("--print-config", env=env)
        self.assertEqual(error, "")
        keys = {variable_of(name): name for name in defaults}
        taken = printed(out)
        sizes = {"10GB": "10GiB", "1MB": "1MiB"}
        for variable, (default, _, value) in GUIDE.items():
            with self.subTest(variable):
                name = keys[variable]
                self.assertEqual(defaults[name], (sizes.get(default, default), "default"))
                self.assertEqual(taken[name], (value, variable))

    def test_every_key_has_a_variable_an_option_and_a_line_of_the_file(self):
        defaults = self.print_config()
        values = {name: value for name, (value, _) in defaults.items() if value != ""}
        env = {variable_of(name): value for name, value in values.items()}
        by_variable = self.print_config(env=env)
        by_option = self.print_config(*(f"--{name}={value}" for name, value in values.items()))
        lines = (f"[{section_of(name)}]\n{key_of(name)} = {value}\n" for name, value in values.items())
        self.write("".join(lines))
        by_file = self.print_config("-c", "a.conf")
        for name, value in values.items():
            with self.subTest(name):
                self.assertEqual(by_variable[name], (value, variable_of(name)))
                self.assertEqual(by_option[name], (value, f"--{name}"))
                self.assertEqual(by_file[name][0], value)
                self.assertIn("/a.conf:", by_file[name][1])

    def test_the_example_file_is_whole_and_says_the_defaults(self):
        with open(os.path.join(SOURCE_DIR, "conf", "nexus.conf"), encoding="utf-8") as file:
            example = file.read()
        defaults = {name: value for name, (value, _) in self.print_config().items()}
        self.write(example)
        self.assertEqual({where for _, where in self.print_config("-c", "a.conf").values()}, {"default"})
        self.write(re.sub(r"(?m)^#(\w+ =)", r"\1", example), "b.conf")
        taken = self.print_config("-c", "b.conf")
        self.assertEqual({name: value for name, (value, _) in taken.items()}, defaults)
        self.assertEqual({name for name in taken if "/b.conf:" not in taken[name][1]}, set())

    # -- what is refused --

    def test_unknown_options_and_arguments(self):
        for argument, nearest in (
            ("--replication.hearbeat_ms=5", "--replication.heartbeat_ms"),
            ("--http.role=master", "--replication.role"),
            ("--role=master", "--replication.role"),
            ("--wal.segmentsize=1MB", "--wal.segment_size"),
        ):
            error = self.refused(argument)
            self.assertIn(f"unknown option {argument.split('=')[0]};", error)
            self.assertIn(f"did you mean {nearest}?", error)
        for argument in ("start", "-x", "--", ""):
            self.assertIn(f'unknown argument "{argument}"', self.refused(argument))
        self.assertIn("--wal.fsync needs a value", self.refused("--wal.fsync"))

    def test_unknown_keys_of_the_file(self):
        path = self.write("[replication]\nrole = master\n\nheartbeat = 5\n")
        error = self.refused("-c", "a.conf")
        self.assertIn(f'{path}:4: unknown key "heartbeat" in section [replication]', error)
        self.assertIn('did you mean "heartbeat_ms" in [replication]?', error)

    def test_an_unknown_variable_is_told_and_harmless(self):
        env = {"NEXUS_REPLICATION_ROL": "master"}
        out, error = self.run_server("--print-config", env=env)
        self.assertEqual(printed(out)["replication.role"], ("standalone", "default"))
        self.assertIn("NEXUS_REPLICATION_ROL is unknown", error)
        self.assertIn("did you mean NEXUS_REPLICATION_ROLE?", error)

    def test_bad_values_say_where_they_stand_and_what_is_expected(self):
        for name, value, expected in BAD_VALUES:
            with self.subTest(name):
                path = self.write(f"# a comment\n[{section_of(name)}]\n{key_of(name)} = {value}\n")
                error = self.refused("-c", "a.conf")
                self.assertIn(f'{path}:3: {name} = "{value}": {expected}', error)
        name, value, expected = BAD_VALUES[0]
        self.assertIn(f"--{name}={value}: {expected}", self.refused(f"--{name}={value}"))
        error = self.refused(env={variable_of(name): value})
        self.assertIn(f"{variable_of(name)}={value}: {expected}", error)

    def test_all_errors_are_told_at_once(self):
        path = self.write("[http]\nworkers = 9\nworker = 1\n")
        error = self.refused("-c", "a.conf", "--wal.fsync=x", env={"NEXUS_LOG_LEVEL": "loud"})
        for said in (f"{path}:2: ", f"{path}:3: ", "--wal.fsync=x: ", "NEXUS_LOG_LEVEL=loud: "):
            self.assertIn(said, error)

    def test_a_control_character_never_reaches_the_terminal(self):
        self.write("[http]\nwork\x1b[2Jers = 1\n[wal]\nfsync = \x1b[31m\n")
        for error in (
            self.refused("-c", "a.conf"),
            self.refused("--wal.fsync=\x1b[31m"),
            self.refused("--\x1b[31m=x"),
            self.refused("\x1b[31m"),
        ):
            self.assertNotIn("\x1b", error)

    def test_a_secret_in_the_wrong_place_is_not_shown(self):
        secret = "correct-horse-battery"
        self.write(secret + "\n", "token")
        env = {"NEXUS_HTTP_AUTH_TOKEN": secret, "NEXUS_REPLICATION_TOKEN": secret}
        out, error = self.run_server("--print-config", env=env)
        self.assertNotIn(secret, out + error)
        self.assertIn("NEXUS_HTTP_AUTH_TOKEN is unknown", error)
        self.write(f"[http]\nauth_token = {secret}\n[replication]\ntoken = {secret}\n")
        self.assertNotIn(secret, self.refused("--print-config", "-c", "a.conf"))
        self.assertNotIn(secret, self.refused("--print-config", f"--http.auth_token={secret}"))
        out, error = self.run_server("--print-config", "--http.auth_token_file=token")
        self.assertNotIn(secret, out + error)


class Reload(NexusTestCase):
    """One server with a file of its own, told to read it again."""

    @classmethod
    def setUpClass(cls):
        cls.base = tempfile.mkdtemp(prefix="nexus-reload-")
        cls.path = os.path.join(cls.base, "a.conf")
        cls.write("")
        cls.node = Node("master", directory=cls.base, env={"NEXUS_CONFIG": cls.path})
        # The command line would win over the file.
        cls.addClassCleanup(shutil.rmtree, cls.base)
        cls.addClassCleanup(cls.node.cleanup)
        cls.node.start()

    @classmethod
    def write(cls, text):
        with open(cls.path, "w", encoding="utf-8") as file:
            file.write(text)

    def reload(self, text, said):
        """Writes the file, sends SIGHUP and waits for this in the log; returns the log since."""
        node = self.node
        self.write(text)
        mark = node.log_mark()
        os.kill(node.pid, signal.SIGHUP)
        node.wait_log(said, since=mark)
        return node.log()[mark:]

    def put(self, size):
        return self.node.client().request("PUT", "/kv/reload", b"x" * size)[0]

    def test_a_key_that_a_reload_applies(self):
        self.assertIn(self.put(2000), (200, 201))
        self.reload(
            "[http]\nmax_value_size = 1000\n",
            r"configuration reloaded: 1 key changed: http\.max_value_size$",
        )
        wait_until(lambda: self.put(2000) == 413, what="a value that is too large now")
        self.assertIn(self.put(1000), (200, 201))
        # Out of the file, it is the default again.
        self.reload("", r"configuration reloaded: 1 key changed: http\.max_value_size$")
        wait_until(lambda: self.put(2000) == 200, what="a value that is small enough again")

    def test_the_log_level_and_form(self):
        self.reload("[server]\nlog_format = json\n", r'"message":"configuration reloaded: 1 key')
        since = self.reload("[server]\nlog_format = json\n", r'reloaded: 0 keys changed"')
        for line in since.splitlines():
            self.assertEqual(json.loads(line)["pid"], self.node.pid, line)
        self.reload("", r"INFO  postmaster\[\d+\]: configuration reloaded: 1 key")

    def test_a_key_that_waits_for_a_restart(self):
        before = self.node.pids("http")
        said = r"WARN  postmaster\[\d+\]: these keys changed and wait for a restart: "
        self.reload("[http]\nworkers = 5\n[wal]\nfsync = off\n", said + r"http\.workers, wal\.fsync$")
        self.assertEqual(self.node.pids("http"), before)
        self.assertEqual(self.put(10) // 100, 2)
        # It waits as long as the file says so, and nothing else is left of it.
        self.reload("[http]\nworkers = 5\n", said + r"http\.workers$")
        self.assertNotIn("wait for", self.reload("", r"configuration reloaded: 0 keys changed$"))

    def test_a_file_that_is_bad_now_changes_nothing(self):
        for text, said in (
            ("[http]\nmax_value_size = 1000\nworkers = many\n", r'a\.conf:3: http\.workers = "many"'),
            ("[http]\nmax_value_size = 1000\nnothing = 1\n", r'a\.conf:3: unknown key "nothing"'),
            (
                "[http]\nmax_value_size = 1000\n[replication]\nmode = sync\n[wal]\nfsync = off\n",
                r"a\.conf:4: replication\.mode = sync needs wal\.fsync = always",
            ),
        ):
            self.reload(text, r"ERROR postmaster\[\d+\]: the configuration stays as it was: .*" + said)
            self.assertEqual(self.put(2000) // 100, 2)
        os.unlink(self.path)
        mark = self.node.log_mark()
        os.kill(self.node.pid, signal.SIGHUP)
        self.node.wait_log(r"the configuration stays as it was: .*a\.conf: No such file", since=mark)
        self.reload("", r"configuration reloaded: 0 keys changed$")
        self.assertEqual(self.put(2000) // 100, 2)

    def test_the_command_line_goes_before_the_file_at_a_reload_too(self):
        said = r"configuration reloaded: 0 keys changed$"
        since = self.reload("[replication]\nrole = standalone\n", said)
        self.assertNotIn("wait for", since)
        self.assertEqual(self.node.status()["role"], "master")
        self.reload("", said)


class Start(NexusTestCase):
    def test_a_combination_that_can_not_be_starts_nothing(self):
        env = {"NEXUS_REPLICATION_MODE": "sync", "NEXUS_WAL_FSYNC": "everysec"}
        node = self.node("master", start=False, env=env)
        node.launch()
        self.assertEqual(node.wait_exit(), 1)
        self.assertIn("replication.mode = sync needs wal.fsync = always", node.log())
        self.assertFalse(os.path.exists(node.data_dir))

    def test_what_failover_command_is_given_is_passed_over(self):
        given = ("EVENT", "NODE_ID", "MASTER_ADDR", "HTTP_ADDR", "WAL_OFFSET", "EPOCH")
        node = self.node(env={f"NEXUS_{name}": "x" for name in given})
        self.assertNotIn("is unknown", node.log())

    def test_warnings_of_the_environment_are_in_the_log(self):
        node = self.node(env={"NEXUS_REPLICATION_HEARTBEAT": "5"})
        node.wait_log(r"WARN .*NEXUS_REPLICATION_HEARTBEAT is unknown.*NEXUS_REPLICATION_HEARTBEAT_MS")


if __name__ == "__main__":
    unittest.main()
