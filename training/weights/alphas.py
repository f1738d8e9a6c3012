"""The scales of the layers of an adapter, as the metadata that diffusers writes say them."""

from collections.abc import Iterator, Mapping
from typing import Any

DEEPEST = 32
"""Patterns of so many steps of a path are looked for; the layers of diffusers' models lie less than twenty deep."""


class Alphas:
    """For each part of a model one alpha, and others for the layers that patterns name.

    The metadata come from strangers: thousands of layers and of patterns have to be as quick as a few.
    """

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said
        self._patterns: dict[str, dict[str, tuple[int, Any]]] = {}

    def of(self, part: str, layer: str) -> Any:
        """Return what is said of a layer, whatever it is; None where nothing is. The last pattern that fits counts."""
        if part not in self._patterns:
            said = self._said.get(f"{part}.alpha_pattern")
            patterns = said.items() if isinstance(said, dict) else ()
            self._patterns[part] = {name: (place, alpha) for place, (name, alpha) in enumerate(patterns)}
        patterns_of_part = self._patterns[part]
        found = [patterns_of_part[name] for name in _patterns_for(layer) if name in patterns_of_part]
        if found:
            return max(found, key=lambda one: one[0])[1]
        return self._said.get(f"{part}.lora_alpha")


def _patterns_for(layer: str) -> Iterator[str]:
    """Yield the patterns that fit a layer: its name, that at the beginning only, and its name from some step on."""
    yield layer
    yield f"^{layer}"
    steps = layer.rsplit(".", DEEPEST)[1:]
    for start in range(len(steps)):
        yield ".".join(steps[start:])
