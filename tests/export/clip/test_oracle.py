"""CLIP's reference against `transformers`, with the same random weights, read from both published layouts."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from sam_edge.errors import CheckpointError
from sam_edge.export.architectures.clip import ClipConfig, ClipModel, Tower
from sam_edge.export.clip.checkpoint import load_clip
from sam_edge.export.clip.tokenizer import make_tokenizer
from sam_edge.tasks.clip import read_tokenizer
from tools.make_clip import (
    END,
    SMALL,
    VIT_B_32,
    openai_names,
    random_clip,
    write_hugging_face,
    write_openai,
    write_vocabulary,
)

ODD = {"text": (30, 1, 17, 5), "vision": (28, 3, 31, 7), "image": 45, "patch": 7, "context": 9, "dim": 11}
WIDE = {
    "text": (64, 2, 256, 1),
    "vision": (96, 1, 384, 6),
    "image": 32,
    "patch": 16,
    "context": 12,
    "dim": 64,
}


def agree(ours, theirs):
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def token_ids(sizes):
    """Ends in the middle, at the end, twice, and at once after the start."""
    length = sizes["context"]
    ids = torch.randint(0, END - 1, (4, length), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = END - 1
    ids[0, 3:], ids[1, -1], ids[2, 4], ids[2, 6], ids[3, 1:] = END, END, END, END, 0
    ids[3, 1] = END
    return ids


def compare(theirs, ours, sizes):
    side = sizes["image"]
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(2))
    ids = token_ids(sizes)
    with torch.inference_mode():
        agree(ours.encode_image(images), theirs.get_image_features(images).pooler_output)
        agree(ours.encode_text(ids.int()), theirs.get_text_features(ids).pooler_output)
    assert ours.logit_scale.exp() == theirs.logit_scale.exp()


@pytest.mark.parametrize("sizes", [SMALL, ODD, WIDE], ids=["small", "odd", "wide"])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("write", [write_hugging_face, write_openai])
def test_both_towers_are_transformers(tmp_path, sizes, activation, write):
    theirs = random_clip(sizes, activation)
    loaded = load_clip(write(tmp_path, theirs))
    assert loaded.layout == ("huggingface" if write is write_hugging_face else "published")
    assert not loaded.remark
    compare(theirs, loaded.model, sizes)


def test_the_end_of_text_that_was_once_written_by_mistake(tmp_path):
    theirs = random_clip(SMALL, legacy_end=True)
    loaded = load_clip(write_hugging_face(tmp_path, theirs))
    assert loaded.model.config.end_of_text == END
    compare(theirs, loaded.model, SMALL)


def test_the_activation_matters(tmp_path):
    theirs = random_clip(SMALL, "gelu")
    folder = write_hugging_face(tmp_path, theirs)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_act"] = config["vision_config"]["hidden_act"] = "quick_gelu"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(AssertionError):
        compare(theirs, load_clip(folder).model, SMALL)


def test_vit_b_32_has_the_published_shapes():
    with torch.device("meta"):
        ours = ClipModel(
            ClipConfig(512, Tower(512, 12, 8, 2048), 77, 49408, 49407, Tower(768, 12, 12, 3072), 224, 32)
        )
    assert sum(value.numel() for value in ours.parameters()) == 151_277_313  # as OpenAI's ViT-B/32
    assert VIT_B_32["dim"] == 512


def test_a_state_dict_alone_is_taken_for_openais(tmp_path):
    sizes = {**SMALL, "text": (64, 2, 100, 1), "vision": (128, 2, 96, 2)}
    theirs = random_clip(sizes)
    weights = openai_names(theirs)
    # As in the published archives: sizes beside the weights, and half precision.
    weights |= {name: torch.tensor(40) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "ViT.pt")
    loaded = load_clip(tmp_path)
    assert "OpenAI" in loaded.remark
    compare(theirs, loaded.model, sizes)


def test_a_wrong_file_names_its_keys(tmp_path):
    folder = write_hugging_face(tmp_path, random_clip())
    weights = load_file(folder / "model.safetensors")
    del weights["vision_model.post_layernorm.bias"]
    save_file({**weights, "extra": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"1 missing, first visual\.ln_post\.bias; 1 unexpected, first extra"
    ):
        load_clip(folder)
    save_file({"fc.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"lacks token_embedding\.weight; its first tensor is fc\.weight"
    ):
        load_clip(folder)


def test_a_torchscript_archive_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "ViT-B-32.pt")
    with pytest.raises(CheckpointError, match="TorchScript archive"):
        load_clip(tmp_path)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    torch.save({"state_dict": Runs()}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="never run"):
        load_clip(tmp_path)


class Runs:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "heads and activation"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "not an object"),
        (lambda folder: (folder / "model.safetensors").unlink(), "found none"),
        (lambda folder: edit(folder, "text_config", "num_attention_heads", 5), "5 heads do not fit"),
        (lambda folder: edit(folder, "text_config", "hidden_act", "relu"), "unknown activation 'relu'"),
        (lambda folder: edit(folder, "vision_config", "image_size", 80), "25 image positions"),
        (lambda folder: edit(folder, "text_config", "eos_token_id", 9999), "eos_token_id 9999"),
        (
            lambda folder: (folder / "preprocessor_config.json").write_text('{"image_mean": [1]}'),
            "three numbers",
        ),
    ],
)
def test_a_folder_that_is_not_whole(tmp_path, change, says):
    folder = write_hugging_face(tmp_path, random_clip())
    change(folder)
    with pytest.raises(CheckpointError, match=says):
        load_clip(folder)


def edit(folder, part, key, value):
    config = json.loads((folder / "config.json").read_text())
    config[part][key] = value
    (folder / "config.json").write_text(json.dumps(config))


def test_no_such_folder(tmp_path):
    with pytest.raises(CheckpointError, match="is not a folder"):
        load_clip(tmp_path / "none")


TRICKY = [
    "a photo of the dog",
    "  The\tDOG\n\nand  the   cat ",
    "it's they're we've I'm you'll he'd",
    "Ünïcödé é e\u0301 ﬁ Ⅳ ß İstanbul",
    "日本語のテキスト, 한국어; العربية",
    "emoji 🐕‍🦺 👩🏽‍🚀 !!!???...",
    "12345 3.14 1,000 x²",
    "<|endoftext|> in the middle <|startoftext|>",
    "under_score-and--dashes &amp; <b>html</b>",
    "\u00a0\u200bzero width\ufeff",
    "",
    " ",
    "the dog " * 100,
]


@pytest.mark.parametrize("kind", ["vocab.json", "openai", "tokenizer.json"])
def test_the_tokeniser_is_transformers(tmp_path, kind):
    write_vocabulary(tmp_path, "openai" if kind == "openai" else "vocab.json")
    words = tmp_path / "words"
    words.mkdir()
    write_vocabulary(words)
    theirs = CLIPTokenizer.from_pretrained(words)
    if kind == "tokenizer.json":
        theirs.save_pretrained(tmp_path)
    config = ClipConfig(8, Tower(8, 1, 1, 8), 20, END + 1, END, Tower(8, 1, 1, 8), 8, 8)
    ours = read_tokenizer(make_tokenizer(tmp_path, config), 20)
    for text in TRICKY:
        wanted = theirs(text, truncation=True, max_length=20)["input_ids"]
        assert ours.encode(text).ids == wanted, text
        assert len(wanted) <= 20 and wanted[0] == END - 1 and wanted[-1] == END


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "vocab.json").unlink(), "holds no vocabulary"),
        (lambda folder: (folder / "merges.txt").unlink(), "cannot be read"),
        (lambda folder: (folder / "vocab.json").write_text("{"), "cannot be read"),
        (
            lambda folder: (folder / "vocab.json").write_text("{}"),
            "lacks <|startoftext|>".replace("|", "\\|"),
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "is no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff"), "is no tokenizer"),
    ],
)
def test_a_damaged_vocabulary(tmp_path, change, says):
    write_vocabulary(tmp_path)
    change(tmp_path)
    config = ClipConfig(8, Tower(8, 1, 1, 8), 20, END + 1, END, Tower(8, 1, 1, 8), 8, 8)
    with pytest.raises(CheckpointError, match=says):
        make_tokenizer(tmp_path, config)


def test_another_models_vocabulary(tmp_path):
    write_vocabulary(tmp_path)
    config = ClipConfig(8, Tower(8, 1, 1, 8), 20, END + 2, END + 1, Tower(8, 1, 1, 8), 8, 8)
    with pytest.raises(CheckpointError, match="another model's"):
        make_tokenizer(tmp_path, config)
