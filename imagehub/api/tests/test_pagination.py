import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.core import signing
from django.db import connection
from django.db.models import F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagehub.accounts.models import ApiToken
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.api.pagination import _SIGNER, _behind
from imagehub.api.tests.urls import TokenViewSet

pytestmark = [pytest.mark.django_db, pytest.mark.urls("imagehub.api.tests.urls")]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIST = "/api/tokens"


def make_tokens(count, *, created_at=NOON, names=("same",), user=None):
    """Insert rows at once, as a scrape does."""
    user = user or UserFactory()
    batch = ApiTokenFactory.build_batch(count, user=user, created_at=created_at)
    for number, token in enumerate(batch):
        token.name = names[number % len(names)]
    return ApiToken.objects.bulk_create(batch)


def get(client, url, status=200):
    response = client.get(url)
    assert response.status_code == status, response.text
    return response.json()


def ids(page):
    return [row["id"] for row in page["results"]]


def walk(client, url, *, link="next", between=lambda: None):
    """Follow one link to its end, and return the ids in the order in which they came."""
    seen, pages = [], 0
    while url:
        page = get(client, url)
        seen.append(ids(page))
        url = page[link]
        between()
        pages += 1
        assert pages < 1000, "the list has no end"
    return seen


def flat(pages):
    return [row for page in pages for row in page]


def last_page(client, url):
    page = get(client, url)
    while page["next"]:
        url, page = page["next"], get(client, page["next"])
    return url


class TestWalks:
    def test_meet_each_row_once_when_all_have_the_same_time(self, client):
        expected = sorted((str(token.pk) for token in make_tokens(300)), reverse=True)

        assert flat(walk(client, f"{LIST}?limit=7")) == expected

    def test_meet_each_row_once_backwards(self, client):
        expected = sorted((str(token.pk) for token in make_tokens(300)), reverse=True)

        pages = walk(client, last_page(client, f"{LIST}?limit=7"), link="previous")

        assert flat(reversed(pages)) == expected

    @pytest.mark.parametrize("direction", ["next", "previous"])
    @pytest.mark.parametrize("seed", range(3))
    def test_lose_and_double_no_stable_row_while_others_come_and_go(self, client, direction, seed):
        chance = random.Random(seed)
        user = UserFactory()
        tokens = make_tokens(300, user=user)
        stable = {str(token.pk) for token in chance.sample(tokens, 150)}
        start = f"{LIST}?limit=7" if direction == "next" else last_page(client, f"{LIST}?limit=7")

        def disturb():
            doomed = [pk for pk in ApiToken.objects.values_list("pk", flat=True) if str(pk) not in stable]
            ApiToken.objects.filter(pk__in=chance.sample(doomed, min(5, len(doomed)))).delete()
            for minutes in (-1, 0, 1):
                make_tokens(2, user=user, created_at=NOON + timedelta(minutes=minutes))

        seen = flat(walk(client, start, link=direction, between=disturb))

        assert len(seen) == len(set(seen))
        assert stable <= set(seen)

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        minutes=st.lists(st.integers(0, 3), min_size=1, max_size=25),
        limit=st.integers(1, 8),
        ordering=st.sampled_from(
            [("name", "-created_at", "id"), ("-created_at", "-id"), ("-name", "pk"), ("id",)]
        ),
    )
    def test_agree_with_the_database_in_every_order(self, client, monkeypatch, minutes, limit, ordering):
        monkeypatch.setattr(TokenViewSet, "keyset_ordering", ordering)
        ApiToken.objects.all().delete()
        user = UserFactory()
        for number, minute in enumerate(minutes):
            ApiTokenFactory(user=user, created_at=NOON + timedelta(minutes=minute), name=f"{number % 3}")
        expected = [str(pk) for pk in ApiToken.objects.order_by(*ordering).values_list("pk", flat=True)]

        forwards = walk(client, f"{LIST}?limit={limit}")
        backwards = walk(client, last_page(client, f"{LIST}?limit={limit}"), link="previous")

        assert flat(forwards) == expected
        assert flat(reversed(backwards)) == expected

    def test_turn_round_at_any_page(self, client):
        make_tokens(10)
        first = get(client, f"{LIST}?limit=4")
        second = get(client, first["next"])
        third = get(client, second["next"])

        assert ids(get(client, third["previous"])) == ids(second)
        assert ids(get(client, second["previous"])) == ids(first)
        assert ids(get(client, get(client, third["previous"])["next"])) == ids(third)

    def test_keep_a_place_whose_row_has_gone(self, client):
        make_tokens(9)
        first = get(client, f"{LIST}?limit=3")
        expected = ids(get(client, first["next"]))

        ApiToken.objects.filter(pk=first["results"][-1]["id"]).delete()

        assert ids(get(client, first["next"])) == expected

    def test_use_fractions_of_a_second(self, client):
        user = UserFactory()
        for microsecond in range(6):
            ApiTokenFactory(user=user, created_at=NOON + timedelta(microseconds=microsecond))

        assert len(set(flat(walk(client, f"{LIST}?limit=1")))) == 6

    def test_can_order_by_an_annotation(self, client, monkeypatch):
        monkeypatch.setattr(TokenViewSet, "queryset", ApiToken.objects.annotate(owner=F("user__username")))
        monkeypatch.setattr(TokenViewSet, "keyset_ordering", ("-owner", "id"))
        for _ in range(5):
            make_tokens(3)
        expected = [
            str(pk) for pk in ApiToken.objects.order_by("-user__username", "id").values_list("pk", flat=True)
        ]

        assert flat(walk(client, f"{LIST}?limit=2")) == expected


