"""Writes a folder with a random CLIP in its published layout, small or of a published size.

python -m tools.make_clip FOLDER [--vit-b-32] [--openai]
"""

import argparse
import gzip
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

MERGES = (
    "t h",
    "th e</w>",
    "a n",
    "d o",
    "do g</w>",
    "c a",
    "ca t</w>",
    "o f</w>",
    "p h",
    "ph o",
    "pho t",
    "1 2",
)
SMALL = {"text": (48, 3, 100, 3), "vision": (64, 2, 96, 4), "image": 40, "patch": 8, "context": 20, "dim": 24}
VIT_B_32 = {
    "text": (512, 12, 2048, 8),
    "vision": (768, 12, 3072, 12),
    "image": 224,
    "patch": 32,
    "context": 77,
    "dim": 512,
}


def alphabet():
    """The 256 bytes as byte-level vocabularies write them, reimplemented."""
    printable = [b for b in range(256) if chr(b).isprintable() and b not in (0x20, 0xA0, 0xAD)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def vocabulary():
    tokens = [*alphabet(), *(one + "</w>" for one in alphabet()), *(m.replace(" ", "") for m in MERGES)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}


END = len(vocabulary()) - 1


def random_clip(sizes=SMALL, activation="quick_gelu", seed=0, vocab_size=None, legacy_end=False):
    """The CLIPModel of transformers with random weights that keep signals alive."""
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")
    size = vocab_size or len(vocabulary())
    config = CLIPConfig(
        text_config={
            **dict(zip(names, sizes["text"], strict=True)),
            "vocab_size": size,
            "max_position_embeddings": sizes["context"],
            "hidden_act": activation,
            "bos_token_id": size - 2,
            "eos_token_id": 2 if legacy_end else size - 1,
        },
        vision_config={
            **dict(zip(names, sizes["vision"], strict=True)),
            "image_size": sizes["image"],
            "patch_size": sizes["patch"],
            "hidden_act": activation,
        },
        projection_dim=sizes["dim"],
    )
    model = CLIPModel(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if value.dim() >= 2 and "embedding." not in name.replace("patch_embedding", ""):
            value.data = noise / value[0].numel() ** 0.5
        elif "norm" in name and name.endswith("weight"):
            value.data = 1 + 0.2 * noise
        elif name != "logit_scale":
            value.data = 0.3 * noise
    return model


def openai_names(model):
    """The weights of `model` under the names of OpenAI's state dict."""
    state, found = model.state_dict(), {"logit_scale": model.logit_scale.data}

    def tower(theirs, start, layers):
        for i in range(layers):
            layer, block = f"{theirs}.encoder.layers.{i}", f"{start}transformer.resblocks.{i}"
            for kind in ("weight", "bias"):
                parts = [state[f"{layer}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
                found[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
                for old, new in (
                    ("self_attn.out_proj", "attn.out_proj"),
                    ("layer_norm1", "ln_1"),
                    ("layer_norm2", "ln_2"),
                    ("mlp.fc1", "mlp.c_fc"),
                    ("mlp.fc2", "mlp.c_proj"),
                ):
                    found[f"{block}.{new}.{kind}"] = state[f"{layer}.{old}.{kind}"]

    tower("text_model", "", model.config.text_config.num_hidden_layers)
    tower("vision_model", "visual.", model.config.vision_config.num_hidden_layers)
    for kind in ("weight", "bias"):
        found[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        found[f"visual.ln_pre.{kind}"] = state[f"vision_model.pre_layrnorm.{kind}"]
        found[f"visual.ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
    found |= {
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "text_projection": state["text_projection.weight"].T,
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T,
    }
    return {name: value.clone().contiguous() for name, value in found.items()}


def write_vocabulary(folder, kind="vocab.json"):
    """Write the vocabulary as transformers does (vocab.json and merges.txt) or as OpenAI publishes it."""
    if kind == "vocab.json":
        (folder / "vocab.json").write_text(json.dumps(vocabulary()))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    else:
        data = "\n".join(["bpe_simple_vocab_16e6.txt#version: 0.2", *MERGES, ""]).encode()
        (folder / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(data))


def write_hugging_face(folder, model):
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    write_vocabulary(folder)
    return folder


def write_openai(folder, model):
    """Write OpenCLIP's config and weights, as published for weights that are not OpenAI's own."""
    folder.mkdir(parents=True, exist_ok=True)
    text, vision = model.config.text_config, model.config.vision_config
    config = {
        "embed_dim": model.config.projection_dim,
        "quick_gelu": text.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "patch_size": vision.patch_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_file(openai_names(model), folder / "open_clip_model.safetensors")
    write_vocabulary(folder, "openai")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vit-b-32", action="store_true")
    parser.add_argument("--openai", action="store_true")
    args = parser.parse_args()
    made = random_clip(VIT_B_32 if args.vit_b_32 else SMALL)
    (write_openai if args.openai else write_hugging_face)(args.folder, made)
