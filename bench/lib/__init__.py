"""What the benchmarks share. use_build() comes first: it says which build is measured, and opens tests/lib."""
import os
import sys

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE = os.path.dirname(BENCH)
DEFAULT_BUILD = os.path.join(SOURCE, "build")
RESULTS = os.path.join(BENCH, "results")


def use_build(directory):
    """Before anything that imports nexus_test, which reads these when it is imported."""
    os.environ["NEXUS_BUILD_DIR"] = os.path.abspath(directory)
    os.environ["NEXUS_SOURCE_DIR"] = SOURCE
    sys.path.append(os.path.join(SOURCE, "tests", "lib"))


def program(name):
    """A program of the build that is measured."""
    return os.path.join(os.environ.get("NEXUS_BUILD_DIR", DEFAULT_BUILD), name)
