"""The README read as a newcomer: every command in it works as written.

All ```sh blocks run in order, in one shell, in a copy of the tree. `make` lines are not run, since they are the suites themselves or
take minutes: their targets must exist. A block behind `<!-- not run: why -->` is left out.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(?P<skip><!-- not run: .+? -->\n+)?```sh\n(?P<text>.*?)```", re.DOTALL)
SECONDS = 300


def blocks() -> list[tuple[int, str]]:
    """Line number and text of each block that is to run."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start()) + 1, found["text"]) for found in BLOCK.finditer(text) if not found["skip"]]


def makes(text: str) -> list[str]:
    """Targets of the `make` lines of a block."""
    return re.findall(r"^make (?:\w+=\S+ )*([\w-]+)", text, re.MULTILINE)


def test_there_are_commands() -> None:
    """A README without commands would pass everything below."""
    assert blocks()


@pytest.mark.parametrize("target", sorted({target for _, text in blocks() for target in makes(text)}))
def test_make_targets_exist(target: str) -> None:
    """The README names only targets that the Makefile has."""
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_commands_work_as_written(tmp_path: Path) -> None:
    """Everything but `make` runs to its end."""
    copy = tmp_path / "telltale"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        source, to = ROOT / name, copy / name
        if source.is_file():
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to)
    (copy / "target").symlink_to(ROOT / "target")
    script = "set -euo pipefail\n"
    for line, text in blocks():
        script += f"echo '== README.md line {line}' >&2\n" + re.sub(r"^make .*$", ":", text, flags=re.MULTILINE)
    environment = os.environ | {"PATH": f"{ROOT}/target/release:{ROOT}/target/venv/bin:{os.environ['PATH']}"}
    environment["ORT_DYLIB_PATH"] = str(ROOT / "target/onnxruntime/libonnxruntime.so")
    log = tmp_path / "log"
    with log.open("w", encoding="utf-8") as out:
        shell = subprocess.Popen(["bash", "-c", script], cwd=copy, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            code: int | None = shell.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # What the README leaves running in the background ends with the test.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-30:])
    assert code == 0, f"ended with {code} (None: took more than {SECONDS} s)\n{last}"