class TestEnds:
    def test_of_a_list_that_fits_on_one_page(self, client):
        make_tokens(3)

        page = get(client, f"{LIST}?limit=3")

        assert (len(page["results"]), page["next"], page["previous"]) == (3, None, None)

    def test_of_an_empty_list(self, client):
        assert get(client, LIST) == {"results": [], "next": None, "previous": None}

    def test_of_a_longer_list(self, client):
        make_tokens(6)

        first = get(client, f"{LIST}?limit=3")
        last = get(client, first["next"])

        assert first["previous"] is None
        assert last["next"] is None
        assert get(client, last["previous"])["previous"] is None

    def test_lead_back_when_the_rows_behind_have_gone(self, client):
        make_tokens(6)
        first = get(client, f"{LIST}?limit=3")
        ApiToken.objects.exclude(pk__in=ids(first)).delete()

        empty = get(client, first["next"])

        assert (empty["results"], empty["next"]) == ([], None)
        assert ids(get(client, empty["previous"])) == ids(first)

    def test_lead_on_when_the_rows_before_have_gone(self, client):
        make_tokens(6)
        first = get(client, f"{LIST}?limit=3")
        second = get(client, first["next"])
        ApiToken.objects.filter(pk__in=ids(first)).delete()

        empty = get(client, second["previous"])

        assert (empty["results"], empty["previous"]) == ([], None)
        assert ids(get(client, empty["next"])) == ids(second)


class TestLinks:
    def test_are_full_addresses_that_keep_limit_and_filters(self, client):
        user = UserFactory()
        make_tokens(5, user=user)
        make_tokens(5)

        link = get(client, f"{LIST}?limit=2&user={user.pk}&ordering=name")["next"]

        assert link.startswith(f"http://testserver{LIST}?")
        assert "limit=2" in link
        assert "ordering=name" in link
        assert len(flat(walk(client, f"{LIST}?limit=2&user={user.pk}&ordering=name"))) == 5

    def test_do_not_contain_the_key_in_the_clear(self, client):
        make_tokens(3)

        assert "2026-01-01" not in get(client, f"{LIST}?limit=2")["next"]


class TestLimit:
    def test_is_50_by_default_and_200_at_most(self, client):
        make_tokens(201)

        assert len(get(client, LIST)["results"]) == 50
        assert len(get(client, f"{LIST}?limit=200")["results"]) == 200

    @pytest.mark.parametrize(
        "limit", ["0", "-1", "201", "1e9", "NaN", "", "ten", "1.0", "٣", "9" * 5000, "%00"]
    )
    def test_is_refused_when_it_makes_no_sense(self, client, limit):
        problem = get(client, f"{LIST}?limit={limit}", 400)

        assert problem["errors"][0]["pointer"] == "/limit"


class TestCount:
    def test_is_added_when_asked_for(self, client):
        make_tokens(5)

        assert get(client, f"{LIST}?limit=2&count=exact")["count"] == 5
        assert "count" not in get(client, f"{LIST}?limit=2")

    def test_counts_what_the_filters_leave_on_every_page(self, client):
        user = UserFactory()
        make_tokens(5, user=user)
        make_tokens(3)

        page = get(client, f"{LIST}?limit=2&count=exact&user={user.pk}")

        assert (page["count"], get(client, page["next"])["count"]) == (5, 5)

    def test_of_nothing_is_zero(self, client):
        assert get(client, f"{LIST}?count=exact")["count"] == 0

    @pytest.mark.parametrize("count", ["1", "", "true"])
    def test_is_refused_when_it_is_not_exact(self, client, count):
        assert get(client, f"{LIST}?count={count}", 400)["errors"][0]["pointer"] == "/count"


