"""The search for operators to keep in float."""

from hypothesis import given
from hypothesis import strategies as st

from sam_edge.export.quantize.search import search_nodes_to_exclude

NAMES = [f"op{i}" for i in range(23)]


def searching(needed, start=1):
    tried = []

    def measure(names):
        tried.append(len(names))
        return {"mean_iou": min(1.0, len(names) / max(needed, 1))}

    found = search_nodes_to_exclude(NAMES, start, measure, lambda parity: parity["mean_iou"] >= 1)
    return found, tried


@given(st.integers(1, len(NAMES)))
def test_no_more_is_kept_than_needed_and_few_trials_are_made(needed):
    (kept, parity, enough), tried = searching(needed)
    assert kept == NAMES[:needed] and parity["mean_iou"] == 1 and enough
    assert len(tried) <= 10


@given(st.integers(2, len(NAMES)))
def test_a_start_that_is_enough_is_taken(needed):
    (kept, _, enough), tried = searching(needed, start=needed)
    assert kept == NAMES[:needed] and enough and tried == [needed]


def test_what_cannot_be_reached_gives_the_best_that_was_seen():
    (kept, parity, enough), _ = searching(len(NAMES) + 5)
    assert not enough and kept == NAMES and 0.8 < parity["mean_iou"] < 1
