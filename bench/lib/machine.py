"""The machine that is measured on: what it is, how busy it is, and what goes to its disk."""
import os
import platform
import re
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
SECTOR = 512
QUIET_SECONDS = 0.25
QUIET_CPU = 0.10  # of all processors
QUIET_BYTES = 2 << 20  # a second to the device


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _first(pattern, text, default="unknown"):
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1).strip() if match else default


def mount_of(directory):
    """-> (device, type, options) of the file system that holds it."""
    best = ("", "unknown", "unknown", "")
    for line in _read("/proc/self/mounts").splitlines():
        device, place, kind, options = line.split()[:4]
        inside = place == "/" or f"{os.path.realpath(directory)}/".startswith(f"{place}/")
        if inside and len(place) >= len(best[0]):
            best = (place, device, kind, options)
    return best[1:]


def describe(directory):
    device, kind, options = mount_of(directory)
    cpuinfo = _read("/proc/cpuinfo")
    memory = int(_first(r"^MemTotal:\s+(\d+)", _read("/proc/meminfo"), "0"))
    return {
        "processor": _first(r"^model name\s*:\s*(.*)$", cpuinfo),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 20), 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "system": _first(r'^PRETTY_NAME="?([^"\n]*)', _read("/etc/os-release")),
        "file_system": f"{kind} ({options})",
        "device": device,
        "network": "loopback",
    }


def _version(command):
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (result.stdout or result.stderr).splitlines()
    return lines[0].strip() if lines else None


def versions(commands):
    """Name -> what its command says, of those that are there."""
    found = {name: _version(command) for name, command in commands.items()}
    return {name: text for name, text in found.items() if text}


def cpu_seconds(pids):
    """User and system time of living processes and of those children of theirs that have ended."""
    ticks = 0
    for pid in pids:
        text = _read(f"/proc/{pid}/stat")
        if text:
            ticks += sum(int(field) for field in text[text.rindex(")") + 2 :].split()[11:15])
    return ticks / TICKS


def descendants(pid):
    """A process and all that it has started, and these have, that live."""
    found = [pid]
    for parent in found:
        for task in _listed(f"/proc/{parent}/task"):
            found += [int(child) for child in _read(f"/proc/{parent}/task/{task}/children").split()]
    return found


def _listed(directory):
    try:
        return os.listdir(directory)
    except OSError:
        return []


def memory(pids):
    """Bytes: private (anonymous) memory, shared memory, and pages of files, each page once."""
    sums = {"private": 0, "shared": 0, "files": 0}
    names = {"Pss_Anon": "private", "Pss_Shmem": "shared", "Pss_File": "files"}
    for pid in pids:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            name, _, rest = line.partition(":")
            if name in names:
                sums[names[name]] += int(rest.split()[0]) << 10
    return sums


def _cpu_times():
    fields = [int(field) for field in _read("/proc/stat").splitlines()[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4], fields[7]


class Usage:
    """What all of the machine did since this was made."""

    def __init__(self):
        self.began = _cpu_times()

    def figures(self):
        now = _cpu_times()
        total = max(now[0] - self.began[0], 1)
        return {
            "busy": round(1 - (now[1] - self.began[1]) / total, 3),
            "steal": round((now[2] - self.began[2]) / total, 4),
        }


class Device:
    """Counts what is written to the block device under a directory, the file system's own writes included."""

    def __init__(self, directory):
        number = os.stat(directory).st_dev
        self.path = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat"

    def written(self):
        """Bytes, since the machine has started."""
        fields = _read(self.path).split()
        return int(fields[6]) * SECTOR if len(fields) > 6 else 0


def settle(directory, most):
    """Waits until neither processors nor disk do much, or `most` seconds."""
    deadline = time.monotonic() + most
    device = Device(directory)
    while time.monotonic() < deadline:
        usage, written = Usage(), device.written()
        time.sleep(QUIET_SECONDS)
        quiet = device.written() - written < QUIET_BYTES * QUIET_SECONDS
        if quiet and usage.figures()["busy"] < QUIET_CPU:
            return
