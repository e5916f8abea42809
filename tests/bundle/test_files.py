"""Files are written whole or not at all, and a failure is one of ours."""

import os

import pytest

from sam_edge.errors import OutputError
from sam_edge.system.files import write_atomically


def test_a_name_too_long_for_its_temporary_sibling(tmp_path):
    name = "x" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 3)
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / name, b"1")
    assert not list(tmp_path.iterdir())
