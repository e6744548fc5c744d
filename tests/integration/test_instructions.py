# build: release
"""The hot paths take as many instructions as bench/instructions.json says; a change of more than 10 % says why (bench/instructions.py)."""
import os
import subprocess
import sys
import unittest

from nexus_test import BUILD_DIR, SOURCE_DIR

sys.path.insert(0, os.path.join(SOURCE_DIR, "bench"))
import instructions  # noqa: E402


class Comparison(unittest.TestCase):
    """So that the check can't pass whatever comes."""

    def test_a_change_above_the_limit_is_named(self):
        recorded = {"less": 1000, "more": 1000, "same": 1000, "gone": 1000}
        texts = instructions.complaints({"less": 899, "more": 1101, "same": 1099, "new": 5}, recorded)
        self.assertEqual(sorted(text.split(":")[0] for text in texts), ["gone", "less", "more", "new"])

    def test_a_second_measurement_counts_only_where_it_is_nearer(self):
        counts = instructions.nearest({"a": 1200, "b": 1000}, {"a": 1010, "b": 1300}, {"a": 1000, "b": 1000})
        self.assertEqual(counts, {"a": 1010, "b": 1000})


class HotPaths(unittest.TestCase):
    def test_they_take_what_is_recorded(self):
        command = [sys.executable, "-B", instructions.__file__, "--check", "--build", BUILD_DIR]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        if result.stdout.startswith("not comparable"):
            self.skipTest(result.stdout)


if __name__ == "__main__":
    unittest.main()
