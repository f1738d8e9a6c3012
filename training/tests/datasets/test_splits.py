import hashlib

from hypothesis import given
from hypothesis import strategies as st

from training.datasets.splits import split


def contents(count, start=0):
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(start, start + count)]


def test_about_the_share_is_kept_apart():
    roles = list(split(contents(5000), share=0.1).values())

    assert 400 < roles.count("validation") < 600


def test_a_share_of_nothing_keeps_nothing_apart():
    assert set(split(contents(500), share=0).values()) == {"train"}


@given(small=st.integers(5, 40), more=st.integers(0, 200), share=st.floats(0, 0.5))
def test_no_picture_changes_sides_when_others_come(small, more, share):
    before, after = split(contents(small), share=share), split(contents(small + more), share=share)

    # But for the one picture that a set learns from which would be left without any.
    moved = [content for content in before if before[content] != after[content]]
    assert len(moved) <= (list(before.values()).count("train") == 1)


def test_no_picture_changes_sides_when_others_go():
    whole = split(contents(300), share=0.2)
    part = split(contents(100, start=150), share=0.2)

    assert part.items() <= whole.items()


@given(first=st.integers(0, 1000), count=st.integers(1, 4))
def test_there_is_always_something_to_learn_from(first, count):
    assert "train" in split(contents(count, first), share=0.5).values()


def test_nothing_is_split_into_nothing():
    assert split([], share=0.5) == {}
