import csv
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albums.set_templates.csv_rows import MAX_BYTES, columns_of, read_rows, write_rows
from albums.tests.sets.decks import pointers
from imagehub.errors import Invalid


def refusal(data):
    with pytest.raises(Invalid) as error:
        read_rows(data if isinstance(data, bytes) else data.encode())
    return pointers(error.value)


class TestReading:
    def test_the_first_line_names_the_columns(self):
        assert read_rows(b"value,suit\nAce,Hearts\nKing,Spades\n") == [
            {"value": "Ace", "suit": "Hearts"},
            {"value": "King", "suit": "Spades"},
        ]

    def test_white_space_is_trimmed_and_the_order_of_columns_kept(self):
        [row] = read_rows(b" zeal , aim\t\r\n  much ,\tnone \r\n")

        assert list(row.items()) == [("zeal", "much"), ("aim", "none")]

    def test_a_byte_order_mark_is_no_part_of_a_name(self):
        assert read_rows("\ufeffsign\nLöwe\n".encode()) == [{"sign": "Löwe"}]

    def test_quoted_cells_may_hold_commas_quotes_and_lines(self):
        assert read_rows(b'a,b\n"1, 2","say ""hi""\nagain"\n') == [{"a": "1, 2", "b": 'say "hi"\nagain'}]

    def test_blank_lines_are_left_out_but_not_empty_cells(self):
        assert read_rows(b'a\n\nx\n\n""\n') == [{"a": "x"}, {"a": ""}]

    def test_a_file_of_nothing_but_a_header_has_no_rows(self):
        assert read_rows(b"a,b\n") == []


class TestRefusals:
    @pytest.mark.parametrize("data", [b"", b"\n", b" , \n1,2\n", b"\xef\xbb\xbf"])
    def test_no_header(self, data):
        assert refusal(data) == [("/set_rows", "no_header")]

    @pytest.mark.parametrize("header", ["a,,b", "a, ", "a,b{", "a,x\x00"])
    def test_a_name_that_no_column_may_have(self, header):
        assert refusal(f"{header}\n") == [("/set_rows", "invalid_column")]

    def test_a_name_that_stands_there_twice(self):
        assert refusal("suit,value, suit\n1,2,3\n") == [("/set_rows", "duplicate_column")]

    @pytest.mark.parametrize("data", ["value;suit\nAce;Hearts\n", "value\tsuit\nAce\tHearts\n"])
    def test_other_separators_are_told_from_names(self, data):
        assert refusal(data) == [("/set_rows", "wrong_separator")]

    def test_rows_that_do_not_fit_the_header_are_pointed_at(self):
        assert refusal("a,b\n1,2\n1\n1,2,3\n") == [
            ("/set_rows/1", "ragged_row"),
            ("/set_rows/2", "ragged_row"),
        ]

    def test_what_is_not_utf_8(self):
        assert refusal("sign\nLöwe\n".encode("latin-1")) == [("/set_rows", "invalid_csv")]

    @pytest.mark.parametrize("data", ['a\n"unfinished', 'a\n"x"y\n', "a\n" + "x" * 200_000])
    def test_what_is_no_csv(self, data):
        assert refusal(data) == [("/set_rows", "invalid_csv")]

    def test_too_much_of_it(self):
        assert refusal(b"a\n" + b"x\n" * (MAX_BYTES // 2)) == [("/set_rows", "too_large")]
        assert refusal("a\n" + "x\n" * 10_001) == [("/set_rows", "max_length")]
        assert refusal(",".join(f"c{number}" for number in range(51))) == [("/set_rows", "max_length")]


class TestWriting:
    def test_has_the_columns_of_all_rows_in_their_order(self):
        rows = [{"zeal": "1", "a": "2"}, {"a": "3", "new": "4"}]

        assert columns_of(rows) == ["zeal", "a", "new"]
        assert write_rows(rows) == "zeal,a,new\r\n1,2,\r\n,3,4\r\n"

    def test_of_no_rows_is_nothing(self):
        assert write_rows([]) == ""

    @pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", '=HYPERLINK("http://x")'])
    def test_a_cell_that_a_spreadsheet_would_compute_is_disarmed(self, cell):
        [_, [written]] = csv.reader(StringIO(write_rows([{"a": cell}])))

        assert written == f"'{cell}"
        assert read_rows(write_rows([{"a": cell}]).encode()) == [{"a": cell}]

    def test_so_is_the_name_of_a_column(self):
        assert write_rows([{"=a": "x"}]) == "'=a\r\nx\r\n"
        assert read_rows(b"'=a\nx\n") == [{"=a": "x"}]

    def test_an_apostrophe_of_its_own_stays(self):
        rows = [{"a": "'tis"}, {"a": "'=1"}, {"a": "''=1"}, {"a": "'"}]

        assert read_rows(write_rows(rows).encode()) == rows

    texts = st.text("a'=+-@,;\"\n\r\t é\u2028", max_size=8).map(str.strip)

    @given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
    def test_what_is_written_is_read_again(self, cells):
        rows = [{"first": first, "=second": second} for first, second in cells]

        assert read_rows(write_rows(rows).encode()) == rows
