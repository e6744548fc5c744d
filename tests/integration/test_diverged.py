# timeout: 300
"""Entries that a node has given up: how they are listed, and that /import puts them back, deletes
included. The files are made by hand here; test_diverged.c proves that they are made so."""

import base64
import json
import os
import random
import unittest

import nexus_wire as wire
import wal_files
from nexus_test import NexusTestCase

PATH = "/replication/diverged"
MOST = 10000
EMPTY = {"entries": [], "files": []}


def name(first, last, epoch=1, crc=0xABCDEF01):
    return f"{first:020d}-{last:020d}-{epoch}-{crc:08x}"


def entry(offset, keys=("k",), epoch=1, **more):
    return {"offset": offset, "epoch": epoch, "keys": list(keys), **more}


def ndjson(objects):
    return "".join(json.dumps(each) + "\n" for each in objects)


def save(node, stem, entries, lines=""):
    """Both files of a range; entries: objects, or the text as it is. The path of the .ndjson."""
    directory = os.path.join(node.data_dir, "diverged")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if not isinstance(entries, (str, bytes)):
        entries = ndjson(entries)
    for suffix, text in ((".entries", entries), (".ndjson", lines)):
        with open(os.path.join(directory, stem + suffix), "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
    return os.path.join(directory, stem + ".ndjson")


class Listing(NexusTestCase):
    def test_01_nothing_was_given_up(self):
        master, replica = self.pair()
        for node in (self.node(), master, replica):
            with self.subTest(role=node.role):
                self.assertEqual(node.json("GET", PATH), EMPTY)

    def test_02_an_empty_directory(self):
        node = self.node()
        os.mkdir(os.path.join(node.data_dir, "diverged"))
        self.assertEqual(node.json("GET", PATH), EMPTY)
        self.assertNotIn("diverged", node.log())

    def test_03_entries_come_in_order_and_files_with_their_paths(self):
        node = self.node()
        second = [entry(offset, ["b", "\u00e4\n"], 2) for offset in range(200, 211)]
        first = [entry(100), entry(101, [], 2), entry(102, ["x"], 2, keys_base64=["/w=="])]
        paths = [
            save(node, name(100, 102, 2), first),
            save(node, name(200, 210, 2), second),
        ]
        self.assertEqual(node.json("GET", PATH), {"entries": first + second, "files": paths})
        node.stop()
        node.start()
        self.assertEqual(node.json("GET", PATH), {"entries": first + second, "files": paths})

    def test_04_two_histories_that_number_alike(self):
        node = self.node()
        one = [entry(offset, ["one"], 1) for offset in range(100, 121)]
        two = [entry(offset, ["two"], 3) for offset in range(110, 131)]
        paths = [save(node, name(100, 120, 1), one), save(node, name(110, 130, 3), two)]
        self.assertEqual(
            node.json("GET", PATH),
            {
                "entries": sorted(one + two, key=lambda each: (each["offset"], each["epoch"])),
                "files": paths,
            },
        )

    def test_05_a_range_of_which_the_log_held_the_end(self):
        node = self.node()
        path = save(node, name(100, 120), [entry(119), entry(120)])
        self.assertEqual(
            node.json("GET", PATH), {"entries": [entry(119), entry(120)], "files": [path]}
        )

    def test_06_damaged_files_are_left_out(self):
        good = ndjson([entry(100)])
        damages = {
            "cut": good + '{"offset":101',
            "not JSON": good + "hello\n",
            "an empty line": good + "\n",
            "no object": good + "[]\n",
            "no offset": good + '{"epoch":1,"keys":[]}\n',
            "no epoch": good + '{"offset":101,"keys":[]}\n',
            "no keys": good + '{"offset":101,"epoch":1}\n',
            "an offset that is text": good + '{"offset":"101","epoch":1,"keys":[]}\n',
            "an offset with a fraction": good + '{"offset":101.5,"epoch":1,"keys":[]}\n',
            "a negative offset": good + '{"offset":-1,"epoch":1,"keys":[]}\n',
            "an offset before the range": ndjson([entry(99)]),
            "an offset behind the range": good + ndjson([entry(111)]),
            "an offset again": good + good,
            "an epoch behind the last": good + ndjson([entry(101, epoch=3)]),
            "epoch 0": good + ndjson([entry(101, epoch=0)]),
            "keys that are no array": good + '{"offset":101,"epoch":1,"keys":"k"}\n',
            "a key that is a number": good + '{"offset":101,"epoch":1,"keys":[1]}\n',
            "base64 that is a number": good
            + '{"offset":101,"epoch":1,"keys":[],"keys_base64":[1]}\n',
            "an unknown member": good + ndjson([entry(101, colour="blue")]),
            "a member twice": good + '{"offset":101,"epoch":1,"epoch":1,"keys":[]}\n',
            "not UTF-8": good.encode() + b'{"offset":101,"epoch":1,"keys":["\xff"]}\n',
            "zeros": b"\0" * 4096,
            "a long line without an end": "x" * 40_000_000,
        }
        node = self.node()
        after = save(node, name(200, 200), [entry(200)])
        for damage, text in damages.items():
            with self.subTest(damage):
                path = save(node, name(100, 110, 2), text)
                # Its operations still lie there.
                self.assertEqual(
                    node.json("GET", PATH), {"entries": [entry(200)], "files": [path, after]}
                )
        node.wait_log(rf"diverged/{name(100, 110, 2)}\.entries is left out .*: it is damaged")
        # At most so many lines at once, whatever is asked how often.
        for _ in range(50):
            node.json("GET", PATH)
        self.assertLess(node.log().count("is left out"), 20)

    def test_07_entries_that_are_missing(self):
        node = self.node()
        path = save(node, name(100, 110), "")
        os.unlink(path.replace(".ndjson", ".entries"))
        self.assertEqual(node.json("GET", PATH), {"entries": [], "files": [path]})
        node.wait_log(r"\.entries is left out .*: No such file or directory")

    def test_08_foreign_files_are_passed_over(self):
        node = self.node()
        path = save(node, name(100, 100), [entry(100)])
        directory = os.path.dirname(path)
        save(node, "notes", "x", "y")
        save(node, name(5, 4), [entry(5)])
        os.symlink("/etc/passwd", os.path.join(directory, name(1, 1) + ".ndjson"))
        os.mkdir(os.path.join(directory, name(2, 2) + ".ndjson"))
        save(node, name(3, 3), [entry(3)])
        os.unlink(os.path.join(directory, name(3, 3) + ".ndjson"))
        self.assertEqual(node.json("GET", PATH), {"entries": [entry(100)], "files": [path]})
        node.wait_log(r"diverged holds 7 files that belong to nothing that was saved there, as ")

    def test_09_what_is_being_made_is_not_there_yet(self):
        node = self.node()
        path = save(node, name(100, 100), [entry(100)])
        os.rename(path, path + ".tmp")
        os.rename(path.replace(".ndjson", ".entries"), path.replace(".ndjson", ".entries.tmp"))
        self.assertEqual(node.json("GET", PATH), EMPTY)
        self.assertNotIn("diverged", node.log())

    def test_10_at_most_so_many_entries(self):
        node = self.node()
        first = save(node, name(1, MOST), [entry(offset) for offset in range(1, MOST + 1)])
        answer = node.json("GET", PATH)
        self.assertEqual(len(answer["entries"]), MOST)
        self.assertNotIn("truncated", answer)
        second = save(node, name(MOST + 1, MOST + 1), [entry(MOST + 1)])
        answer = node.json("GET", PATH)
        self.assertEqual([each["offset"] for each in answer["entries"]], list(range(1, MOST + 1)))
        self.assertEqual(answer["files"], [first, second])
        self.assertIs(answer["truncated"], True)

    def test_11_at_most_so_many_bytes(self):
        node = self.node()
        large = [entry(offset, [f"{n:0500d}" for n in range(4000)]) for offset in range(1, 6)]
        save(node, name(1, 5), large)
        answer = node.json("GET", PATH)
        self.assertEqual(answer["entries"], large[:2])
        self.assertIs(answer["truncated"], True)
        # One is shown, however large it is.
        larger = [entry(1, [f"{n:0511d}" for n in range(10000)]), entry(2)]
        save(node, name(1, 5), larger)
        answer = node.json("GET", PATH)
        self.assertEqual(answer["entries"], larger[:1])
        self.assertIs(answer["truncated"], True)

    def test_12_a_directory_that_is_none(self):
        node = self.node()
        path = os.path.join(node.data_dir, "diverged")
        with open(path, "w", encoding="ascii"):
            pass
        problem = self.assert_problem(node.request("GET", PATH), 500, "internal")
        self.assertIn(path, problem["message"])

    def test_13_as_every_endpoint(self):
        node = self.node()
        status, _, body = node.request("HEAD", PATH)
        self.assertEqual((status, body), (200, b""))
        self.assert_problem(node.request("POST", PATH), 405, "method_not_allowed")
        self.assert_problem(node.request("GET", PATH + "?a=1"), 400, "bad_parameter")
        self.assertIn(PATH, node.request("GET", "/")[2].decode())


class ImportedDeletes(NexusTestCase):
    @classmethod
    def line(cls, key, value=None):
        if value is None:
            return {"key": key, "delete": True}
        return {"key": key, "value": value}

    def import_(self, node, *lines):
        return node.import_lines(ndjson(lines))

    def test_01_a_line_deletes(self):
        node = self.node()
        node.put("a", "1")
        offset = node.put("b", "2")
        answer = self.import_(node, self.line("a"))
        self.assertEqual(answer, {"imported": 1, "entries": 1, "offset": offset + 1})
        self.assertIsNone(node.get("a"))
        self.assertEqual(node.get("b"), b"2")

    def test_02_base64(self):
        node = self.node()
        key = b"\xff\x00\x80"
        node.put(key, "1")
        coded = base64.b64encode(key).decode()
        self.import_(node, {"key_base64": coded, "delete": True})
        self.assertIsNone(node.get(key))

    def test_03_what_is_not_there_is_no_error(self):
        node = self.node()
        answer = self.import_(node, self.line("a"), self.line("b"))
        self.assertEqual(answer, {"imported": 2, "entries": 0, "offset": 0})
        offset = node.put("a", "1")
        answer = self.import_(node, self.line("b"))
        self.assertEqual(answer, {"imported": 1, "entries": 0, "offset": offset})
        answer = self.import_(node, self.line("b"), self.line("a"), self.line("a"))
        self.assertEqual(answer, {"imported": 3, "entries": 1, "offset": offset + 1})
        self.assertIsNone(node.get("a"))
        # No entry carries a delete that hit nothing.
        frames = wal_files.read_log(node.wal_dir)
        self.assertEqual([op.key for op in frames[-1].entry().ops], [b"a"])

    def test_04_the_order_of_the_lines_is_kept(self):
        node = self.node()
        self.import_(
            node,
            self.line("a"),
            self.line("a", "1"),
            self.line("b", "1"),
            self.line("b"),
            self.line("c", "1"),
            self.line("c"),
            self.line("c", "2"),
        )
        self.assertEqual(node.export(), b'{"key":"a","value":"1"}\n{"key":"c","value":"2"}\n')

    def test_05_the_order_of_many_lines_is_kept(self):
        node = self.node()
        lines, state = [], {}
        chance = random.Random(5)
        for number in range(20000):
            key = f"k{chance.randrange(300):03d}"
            if chance.random() < 0.5:
                lines.append(self.line(key))
                state.pop(key, None)
            else:
                lines.append(self.line(key, str(number)))
                state[key] = str(number)
        self.assertEqual(self.import_(node, *lines)["imported"], 20000)
        expected = ndjson(self.line(key, state[key]) for key in sorted(state))
        self.assertEqual(node.export().decode(), expected.replace(": ", ":").replace(", ", ","))

    def test_06_many_that_hit_nothing(self):
        node = self.node()
        node.put("a", "1")
        answer = self.import_(node, *(self.line(f"k{n}") for n in range(12345)), self.line("a"))
        self.assertEqual(answer, {"imported": 12346, "entries": 1, "offset": 2})

    def test_07_what_is_no_such_line(self):
        node = self.node()
        node.put("a", "1")
        bad = {
            "false": ('{"key":"a","delete":false}', "bad_json", '"delete" can only be true'),
            "null": ('{"key":"a","delete":null}', "bad_json", '"delete" can only be true'),
            "a number": ('{"key":"a","delete":1}', "bad_json", '"delete" can only be true'),
            "text": ('{"key":"a","delete":"true"}', "bad_json", '"delete" can only be true'),
            "a value": ('{"key":"a","delete":true,"value":""}', "bad_json", '"value"'),
            "a coded value": (
                '{"key":"a","delete":true,"value_base64":""}',
                "bad_json",
                '"value_base64"',
            ),
            "a ttl": ('{"key":"a","delete":true,"ttl":5}', "bad_json", '"ttl"'),
            "an expiry": ('{"key":"a","delete":true,"expires_at":5}', "bad_json", '"expires_at"'),
            "false and a value": (
                '{"key":"a","delete":false,"value":"2"}',
                "bad_json",
                '"delete" can only be true',
            ),
            "an unknown member": ('{"key":"a","delete":true,"x":1}', "bad_json", '"x"'),
            "no key": ('{"delete":true}', "bad_json", '"key"'),
            "two keys": ('{"key":"a","key_base64":"YQ==","delete":true}', "bad_json", "not both"),
            "an empty key": ('{"key":"","delete":true}', "bad_key", "0 bytes"),
            "delete twice": ('{"key":"a","delete":true,"delete":true}', "bad_json", "delete"),
        }
        for what, (line, code, text) in bad.items():
            with self.subTest(what):
                body = '{"key":"good","value":"1"}\n\n' + line + "\n"
                problem = self.assert_problem(node.request("POST", "/import", body), 400, code)
                self.assertIn(text, problem["message"])
                self.assertEqual((problem["line"], problem["imported"]), (3, 1))
        self.assertEqual(node.get("a"), b"1")

    def test_08_a_batch_knows_no_such_member(self):
        node = self.node()
        body = {"ops": [{"put": {"key": "a", "value": "1", "delete": True}}]}
        self.assert_problem(node.request("POST", "/batch", json.dumps(body)), 400, "bad_json")

    def test_09_confirmed_by_the_quorum(self):
        settings = {"replication.mode": "sync"}
        master, replica = self.pair(settings=settings)
        self.import_(master, self.line("a", "1"), self.line("b", "2"))
        self.assertEqual(self.import_(master, self.line("x"))["entries"], 0)
        self.assertEqual(self.import_(master, self.line("a"))["imported"], 1)
        replica.wait_offset(master.status()["wal_offset"])
        self.assertEqual(replica.export(), b'{"key":"b","value":"2"}\n')


class RoundTrip(NexusTestCase):
    """Two nodes share a past; one of them goes on, and what it did is imported into the other."""

    @staticmethod
    def common(node):
        for number in range(50):
            node.put(f"k{number}", f"old {number}")

    @staticmethod
    def lone(node):
        node.put("k1", "new")
        node.delete("k2")
        node.put("k3", "once more")
        node.delete("k3")
        node.put(b"\xff\x00", bytes(range(256)))
        node.put("quoted \" \\ \n \u0001 \u00e4", "\u20ac")
        node.delete("k4")
        node.put("k4", "again")
        node.put("empty", "")
        node.batch([{"put": {"key": f"b{n}", "value": str(n)}} for n in range(20)])
        node.batch(
            [{"delete": {"key": f"b{n}"}} for n in range(0, 20, 2)]
            + [{"put": {"key": "b0", "value": "back"}}]
        )
        node.import_lines(ndjson({"key": f"i{n}", "value": "x" * n} for n in range(1500)))

    @staticmethod
    def member(of, raw):
        try:
            return {of: raw.decode()}
        except UnicodeDecodeError:
            return {of + "_base64": base64.b64encode(raw).decode()}

    def lines(self, frames):
        for frame in frames:
            for op in frame.entry().ops:
                line = self.member("key", op.key)
                if op.kind == wire.DELETE:
                    yield {**line, "delete": True}
                else:
                    yield {**line, **self.member("value", op.value)}

    def test_the_state_is_the_same(self):
        lone, other = self.node(), self.node()
        for node in (lone, other):
            self.common(node)
        fork = lone.json("GET", "/replication/status")["wal_offset"]
        self.lone(lone)
        self.assertNotEqual(lone.export(), other.export())
        log = wal_files.read_log(lone.wal_dir)
        frames = [frame for frame in log if frame.offset > fork]
        path = save(other, name(fork + 1, frames[-1].offset), "", ndjson(self.lines(frames)))
        with open(path, "rb") as file:
            answer = other.json("POST", "/import", file.read())
        self.assertEqual(answer["imported"], sum(len(frame.entry().ops) for frame in frames))
        self.assertEqual(lone.export(), other.export())
        # Once more does no harm.
        with open(path, "rb") as file:
            other.json("POST", "/import", file.read())
        self.assertEqual(lone.export(), other.export())


if __name__ == "__main__":
    unittest.main()