class TestOrdering:
    def test_by_a_column_with_nulls_is_a_bug_that_shows_itself(self, client, monkeypatch):
        monkeypatch.setattr(TokenViewSet, "keyset_ordering", ("expires_at", "id"))
        make_tokens(3)

        with pytest.raises(ValueError, match="nulls"):
            client.get(f"{LIST}?limit=2")

    def test_is_chosen_among_those_of_the_view(self, client):
        make_tokens(4, names=("b", "a"))

        names = [row["name"] for row in get(client, f"{LIST}?ordering=name")["results"]]

        assert names == ["a", "a", "b", "b"]

    def test_is_made_unique_with_the_primary_key(self, client):
        expected = sorted(str(token.pk) for token in make_tokens(20))

        assert flat(walk(client, f"{LIST}?limit=3&ordering=alone")) == expected

    @pytest.mark.parametrize("name", ["user__password", "-created_at", ""])
    def test_is_refused_when_the_view_does_not_list_it(self, client, name):
        assert get(client, f"{LIST}?ordering={name}", 400)["errors"][0]["pointer"] == "/ordering"

    def test_is_an_unknown_parameter_where_a_view_has_no_choice(self, client):
        assert get(client, "/api/plain?ordering=name", 400)["errors"][0]["code"] == "unknown_parameter"


class TestCursor:
    @pytest.fixture
    def cursor(self, client):
        make_tokens(9)
        return get(client, f"{LIST}?limit=3")["next"].split("cursor=")[1].split("&")[0]

    def refused(self, client, url, code="invalid"):
        error = get(client, url, 400)["errors"][0]
        assert (error["pointer"], error["code"]) == ("/cursor", code)

    @pytest.mark.parametrize(
        "text", ["", "x", "~", "a~b", "%00", "%F0%9F", "e30", "=" * 1000, "..", "9" * 5000]
    )
    def test_is_refused_when_it_was_made_up(self, client, text):
        self.refused(client, f"{LIST}?cursor={text}")

    def test_is_refused_when_any_part_of_it_was_changed(self, client, cursor):
        for place in range(0, len(cursor), 5):
            changed = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
            self.refused(client, f"{LIST}?cursor={changed}")

    def test_is_refused_when_it_was_signed_for_something_else(self, client):
        forged = signing.Signer(sep="~").sign_object([0, [NOON.isoformat(), "x"], "list"])

        self.refused(client, f"{LIST}?cursor={forged}")

    @pytest.mark.parametrize("key", [["yesterday", "x"], [NOON.isoformat()], [1, 2], "ab", 7, [None, None]])
    def test_is_refused_when_its_key_does_not_fit_the_columns(self, client, cursor, key):
        list_of = _SIGNER.unsign_object(cursor)[2]
        self.refused(client, f"{LIST}?cursor={_SIGNER.sign_object([0, key, list_of])}")

    @pytest.mark.parametrize("query", ["user=1", "ordering=name", "created_after=2020-01-01T00:00Z"])
    def test_is_refused_for_other_filters(self, client, cursor, query):
        self.refused(client, f"{LIST}?{query}&cursor={cursor}", code="cursor_mismatch")

    def test_is_refused_for_another_list(self, client, cursor):
        self.refused(client, f"/api/plain?cursor={cursor}", code="cursor_mismatch")

    def test_is_good_for_another_limit(self, client, cursor):
        assert len(get(client, f"{LIST}?limit=5&cursor={cursor}")["results"]) == 5


class TestQueries:
    def test_are_one_for_any_page(self, client, django_assert_num_queries):
        make_tokens(9)
        with django_assert_num_queries(1):
            first = get(client, f"{LIST}?limit=3")
        with django_assert_num_queries(1):
            get(client, first["next"])

    @pytest.mark.parametrize("descending", [True, False])
    def test_enter_the_index_and_need_no_sort(self, descending):
        """Asked of a table that exists only here: this package has none with such an index."""
        order = "DESC" if descending else "ASC"
        walk = [("created_at", descending), ("id", descending)]
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE INDEX newest ON accounts_apitoken (created_at {order}, id {order})")
            for minute in range(40):
                make_tokens(100, created_at=NOON + timedelta(minutes=minute))
            cursor.execute("ANALYZE accounts_apitoken")
        fields = [ApiToken._meta.get_field(name) for name, _ in walk]
        rows = ApiToken.objects.filter(
            _behind(walk, (NOON + timedelta(minutes=20), uuid.UUID(int=0)), fields)
        )

        plan = rows.order_by(*(f"-{name}" if descending else name for name, _ in walk))[:51].explain()

        assert "newest" in plan
        assert "created_at" in plan  # the index is entered at a time, not read from its start
        assert "TEMP B-TREE" not in plan
        assert "Sort" not in plan
