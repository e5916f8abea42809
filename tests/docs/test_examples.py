"""The examples of the documentation run as they are written."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.support import ROOT


def examples(page):
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.S | re.M)
    assert found, page
    return "\n".join(found)


@pytest.mark.parametrize("page", ["README.md", "docs/runtime.md", "docs/masks.md"])
def test_the_examples_run(page, exported, photo):
    code = examples(page).replace('"vit_b"', repr(str(exported)))
    image = np.array(Image.open(photo).convert("RGB").resize((640, 480)))
    names = {"bundle": exported, "image": image}
    exec(compile(code, page, "exec"), names)
    masks = names["found"].masks
    assert masks.shape[2:] == image.shape[:2] and masks.any()
