"""Failpoints of test builds (src/common/failpoint.h): what a node's environment says, and what became of it."""

import os
import re

from nexus_test import SOURCE_DIR


def names(kind="POINT"):
    """All that are declared: POINT or PLANT."""
    path = os.path.join(SOURCE_DIR, "src", "common", "failpoints.def")
    with open(path, encoding="utf-8") as file:
        return re.findall(rf"^NX_{kind}\((\w+),", file.read(), re.MULTILINE)


class Failpoint:
    """One action, once: `node` does it after arm(), when it is started again.

    action  "abort", "pause", "errno(EIO)", ..., with "@n" for the n-th time"""

    def __init__(self, node, name, action):
        self.node = node
        self.name = name
        self.directory = os.path.join(node.directory, "points")
        os.makedirs(self.directory, exist_ok=True)
        self.spec = f"{name}:{action}"
        for path in (self.path("hit"), self.path("go")):
            if os.path.exists(path):
                os.unlink(path)
        node.env["NEXUS_FAILPOINT"] = self.spec
        node.env["NEXUS_FAILPOINT_DIR"] = self.directory

    def path(self, suffix):
        return os.path.join(self.directory, f"{self.name}.{suffix}")

    def hit(self):
        """The pid that has done it, or None."""
        try:
            with open(self.path("hit"), encoding="ascii") as file:
                return int(file.read() or 0) or None
        except FileNotFoundError:
            return None

    def wait_hit(self, timeout=60):
        return self.node.wait_until(self.hit, timeout, f"failpoint {self.spec}")

    def go(self):
        """Lets one that pauses go on."""
        with open(self.path("go"), "w", encoding="ascii"):
            pass

    def disarm(self):
        """The next start is an ordinary one."""
        self.node.env.pop("NEXUS_FAILPOINT", None)
        self.node.env.pop("NEXUS_FAILPOINT_DIR", None)
