"""docs/replication-guide.md as tests read it: its blocks, tables and examples, its commands run by the real
shell, curl and jq, and servers started as it says, by environment variables alone."""

import json
import os
import re
import shutil
import subprocess
import uuid

from nexus_test import SERVER, SOURCE_DIR, NexusTestCase, Node

PATH = os.path.join(SOURCE_DIR, "docs", "replication-guide.md")
HTTP_PORT, REPLICATION_PORT = 15474, 15475
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
ADDRESS = re.compile(r"(\[[0-9a-f:]+\]|[^:\s]+):[0-9]+")


def _sections():
    """Heading -> the lines below it, up to the next heading of any level."""
    found, lines, in_block = {}, [], False
    with open(PATH, encoding="utf-8") as file:
        for line in file.read().splitlines():
            if line.lstrip().startswith("```"):
                in_block = not in_block
            if not in_block and (match := re.fullmatch(r"#+ (.*)", line)):
                lines = found.setdefault(match[1], [])
            else:
                lines.append(line)
    return found


SECTIONS = _sections()


def blocks(heading, language):
    """The texts of a section's blocks in that language."""
    found, block = [], None
    for line in SECTIONS[heading]:
        mark = line.strip()
        if block is None and mark == f"```{language}":
            block = []
        elif block is not None and mark == "```":
            found.append("\n".join(block))
            block = None
        elif block is not None:
            block.append(line.strip())
    return found


def commands(heading):
    """The commands of a section's bash blocks that are one line each."""
    lines = "\n".join(blocks(heading, "bash")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def example(heading):
    """The section's JSON answer."""
    (text,) = blocks(heading, "json")
    return json.loads(text)


def table(heading):
    """The rows of the section's table, as lists of cells without their backquotes."""
    rows = [line for line in SECTIONS[heading] if line.startswith("|")]
    cells = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]
    return cells[2:]


def variables():
    """Variable -> its default ("" where the guide has none)."""
    rows = table("Environment Variables") + table("Snapshot Configuration")
    return {name: "" if default == "-" else default for name, _, default in rows}


def differences(wanted, got, path="", empty=()):
    """How an answer differs in shape from the guide's example: missing fields, other JSON types, a text
    that is no UUID or address where the example has one. empty: fields that may be ""."""
    if isinstance(wanted, dict):
        if not isinstance(got, dict):
            return [f"{path}: no object but {got!r}"]
        missing = [f"{path}.{name} is missing" for name in wanted if name not in got]
        return missing + [
            difference
            for name in wanted
            if name in got
            for difference in differences(wanted[name], got[name], f"{path}.{name}", empty)
        ]
    if isinstance(wanted, list):
        if not isinstance(got, list):
            return [f"{path}: no array but {got!r}"]
        return [
            difference
            for number, item in enumerate(got)
            for difference in differences(wanted[0], item, f"{path}[{number}]", empty)
        ]
    if type(wanted) is not type(got):  # true is no number, 1.0 no integer
        return [f"{path}: {got!r} is no {type(wanted).__name__}"]
    if isinstance(wanted, str) and not (got == "" and path.rpartition(".")[2] in empty):
        for form in (UUID, ADDRESS):
            if form.fullmatch(wanted) and not form.fullmatch(got):
                return [f"{path}: {got!r} is not as {wanted!r}"]
        return [] if got else [f"{path} is empty"]
    if type(wanted) is int and got < 0:
        return [f"{path}: {got} is negative"]
    return []


class GuideNode(Node):
    """A server started by the shell with a block of the guide, in the directory that becomes its own;
    beside the block's variables it has only the ports that keep it apart from other tests."""

    def __init__(self, block, role, env=None, **options):
        super().__init__(role, **options)
        self.block = block
        self.env = {
            "NEXUS_HTTP_BIND_ADDR": self.addr,
            "NEXUS_REPLICATION_BIND_ADDR": self.replication_addr,
            **(env or {}),
        }

    def arguments(self):
        block = self.block.replace(
            f"0.0.0.0:{REPLICATION_PORT}", f"0.0.0.0:{self.replication_port}"
        )
        assert block.endswith("./nexus-server"), block
        return ["/bin/sh", "-c", block.replace("./nexus-server", f"exec '{SERVER}'")]


def env_block(*variables_):
    """A start as the guide's are, with other variables."""
    return "".join(f"{variable} \\\n" for variable in variables_) + "./nexus-server"


class GuideCase(NexusTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for program in ("curl", "jq"):
            if shutil.which(program) is None:
                raise AssertionError(f"{program} is missing: scripts/install-deps.sh test")

    def guide_node(self, block, role, start=True, **options):
        node = self.adopt(GuideNode(block, role, **options))
        return node.start() if start else node

    def guide_master(self, **options):
        """The guide's master."""
        (block,) = blocks("Starting a Master Node", "bash")
        return self.guide_node(block, "master", **options)

    def guide_replica(self, master_addr, **options):
        """The guide's replica, of that master."""
        (block,) = blocks("Starting a Replica Node", "bash")
        block = block.replace(f"192.168.1.100:{REPLICATION_PORT}", master_addr)
        self.assertIn(master_addr, block)
        return self.guide_node(block, "replica", **options)

    def guide_standalone(self, **options):
        return self.guide_node(env_block(), "standalone", **options)

    def guide_pair(self, **options):
        master = self.guide_master(**options)
        replica = self.guide_replica(master.replication_addr, start=False, **options)
        replica.start("/ready")
        return master, replica

    def shell(self, command, *nodes):
        """Runs a command of the guide and returns what it prints. Each host of it stands for one of the
        nodes: localhost for the only one, master and replica by role."""
        hosts = {"localhost": nodes[0], **{node.role: node for node in nodes}}
        for host, node in hosts.items():
            port = f"{node.http_port}"
            at = "localhost" if host == "localhost" else "127.0.0.1"
            command = command.replace(f"//{host}:{HTTP_PORT}", f"//{at}:{port}")
        self.assertNotIn(f":{HTTP_PORT}/", command)
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": nodes[0].directory, "no_proxy": "*"},
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, f"{command}: {done.stderr}")
        return done.stdout

    def ask(self, heading, node):
        """The answer to the section's one curl command."""
        (command,) = commands(heading)
        return json.loads(self.shell(command, node))

    def refused(self, heading, node):
        """The problem document that it answers."""
        (command,) = commands(heading)
        text = self.shell(command + " -w '\\n%{http_code} %{content_type}'", node)
        body, _, tail = text.rpartition("\n")
        problem = json.loads(body)
        self.assertEqual(tail, f"{problem['status']} application/problem+json")
        return problem

    def assert_like_the_guide(self, heading, answer, empty=()):
        self.assertEqual(differences(example(heading), answer, empty=empty), [])

    @staticmethod
    def is_uuid(text):
        return UUID.fullmatch(text) is not None and str(uuid.UUID(text)) == text
