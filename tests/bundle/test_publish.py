"""Killing an export leaves the old bundle or none, and the next run cleans up."""

import os
import re
import signal
import subprocess
import sys

import pytest

from sam_edge.bundle.publish import staged

DEAD = 2**22 + 1  # above the largest process id


def published(out, text):
    with staged(out) as stage:
        (stage / "manifest.json").write_text(text)


def test_a_bundle_is_replaced_whole(tmp_path):
    out = tmp_path / "bundle"
    published(out, "old")
    published(out, "new")
    assert (out / "manifest.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_failure_keeps_the_old_bundle(tmp_path):
    out = tmp_path / "bundle"
    published(out, "old")
    with pytest.raises(RuntimeError), staged(out) as stage:
        (stage / "manifest.json").write_text("half")
        raise RuntimeError
    assert (out / "manifest.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["bundle"]


def test_what_a_killed_run_left_is_removed_and_another_runs_work_is_not(tmp_path):
    out = tmp_path / "bundle"
    (tmp_path / f".bundle.partial-{DEAD}").mkdir()
    running = tmp_path / f".bundle.partial-{os.getppid()}"
    running.mkdir()
    published(out, "new")
    assert sorted(os.listdir(tmp_path)) == sorted([running.name, "bundle"])


def test_killed_between_the_two_renames_the_old_bundle_comes_back(tmp_path):
    out = tmp_path / "bundle"
    old = tmp_path / f".bundle.old-{DEAD}"
    old.mkdir()
    (old / "manifest.json").write_text("old")
    with pytest.raises(RuntimeError), staged(out):
        raise RuntimeError
    assert (out / "manifest.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["bundle"]


HALF_WRITTEN = """
import sys
from pathlib import Path
from sam_edge.bundle.publish import staged

with staged(Path(sys.argv[1])) as stage:
    (stage / "manifest.json").write_text("half")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_killed_while_it_writes_the_old_bundle_stays(tmp_path):
    out = tmp_path / "bundle"
    published(out, "old")
    command = [sys.executable, "-c", HALF_WRITTEN, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written\n"
        process.kill()
    assert (out / "manifest.json").read_text() == "old" and len(os.listdir(tmp_path)) == 2
    published(out, "new")
    assert (out / "manifest.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["bundle"]


def kill_after(command, lines):
    """Run the command until it has printed so many lines, and kill it then."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for _ in range(lines):
            assert process.stdout.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killing_a_real_export_after_each_of_its_steps(tmp_path):
    out = tmp_path / "bundle"
    command = [sys.executable, "-m", "sam_edge", "export", "--out", str(out)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    before = (out / "manifest.json").read_bytes()
    # A line for each step that is done. When the last is printed the bundle may be published already.
    steps = [number for number, line in enumerate(told, 1) if re.search(r" \d+\.\d s ", line)]
    assert len(steps) >= 4
    for lines in steps[:-1]:
        kill_after(command, lines)
        assert (out / "manifest.json").read_bytes() == before
    subprocess.run(command, check=True, capture_output=True)
    assert os.listdir(tmp_path) == ["bundle"]
