# timeout: 600
"""Bugs that a database like this one has had, planted one at a time into the server of a test build: the test that
guards against each must fail with it. (That it passes without is what the rest of the suite shows.)"""

import os
import subprocess
import sys
import unittest

import failpoints

HERE = os.path.dirname(os.path.abspath(__file__))

# Planted bug -> the file and the test that must catch it.
CATCHERS = {
    "ack_before_fsync": ("test_power_cut", "PowerCut.test_every_answered_write_survives_any_power_cut"),
    "ack_on_receive": ("test_sync", "Durability.test_an_async_master_can_be_asked_for_more"),
    "skip_epoch_check": ("test_promote", "Promises.test_01_a_promise_holds"),
    "ship_before_sync": ("test_failpoints", "Shipping"),
    "truncate_mid_log": ("test_log_ends", "LogEnds.test_damage_below_the_mark_is_refused_and_named"),
    "count_replica_twice": ("test_sync_hostile", "Acks.test_one_replica_counts_once"),
}


class Planted(unittest.TestCase):
    def run_planted(self, name):
        """-> the result of the catcher, on servers with that bug."""
        file, test = CATCHERS[name]
        return subprocess.run(
            [sys.executable, "-B", os.path.join(HERE, f"{file}.py"), test],
            env={**os.environ, "NEXUS_PLANT": name},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    def test_each_is_caught(self):
        self.assertEqual(sorted(CATCHERS), sorted(failpoints.names("PLANT")))
        for name in CATCHERS:
            with self.subTest(name):
                result = self.run_planted(name)
                self.assertEqual(result.returncode, 1, result.stderr[-3000:])
                self.assertRegex(result.stderr, r"(?m)^FAILED \(failures=\d+\)$")


if __name__ == "__main__":
    unittest.main()
