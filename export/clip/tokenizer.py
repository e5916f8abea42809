"""Make CLIP's tokenizer as one `tokenizer.json`: copied, or built from the published vocabulary."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from sam_edge.errors import CheckpointError, IntegrityError
from sam_edge.tasks.clip import import_tokenizers, read_tokenizer

from ..architectures.clip import ClipConfig

START, END = "<|startoftext|>", "<|endoftext|>"
OPENAI_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
# OpenAI's models have 49408 tokens: 256 bytes within a word, 256 at its end, two special, one per merge.
_OPENAI_MERGES = 49408 - 2 * 256 - 2
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def make_tokenizer(folder: Path, config: ClipConfig) -> bytes:
    """Make the JSON of the tokenizer in a folder, and check that it belongs to the model.

    Raises:
        CheckpointError: the vocabulary is missing, damaged, or another model's.
        BackendError: the `tokenizers` package is not installed.
    """
    path, data = _json(folder)
    try:
        tokenizer = read_tokenizer(data, config.context_length)
    except IntegrityError as error:
        raise CheckpointError(f"{path} is no tokenizer ({error})") from error
    size, end = tokenizer.get_vocab_size(), tokenizer.token_to_id(END)
    if size > config.vocab_size or end != config.end_of_text:
        raise CheckpointError(
            f"{path} is another model's: it has {size} tokens and {END} has the id {end}; the weights have "
            f"{config.vocab_size} tokens, and {END} has the id {config.end_of_text}"
        )
    ids = tokenizer.encode("a").ids
    if ids[0] != tokenizer.token_to_id(START) or ids[-1] != end:
        raise CheckpointError(
            f"{path} does not put {START} before and {END} after a text; give CLIP's own tokenizer"
        )
    return data


def _json(folder: Path) -> tuple[Path, bytes]:
    ready, vocabulary, openai = folder / "tokenizer.json", folder / "vocab.json", folder / OPENAI_VOCABULARY
    try:
        if ready.is_file():
            return ready, ready.read_bytes()
        if vocabulary.is_file():
            lines = (folder / "merges.txt").read_text("utf-8").split("\n")
            pairs = [line for line in lines if line.strip() and not line.startswith("#version")]
            return vocabulary, _build(json.loads(vocabulary.read_bytes()), pairs)
        if openai.is_file():
            lines = gzip.decompress(openai.read_bytes()).decode("utf-8").split("\n")
            return openai, _build(*_openai([line for line in lines[1 : 1 + _OPENAI_MERGES] if line]))
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"the vocabulary in {folder} cannot be read ({error}); download it again"
        ) from error
    raise CheckpointError(
        f"--clip {folder} holds no vocabulary; put tokenizer.json, or vocab.json and merges.txt, or OpenAI's "
        f"{OPENAI_VOCABULARY} beside the weights"
    )


def _openai(merges: list[str]) -> tuple[dict[str, int], list[str]]:
    """Make OpenAI's vocabulary, in order: bytes, bytes that end a word, merges, the two special tokens."""
    alphabet = _bytes()
    tokens = [*alphabet, *(f"{one}</w>" for one in alphabet), *("".join(line.split()) for line in merges)]
    return {token: number for number, token in enumerate([*tokens, START, END])}, merges


def _bytes() -> list[str]:
    """The characters that byte-level BPE uses for the 256 bytes (Radford et al. 2019), printable first."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, plain), *(chr(256 + i) for i in range(256 - len(plain)))]


def _build(vocabulary: dict[str, int], merges: list[str]) -> bytes:
    """Build a tokenizer with the same steps as CLIPTokenizer of `transformers`."""
    tokenizers: Any = import_tokenizers()
    for special in (START, END):
        if special not in vocabulary:
            raise ValueError(f"it lacks {special}")
    pairs = [tuple(line.split()) for line in merges]
    try:
        tokenizer = tokenizers.Tokenizer(
            tokenizers.models.BPE(
                vocab=vocabulary,
                merges=pairs,
                continuing_subword_prefix="",
                end_of_word_suffix="</w>",
                unk_token=END,
            )
        )
    except Exception as error:  # tokenizers raises plain exceptions
        raise ValueError(str(error)) from error
    normalizers, split, processors = tokenizers.normalizers, tokenizers.pre_tokenizers, tokenizers.processors
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = split.Sequence(
        [
            split.Split(tokenizers.Regex(_WORDS), behavior="removed", invert=True),
            split.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.add_special_tokens([START, END])
    data: str = tokenizer.to_str()
    return data.encode()
