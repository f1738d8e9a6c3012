"""Themes for a set, made up from words: what kind of picture, of which world, in which light and colors."""

import secrets

MEDIA = (
    "linocut", "copperplate etching", "gouache on rough paper", "cut paper collage", "silk-screen print", "mosaic of glass",
    "embroidery on linen", "charcoal and chalk", "watercolour with salt blooms", "enamel on brass", "woodblock print",
    "chalk pastel", "ink wash", "stained glass", "carved bone inlay", "risograph in two colours", "fresco on old plaster",
    "tin toy lithograph", "folded paper", "pressed flowers under glass", "needle felt", "pixel art", "claymation still",
    "oil sketch", "blueprint drawing", "marquetry", "batik", "scratchboard",
)  # fmt: skip
WORLDS = (
    "a fishing village before the storm", "a night train across the steppe", "a garden of clockwork birds",
    "the attic of a natural history museum", "a harbour of paper boats", "deep sea research stations",
    "a monastery above the clouds", "the market of a desert town", "a travelling circus in winter",
    "an observatory on a green moon", "a kitchen full of spices", "railway posters of imaginary islands",
    "mushroom forests after rain", "a village of lighthouse keepers", "the workshops of mask makers",
    "polar expeditions a century ago", "a city on the backs of turtles", "orchards in late autumn",
    "salt mines lit by lanterns", "a library under water", "kite makers of a windy coast",
    "the court of a fox queen", "greenhouses on a space station", "tea fields at dawn", "ruins grown over with ivy",
    "glass blowers and their furnaces", "a carnival of moths", "mountain huts in deep snow",
)  # fmt: skip
MOODS = (
    "indigo and bone white", "soft morning fog", "a single lamp in the dark", "copper and sea green",
    "long evening shadows", "faded summer colours", "black, white and one red", "the glow of embers",
    "pale winter sun", "ochre and slate", "moonlight on wet stone", "saffron and plum", "muted earth tones",
    "bright noon with hard edges", "mother of pearl", "northern lights", "moss and rust", "powder pink and graphite",
)  # fmt: skip


def random_theme() -> str:
    """Return one of some fourteen thousand themes."""
    return f"{secrets.choice(MEDIA)}, {secrets.choice(WORLDS)}, {secrets.choice(MOODS)}"
