"""Killing an export leaves the old bundle or none, and the next run cleans up."""

import os
import signal
import subprocess
import sys
import time

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


@pytest.mark.slow
def test_killing_a_real_export_at_several_moments(exported, tmp_path):
    out = tmp_path / "bundle"
    command = [sys.executable, "-m", "sam_edge", "export", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    before = (out / "manifest.json").read_bytes()
    for seconds in (2, 5, 9, 13, 16):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (out / "manifest.json").read_bytes() == before
    subprocess.run(command, check=True, capture_output=True)
    assert os.listdir(tmp_path) == ["bundle"]
