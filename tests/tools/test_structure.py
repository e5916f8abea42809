"""The script that draws the folders and counts import circles."""

import pytest

from tools.structure import import_graph, large_parts, main, read_modules, wrong_imports


def write(root, **modules):
    """Modules of a made-up package, by path."""
    for name, text in modules.items():
        path = root / "sam_edge" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent, *path.parent.parents):
            if folder == root:
                break
            (folder / "__init__.py").touch()
        path.write_text(text)
    return read_modules(root)


@pytest.mark.parametrize(
    "back",
    [
        "from sam_edge.a import one\n",
        "from .a import one\n",
        "from . import a\n",
        "import sam_edge.a\n",
        "def f():\n    from sam_edge.a import one\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import one\n",
    ],
    ids=["absolute", "relative", "module", "import", "lazy", "TYPE_CHECKING"],
)
def test_a_circle_of_modules_is_found(tmp_path, capsys, back):
    modules = write(tmp_path, a="from .b import two\n\none = 1\n", b=back)
    assert wrong_imports(modules)["import circles of modules"] == ["sam_edge.a <-> sam_edge.b"]
    assert main(["--quiet", "--root", str(tmp_path)]) == 1
    assert "1 import circles of modules\n    sam_edge.a <-> sam_edge.b\n" in capsys.readouterr().out


def test_a_circle_of_folders_without_one_of_modules_is_found(tmp_path):
    modules = write(
        tmp_path,
        x__a="from ..y.b import two\n",
        y__b="two = 2\n",
        y__c="from sam_edge.x.d import d\n",
        x__d="",
    )
    wrong = wrong_imports(modules)
    assert not wrong["import circles of modules"]
    assert wrong["import circles of folders"] == ["sam_edge.x <-> sam_edge.y"]


def test_one_direction_is_no_circle(tmp_path, capsys):
    modules = write(tmp_path, x__a="from ..y.b import two\n", y__b="import os, json.decoder\n")
    assert import_graph(modules)["sam_edge.x.a"] == {"sam_edge.y.b"}
    assert not any(wrong_imports(modules).values())
    assert main(["--root", str(tmp_path)]) == 0
    assert "sam_edge.x -> y\n" in capsys.readouterr().out


def test_the_package_may_not_import_the_tools(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "t.py").write_text("from sam_edge.a import one\n")
    wrong = wrong_imports(write(tmp_path, a="def f():\n    import tools.t\n"))
    assert wrong["imports of tools from the package"] == ["sam_edge.a -> tools.t"]


def test_large_parts_are_listed(tmp_path, capsys):
    long_function = "def f(a, b, c, /, d, e, f, g, *, h):\n" + "    pass\n" * 60
    modules = write(
        tmp_path, a=long_function, b="x = 1\n" * 401, c="class C:\n    def f(self, a, b, c, d, e, f): ...\n"
    )
    assert list(large_parts(modules).values()) == [
        ["sam_edge.b: 401"],
        ["sam_edge.a.f: 61"],
        ["sam_edge.a.f: 7"],
    ]
    assert main(["--quiet", "--root", str(tmp_path)]) == 1
    assert "1 functions over 60 lines\n    sam_edge.a.f: 61\n" in capsys.readouterr().out


def test_the_repository_has_no_circle_and_no_large_part():
    modules = read_modules()
    assert {"sam_edge.runtime.sam", "sam_edge.export.cli", "tools.structure"} <= modules.keys()
    wrong = wrong_imports(modules)
    assert wrong == {what: [] for what in wrong}
    assert main(["--quiet"]) == 0
