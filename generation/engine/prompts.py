r"""Prompts to what a model reads of them: weights, prompts of any length, and a memory for those seen before.

The one syntax is ``(words:1.3)``, with a decimal point, from 0.0 to 2.0: the form that people know from other
tools. Everything else, parentheses included, is plain text, so that ``(a heart)``, ``(16:9)`` or ``C++`` mean what
they say. ``\(`` and ``\)`` are parentheses that never begin or end a weight. Only models that read with CLIP know
weights and long prompts; others get the text as it is.
"""

import re
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from compel import EmbeddingsProvider, ReturnedEmbeddingsType
from compel.embeddings_provider import SplitLongTextMode

WEIGHTED = re.compile(
    r"(?<!\\)\((?P<words>(?:[^()\\]|\\.)+?):\s*(?P<weight>[01]\.\d+|2\.0+|\.\d+)\s*\)", re.DOTALL
)

ESCAPED = re.compile(r"\\([()])")

CLIP_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

REMEMBERED = 64
"""Prompts: 40 MB for SDXL in half precision. A set repeats its negative prompt, a retry everything."""


@dataclass(frozen=True)
class Fragment:
    """Part of a prompt, and how much it counts: 1 as any text, 0 not at all."""

    text: str
    weight: float


def parse_prompt(prompt: str) -> list[Fragment]:
    """Return the fragments of a prompt, in their order. One without weights is one fragment."""
    fragments, end = [], 0
    for match in WEIGHTED.finditer(prompt):
        fragments += [
            Fragment(prompt[end : match.start()], 1.0),
            Fragment(match["words"], float(match["weight"])),
        ]
        end = match.end()
    fragments.append(Fragment(prompt[end:], 1.0))
    kept = [
        Fragment(ESCAPED.sub(r"\1", part.text).strip(), part.weight)
        for part in fragments
        if part.text.strip()
    ]
    if len(fragments) == 1:  # to the letter what was asked for, spaces included
        return [Fragment(ESCAPED.sub(r"\1", prompt), 1.0)]
    return kept or [Fragment("", 1.0)]


@dataclass(frozen=True)
class Encoded:
    """What a model reads of a prompt: 1 x tokens x width, and for SDXL the pooled one, 1 x width."""

    sequence: torch.Tensor
    pooled: torch.Tensor | None


class PromptReader:
    """The text encoders of one pipeline."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._has_two = type(pipeline).__name__ == "StableDiffusionXLPipeline"
        self._knows_weights = (
            type(pipeline).__name__ in CLIP_PIPELINES
            and pipeline.text_encoder is not None
            and (not self._has_two or pipeline.text_encoder_2 is not None)
        )
        self._memory: OrderedDict[tuple[str, Hashable], Encoded] = OrderedDict()
        self.hits = 0

    def arguments(
        self, prompt: str, negative_prompt: str, *, is_guided: bool, state: Hashable
    ) -> dict[str, Any]:
        """Return what to call the pipeline with.

        Args:
            prompt: what to draw.
            negative_prompt: what not to draw.
            is_guided: whether the pipeline looks at the negative prompt at all.
            state: which adapters act on the text encoders; what was read under another is not used.
        """
        if not self._knows_weights:
            texts = {"prompt": prompt, "negative_prompt": negative_prompt}
            return {name: text for name, text in texts.items() if text or name == "prompt"}
        positive = self._read(prompt, state)
        if not is_guided:
            return self._named(positive, "")
        negative = self._read_negative(negative_prompt, positive, state)
        longest = max(positive.sequence.shape[1], negative.sequence.shape[1])
        return self._named(self._padded(positive, longest, state), "") | self._named(
            self._padded(negative, longest, state), "negative_"
        )

    def forget(self) -> None:
        """Give the memory back."""
        self._memory.clear()

    def _named(self, encoded: Encoded, prefix: str) -> dict[str, Any]:
        arguments = {f"{prefix}prompt_embeds": encoded.sequence}
        return (
            arguments
            if encoded.pooled is None
            else arguments | {f"{prefix}pooled_prompt_embeds": encoded.pooled}
        )

    def _read_negative(self, prompt: str, positive: Encoded, state: Hashable) -> Encoded:
        if prompt or positive.pooled is None or not self._pipeline.config.force_zeros_for_empty_prompt:
            return self._read(prompt, state)
        return Encoded(torch.zeros_like(positive.sequence), torch.zeros_like(positive.pooled))

    def _read(self, prompt: str, state: Hashable) -> Encoded:
        key = prompt, state
        if key in self._memory:
            self.hits += 1
            self._memory.move_to_end(key)
            return self._memory[key]
        fragments = parse_prompt(prompt)
        encoded = self._read_plain(" ".join(fragment.text for fragment in fragments))
        if any(fragment.weight != 1 for fragment in fragments) or self._is_long(fragments):
            encoded = Encoded(self._read_weighted(fragments), encoded.pooled)
        self._memory[key] = encoded
        if len(self._memory) > REMEMBERED:
            self._memory.popitem(last=False)
        return encoded

    def _read_plain(self, text: str) -> Encoded:
        """Read a prompt as the pipeline itself would, to the bit."""
        pipeline = self._pipeline
        found = pipeline.encode_prompt(
            prompt=text,
            device=pipeline.text_encoder.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return Encoded(found[0], found[2] if self._has_two else None)

    def _is_long(self, fragments: Sequence[Fragment]) -> bool:
        tokenizer = self._pipeline.tokenizer
        text = " ".join(fragment.text for fragment in fragments)
        return len(tokenizer(text, truncation=False)["input_ids"]) > tokenizer.model_max_length

    def _read_weighted(self, fragments: Sequence[Fragment]) -> torch.Tensor:
        texts = [fragment.text for fragment in fragments]
        weights = [fragment.weight for fragment in fragments]
        parts = [
            provider.get_embeddings_for_weighted_prompt_fragments(
                [texts], [weights], device=provider.text_encoder.device
            )
            for provider in self._providers()
        ]
        longest = max(part.shape[1] for part in parts)  # two tokenizers may need different numbers of chunks
        return torch.cat([_repeat_last(part, longest) for part in parts], dim=-1)

    def _providers(self) -> list[EmbeddingsProvider]:
        pipeline = self._pipeline
        pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
        kind = ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
        if self._has_two:
            pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
            kind = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
        return [
            EmbeddingsProvider(
                tokenizer,
                encoder,
                dtype_for_device_getter=lambda _, encoder=encoder: encoder.dtype,
                truncate=False,
                returned_embeddings_type=kind,
                device=encoder.device,
                split_long_text_mode=SplitLongTextMode.WORDS,
            )
            for tokenizer, encoder in pairs
        ]

    def _padded(self, encoded: Encoded, length: int, state: Hashable) -> Encoded:
        """Return it as long as another one: with what an empty prompt is read as, again and again."""
        missing = length - encoded.sequence.shape[1]
        if not missing:
            return encoded
        empty = (
            self._read("", state).sequence if encoded.sequence.any() else torch.zeros_like(encoded.sequence)
        )
        repeated = empty.repeat(1, -(-missing // empty.shape[1]), 1)[:, :missing]
        return Encoded(torch.cat([encoded.sequence, repeated], dim=1), encoded.pooled)


def _repeat_last(part: torch.Tensor, length: int) -> torch.Tensor:
    missing = length - part.shape[1]
    return torch.cat([part, part[:, -1:].expand(-1, missing, -1)], dim=1) if missing else part
