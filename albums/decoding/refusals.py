"""Why a picture is not taken."""

from imagehub.errors import ImageHubError


class PictureRefused(ImageHubError):
    """A picture that is not taken. ``code`` says why to programs, the text to people."""

    title = "The picture is not accepted"

    def __init__(self, detail: str, *, code: str = "") -> None:
        super().__init__(detail)
        self.code = code or self.code


class UnsupportedPicture(PictureRefused):
    """It is of no kind that is accepted, or its name, its type and its bytes disagree (415)."""

    code = "unsupported_media_type"


class PictureTooLarge(PictureRefused):
    """It has too many bytes (413)."""

    code = "too_large"


class ImpossiblePicture(PictureRefused):
    """It is of an accepted kind, but damaged, or beyond a limit that is not about bytes (422)."""

    code = "unreadable_picture"


class DecoderUnavailable(ImpossiblePicture):
    """No decoder could be had in time. Nothing is known about the picture; it may be sent again."""

    code = "decoder_unavailable"
