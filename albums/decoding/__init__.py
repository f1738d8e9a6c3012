"""Taking a picture file from a stranger: is it what it says, can it be decoded, and what of it may be kept?

The one way in for every picture that ImageHub has not made itself.
"""

from albums.decoding.pictures import VettedPicture, vet
from albums.decoding.refusals import ImpossiblePicture, PictureRefused, PictureTooLarge, UnsupportedPicture

__all__ = [
    "ImpossiblePicture",
    "PictureRefused",
    "PictureTooLarge",
    "UnsupportedPicture",
    "VettedPicture",
    "vet",
]
