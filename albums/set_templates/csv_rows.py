"""The rows of a set as a CSV file (RFC 4180, UTF-8), in both directions without a loss.

A cell that a spreadsheet would take for a formula gets an apostrophe in front, and loses it when it is read again.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

from albums.set_templates.validation import MAX_COLUMNS, MAX_FAULTS, MAX_ROWS, unfit_column
from imagehub.errors import Fault, Invalid, InvalidFields

MAX_BYTES = 1024 * 1024

Row = dict[str, str]

_FORMULA = re.compile("'*[=+\\-@\uff1d\uff0b\uff0d\uff20\t\r]")
"""What a spreadsheet may compute, be it written in full width, or what we have put an apostrophe before."""


def read_rows(data: bytes) -> list[Row]:
    """Return the rows of a CSV file. Its first line names the columns; white space around cells is taken off.

    Lines without any cell are left out. Whether the rows suit a set is asked elsewhere.

    Raises:
        Invalid: it is not such a file. Its ``faults`` name each row that does not fit the header.
    """
    if len(data) > MAX_BYTES:
        raise _invalid(f"The file has more than {MAX_BYTES} bytes.", "too_large")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(f"The file is not UTF-8: byte {error.start} does not fit.") from error
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        columns = _columns(next(reader, []))
        return _rows(columns, reader)
    except csv.Error as error:
        raise _invalid(f"The file is no CSV at line {reader.line_num}: {error}.") from error


def write_rows(rows: Iterable[Mapping[str, str]]) -> str:
    """Return rows as a CSV file. A row that lacks a column has an empty cell there."""
    rows = list(rows)
    columns = columns_of(rows)
    if not columns:
        return ""
    target = StringIO(newline="")
    writer = csv.writer(target, lineterminator="\r\n")
    writer.writerow([_disarmed(column) for column in columns])
    # A single empty cell would be a blank line, which is left out when it is read: it is written in quotes.
    careful = csv.writer(target, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [_disarmed(row.get(column, "")) for column in columns]
        (writer if any(cells) else careful).writerow(cells)
    return target.getvalue()


def columns_of(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the columns of rows, each once, in the order in which they first stand there."""
    return list(dict.fromkeys(column for row in rows for column in row))


def _columns(header: Sequence[str]) -> list[str]:
    columns = [_armed(cell.strip()) for cell in header]
    if not any(columns):
        raise _invalid("The file begins with a line that names its columns.", "no_header")
    if len(columns) == 1 and set(columns[0]) & set(";\t"):  # as spreadsheets write them in half of Europe
        raise _invalid("The cells of the file are separated by commas.", "wrong_separator")
    if len(columns) > MAX_COLUMNS:
        raise _invalid(f"There are at most {MAX_COLUMNS} columns.", "max_length")
    for number, column in enumerate(columns, start=1):
        if reason := unfit_column(column):
            raise _invalid(f"Column {number}: {reason}", "invalid_column")
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise _invalid(f"The column “{twice}” stands there twice.", "duplicate_column")
    return columns


def _rows(columns: list[str], lines: Iterable[list[str]]) -> list[Row]:
    rows: list[Row] = []
    faults: list[Fault] = []
    filled = (line for line in lines if line)
    for index, cells in enumerate(filled):
        if index == MAX_ROWS:
            raise _invalid(f"There are at most {MAX_ROWS} rows.", "max_length")
        if len(cells) != len(columns):
            detail = f"The header names {len(columns)} columns; cells in this row: {len(cells)}."
            faults.append(Fault(f"/set_rows/{index}", detail, "ragged_row"))
            if len(faults) == MAX_FAULTS:
                break
        rows.append({column: _armed(cell.strip()) for column, cell in zip(columns, cells, strict=False)})
    if faults:
        raise InvalidFields(faults)
    return rows


def _disarmed(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _armed(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _invalid(detail: str, code: str = "invalid_csv") -> Invalid:
    return Invalid(detail, pointer="/set_rows", code=code)
