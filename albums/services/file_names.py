"""What strangers call their files. A name is data: it is shown, and never leads to a file of ours."""

import re
import unicodedata

LONGEST_FILE_NAME = 255
LONGEST_TITLE = 200
LONGEST_SUFFIX = 20

UNNAMED = "unnamed"
UNTITLED = "Untitled"

# A path of any system in front, and what is not seen: controls, marks that turn the direction of writing,
# halves of surrogate pairs, characters that do not exist.
_FOLDERS = re.compile(r".*[/\\]", re.DOTALL)
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

# What cameras, phones and messengers call pictures, and dates in any notation: the public must not learn from a name
# when a picture was taken, or by what. A name that is taken for such by mistake costs a title that anybody can set.
_NUMBERED = re.compile(
    r"(?<![a-z])(?:img|image|vid|mvi|pxl|mvimg|pano|burst|dsc[nf]?|dcim|mg|imgp|gopr|dji|sam|cam|cimg|kimg|hpim|pict?|photo"
    r"|screen ?shot|screen recording|scan|signal|snapchat|whatsapp image|fb_img|received|telegram|inshot|[plr](?=\d{7})"
    r"|(?:canon|nikon|sony|fuji(?:film)?|olympus|leica|lumix|pentax|ricoh|gopro|iphone|ipad|samsung|huawei|xiaomi)\b.*?)"
    r"[ _.-]?[a-z]{0,2}[ _.-]?\d{3,}|^\d{3}[_-]\d{4}(?!\d)",
    re.IGNORECASE,
)
_YEAR, _MONTH, _DAY, _GAP = r"(?:19|20)\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])", r"[-_. ]"
_NAMED = (
    r"(?<![a-z])(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)(?![a-z])"
)
_DATE = re.compile(
    rf"(?<!\d)(?:{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    rf"|{_YEAR}{_GAP}{_MONTH}{_GAP}{_DAY}(?!\d)|{_DAY}{_GAP}{_MONTH}{_GAP}{_YEAR}(?!\d)"
    rf"|(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2]){_YEAR}(?!\d)"
    r"|\d\d[-_.]\d\d[-_.]\d\d(?!\d)|\d{6}[-_ ]\d{4,6}(?!\d)"
    r"|1\d{9}(?:\d{3})?(?!\d))"  # seconds or milliseconds of Unix
    rf"|\d{{1,4}}{_GAP}*{_NAMED}[-_. ,]*\d{{1,4}}|{_NAMED}[-_. ,]*(?:\d{{1,2}}[-_. ,]+)?{_YEAR}",
    re.IGNORECASE,
)


def safe_file_name(name: str) -> str:
    """Return what is left of a file name without folders and invisible characters, at most 255 characters long."""
    name = unicodedata.normalize("NFC", _FOLDERS.sub("", name))
    name = "".join(character for character in name if unicodedata.category(character) not in _INVISIBLE)
    name = " ".join(name.split()).rstrip(". ")
    if len(name) > LONGEST_FILE_NAME:
        stem, dot, suffix = name.rpartition(".")
        end = f"{dot}{suffix}" if stem and len(suffix) <= LONGEST_SUFFIX else ""
        name = name[: LONGEST_FILE_NAME - len(end)] + end
    return name or UNNAMED


def title_of(file_name: str) -> str:
    """Return what an image from such a file is called, in public as well.

    That is the name without its ending, or "Untitled" where a camera or a clock has chosen it.
    """
    stem, dot, suffix = file_name.rpartition(".")
    title = (stem if dot and len(suffix) <= LONGEST_SUFFIX else file_name).strip()[:LONGEST_TITLE].strip(" .")
    is_by_machine = _NUMBERED.search(title) or _DATE.search(title)
    return UNTITLED if is_by_machine or not title else title
