# build: release
"""scripts/bench.sh measures, writes its results and its report, and leaves nothing behind when it is interrupted. What it
measures is of no interest here: a quick run of Nexus against its own floors, without peers."""
import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest

from nexus_test import BUILD_DIR, SOURCE_DIR, wait_until

BENCH = os.path.join(SOURCE_DIR, "bench", "bench.py")
PROGRAMS = [os.path.join(BUILD_DIR, name) for name in ("nexus-bench", "nexus-bench-limits")]
MISSING = [path for path in PROGRAMS if not os.path.exists(path)]


def processes_in(directory):
    """Those that were started there."""
    found = []
    for link in glob.glob("/proc/[0-9]*/cwd"):
        try:
            place = os.readlink(link)
        except OSError:
            continue
        if place.startswith(f"{directory}/"):
            found.append(link)
    return found


@unittest.skipIf(MISSING, f"not built: {MISSING}")
class Bench(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="nexus-test-bench-")
        self.addCleanup(directory.cleanup)
        self.results = os.path.join(directory.name, "results")
        self.data = os.path.join(directory.name, "data")
        os.mkdir(self.data)

    def command(self, *options):
        return [sys.executable, "-B", BENCH, "--build", BUILD_DIR, "--results", self.results, "--directory", self.data,
                *options]

    def run_bench(self, *options):
        return subprocess.run(self.command(*options), capture_output=True, text=True, timeout=100, check=False)

    def assert_nothing_left(self):
        self.assertEqual(os.listdir(self.data), [])
        self.assertEqual(processes_in(os.path.realpath(self.data)), [])

    def test_a_quick_run_writes_results_and_report(self):
        result = self.run_bench("--quick", "--pairs", "2", "--peers", "none", "--only", "write-1,read-64")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assert_nothing_left()
        self.check_write()
        with open(os.path.join(self.results, "read-64.json"), encoding="utf-8") as file:
            self.assertEqual(set(json.load(file)["sides"]), {"Nexus", "Nexus, 1 worker", "empty libevent server"})
        self.check_report()

    def check_write(self):
        with open(os.path.join(self.results, "write-1.json"), encoding="utf-8") as file:
            data = json.load(file)
        self.assertEqual({name: len(runs) for name, runs in data["sides"].items()}, {"Nexus": 2, "floor": 2})
        for run in data["sides"]["Nexus"]:
            self.assertGreater(run["figures"]["operations_per_s"], 0)
            self.assertGreater(run["figures"]["p50_us"], 0)
            self.assertEqual(run["raw"]["errors"], 0)
            self.assertIn("nexus-bench", run["command"])
            self.assertGreater(run["cpu"]["server"], 0)
        for run in data["sides"]["floor"]:
            figures = run["figures"]
            self.assertAlmostEqual(figures["p50_us"], figures["sync_p50_us"] + figures["round_trip_p50_us"], 1)
        target, = data["targets"]
        self.assertAlmostEqual(target["value"], target["own"] / target["theirs"])
        self.assertEqual(target["reached"], target["value"] <= 1.5)
        self.assertIn("Nexus", data["versions"])
        self.assertIn("--wal.fsync=always", data["setup"]["Nexus"])
        self.assertTrue(data["quick"])

    def check_report(self):
        with open(os.path.join(os.path.dirname(self.results), "README.md"), encoding="utf-8") as file:
            text = file.read()
        for part in ("## Targets", "## What is lost", "## The machine", "## Versions", "durable write, 100 B, 1 client",
                     "a quick run: no measurement", "not measured yet"):
            self.assertIn(part, text)

    def test_an_interrupt_leaves_nothing_behind(self):
        command = self.command("--quick", "--peers", "none", "--only", "write-1")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: processes_in(os.path.realpath(self.data)), what="a server")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, said)
        self.assert_nothing_left()

    def test_a_row_that_cannot_be_measured_is_refused(self):
        for only, said in (("no-such-row", "no such row"), ("write-64-redis", "can't be measured")):
            result = self.run_bench("--only", only)
            self.assertEqual(result.returncode, 2)
            self.assertIn(said, result.stderr)

    def test_the_list_names_all_rows(self):
        result = self.run_bench("--list")
        self.assertEqual(result.returncode, 0, result.stderr)
        for row in ("write-1", "replicas-8", "growth-clients"):
            self.assertRegex(result.stdout, f"(?m)^{row} ")


if __name__ == "__main__":
    unittest.main()
