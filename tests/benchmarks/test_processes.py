"""Fresh processes that measure, and interleaved rounds."""

import random
import sys
import textwrap

import pytest

from sam_edge.benchmarks.measure.interleave import median, ratio, sample_in_rounds, shuffled_rounds
from sam_edge.benchmarks.measure.process import MeasuringProcess, ProcessError, time_command
from sam_edge.benchmarks.measure.worker import __file__ as worker_file
from sam_edge.benchmarks.measure.worker import milliseconds, repeat


@pytest.fixture
def command(tmp_path):
    """A process that imports nothing of sam-edge."""
    script = tmp_path / "work.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, runpy, sys, time
            module = runpy.run_path({worker_file!r})
            assert "sam_edge" not in sys.modules and "numpy" not in sys.modules
            kept = []

            def add(task):
                print("what a library prints")
                kept.append(task["value"])
                return kept

            def fail(task):
                raise {{"value": ValueError, "key": KeyError, "memory": MemoryError}}[task["kind"]]("no")

            def sleep(task):
                time.sleep(60)

            def end(task):
                print("the last words", file=sys.stderr)
                sys.stderr.flush()
                os.kill(os.getpid(), 9) if task["signal"] else os._exit(3)

            work = {{"add": add, "fail": fail, "sleep": sleep, "end": end}}
            work["peak"] = lambda task: module["peak_rss_mb"]()
            module["serve"](work, expected=ValueError)
            """
        )
    )
    return [sys.executable, "-I", str(script)]


def test_a_process_answers_one_task_after_another(command):
    with MeasuringProcess(command) as process:
        assert process.ask({"work": "add", "value": 1}) == [1]
        with pytest.raises(ProcessError, match=r"^no$"):
            process.ask({"work": "fail", "kind": "value"})
        with pytest.raises(ProcessError, match=r"^out of memory: no$"):
            process.ask({"work": "fail", "kind": "memory"})
        assert process.ask({"work": "add", "value": "ü"}) == [1, "ü"]
        assert 1 < process.ask({"work": "peak"}) < 1000


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"work": "fail", "kind": "key"}, "exit code 1: KeyError: 'no'"),
        ({"work": "end", "signal": False}, "exit code 3: the last words"),
        ({"work": "end", "signal": True}, "signal 9: the last words"),
    ],
)
def test_a_process_that_ends_says_how(command, task, says):
    with MeasuringProcess(command) as process:
        with pytest.raises(ProcessError, match=f"its process ended with {says}"):
            process.ask(task)
        with pytest.raises(ProcessError, match="its process ended with"):
            process.ask({"work": "add", "value": 1})


def test_a_process_that_hangs_is_killed(command):
    with MeasuringProcess(command) as process:
        process.ask({"work": "add", "value": 1})
        with pytest.raises(ProcessError, match="had not ended after 0 s"):
            process.ask({"work": "sleep"}, timeout=0.1)


def test_a_command_is_timed_or_named():
    assert time_command([sys.executable, "-I", "-c", "import time; time.sleep(0.2)"]) > 200
    with pytest.raises(ProcessError, match="boom"):
        time_command([sys.executable, "-I", "-c", "raise SystemExit('boom')"])


def test_every_round_has_everything_in_another_order():
    orders = list(shuffled_rounds("abcdef", 6, 1))
    assert all(sorted(order) == list("abcdef") for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert orders == list(shuffled_rounds("abcdef", 6, random.Random(1)))
    assert orders != list(shuffled_rounds("abcdef", 6, 2))


def test_rounds_that_warm_up_are_not_counted():
    calls = []

    def call(name):
        calls.append(name)
        return len(calls)

    found = sample_in_rounds({name: lambda name=name: call(name) for name in "ab"}, 3, warmup=2)
    assert len(calls) == 10 and [sorted(calls[i : i + 2]) for i in range(0, 10, 2)] == [["a", "b"]] * 5
    assert sorted(found["a"] + found["b"]) == [5, 6, 7, 8, 9, 10]


def test_medians_are_of_all_samples():
    assert median([[1], [2, 9], []]) == 2
    assert ratio([[4.0], [6.0]], [[2.0], [2.0, 2.0]]) == 2.5


def test_work_is_repeated_once_at_least():
    calls = []
    assert len(repeat(lambda: calls.append(1), 0)) == len(calls) == 1
    assert len(repeat(lambda: calls.append(1), 0.05)) == len(calls) - 1 > 1
    assert milliseconds(lambda: calls.append(1)) >= 0
