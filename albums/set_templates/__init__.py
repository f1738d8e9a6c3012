"""Sets: what a whole set of pictures, such as a deck of cards, is made from.

An album that is a set template holds rows, one for each picture, and the texts that turn a row into a prompt.
:mod:`~albums.set_templates.rendering` says how, :mod:`~albums.set_templates.validation` what may stand there.
"""

from albums.set_templates.rendering import RenderedItem, item_name, preview_set, register_check, render_set
from albums.set_templates.validation import NotASet, SetBroken, check_theme, validate_set_template

__all__ = [
    "NotASet",
    "RenderedItem",
    "SetBroken",
    "check_theme",
    "item_name",
    "preview_set",
    "register_check",
    "render_set",
    "validate_set_template",
]
