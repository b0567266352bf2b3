"""The README read as a newcomer: every command in it works as written.

The lines of all ```sh blocks run in order in a copy of the tree. Servers are started and must become ready; a later one takes the
place of an earlier one. `make` lines are not run, since they are the suites themselves or take minutes: their targets must exist.
A block behind `<!-- not run: why -->` is left out.
"""

import contextlib
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?P<skip><!-- not run: .+? -->\n+)?```(?P<kind>sh|yaml)\n(?P<text>.*?)```", re.DOTALL)
# Where a program says that it is ready when nothing else is said.
SERVERS = {"telltale serve": "http://127.0.0.1:7412/readyz", "telltale-proxy": "http://127.0.0.1:9464/healthz"}
SECONDS = 300
LOG_LINE = '192.0.2.{} - - [10/Oct/2025:13:55:3{} +0000] "GET /api/products/{} HTTP/1.1" 200 512 "-" "Mozilla/5.0"\n'


def commands() -> list[tuple[int, str]]:
    """Line number and text of each command line, comments left out, continued lines joined."""
    found = []
    for block in BLOCK.finditer(README):
        if block["kind"] != "sh" or block["skip"]:
            continue
        line = README.count("\n", 0, block.start("text")) + 1
        for text in block["text"].replace("\\\n", " " * 2).split("\n"):
            command = re.sub(r"(^|\s)# .*$", "", text).strip()
            if command:
                found.append((line, command))
            line += 1
    return found


def server(command: str) -> str | None:
    """The server that a command starts, if it is one."""
    return next((name for name in SERVERS if command.startswith(name)), None)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """A copy of the tree with what the README takes for given: a log, the rule that it shows."""
    folder = tmp_path / "telltale"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        source, to = ROOT / name, folder / name
        if source.is_file():
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to)
    (folder / "target").symlink_to(ROOT / "target")
    (folder / "access.log").write_text("".join(LOG_LINE.format(at, at, at) for at in range(1, 9)), encoding="utf-8")
    rule = next(block["text"] for block in BLOCK.finditer(README) if block["kind"] == "yaml" and "rules:" in block["text"])
    (folder / "my-rules.yaml").write_text(rule, encoding="utf-8")
    yield folder


class Shell:
    """Runs command lines one after the other; exports stay, servers run on until another takes their place."""

    def __init__(self, folder: Path) -> None:
        """In that folder."""
        self.folder = folder
        self.exports: list[str] = []
        self.servers: dict[str, subprocess.Popen[bytes]] = {}

    def popen(self, command: str) -> subprocess.Popen[bytes]:
        """Starts a line; what it writes goes to `log`."""
        # The machine's own folders stay as they are.
        command = command.replace("/var/lib/telltale", str(self.folder / "var"))
        script = "\n".join([*self.exports, command])
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(["bash", "-euc", script], cwd=self.folder, env=os.environ, stdout=log, stderr=log)

    def last_words(self) -> str:
        """The end of what the last line wrote."""
        return "\n".join((self.folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-15:])

    def run(self, command: str) -> None:
        """Runs a line to its end, or a server until it is ready."""
        if command.startswith("export "):
            self.exports.append(command)
        elif name := server(command):
            self.stop(name)
            self.servers[name] = self.popen("exec " + command.removesuffix("&").strip())
            self.ready(name)
        else:
            code = self.popen(command).wait(SECONDS)
            assert code == 0, f"ended with {code}\n{self.last_words()}"

    def ready(self, name: str) -> None:
        """Waits until the server says that it is ready."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            code = self.servers[name].poll()
            assert code is None, f"ended with {code}\n{self.last_words()}"
            with contextlib.suppress(OSError), urllib.request.urlopen(SERVERS[name], timeout=1) as answer:
                if answer.status == HTTPStatus.OK:
                    return
            time.sleep(0.05)
        raise AssertionError(f"is not ready after a minute\n{self.last_words()}")

    def stop(self, name: str) -> None:
        """Ends a server that runs."""
        process = self.servers.pop(name, None)
        if process:
            process.terminate()
            process.wait(60)


def test_there_are_commands() -> None:
    """A README without commands would pass everything below."""
    assert commands()


@pytest.mark.parametrize("target", sorted({found[1] for _, line in commands() if (found := re.match(r"make (?:\w+=\S+ )*([\w-]+)", line))}))
def test_make_targets_exist(target: str) -> None:
    """The README names only targets that the Makefile has."""
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_commands_work_as_written(copy: Path) -> None:
    """Everything but `make` works; every failing line is reported, not the first alone."""
    shell = Shell(copy)
    failed = []
    for line, command in commands():
        if command.startswith("make "):
            continue
        try:
            shell.run(command)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failed.append(f"README.md:{line}: {command}\n  {error}")
    for name in SERVERS:
        shell.stop(name)
    assert not failed, "\n".join(failed)
