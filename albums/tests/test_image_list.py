import random
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from albums.api.image_serializers import ImageSerializer, StaffImageSerializer
from albums.api.image_views import ImageViewSet
from albums.models import Image, ImageLora, Label
from albums.services import trash_images
from albums.tests.clients import client_of, ids
from albums.tests.factories import AlbumFactory, ImageFactory
from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def keys(*images):
    return [str(image.pk) for image in images]


class TestFilters:
    @pytest.mark.parametrize(
        ("query", "fields", "others"),
        [
            ("starred=true", {"starred": True}, {}),
            ("starred=false", {}, {"starred": True}),
            ("rating=4", {"rating": 4}, {"rating": 5}),
            ("rating=0", {}, {"rating": 1}),
            ("min_rating=4", {"rating": 5}, {"rating": 3}),
            ("width=640", {"width": 640}, {}),
            ("height=640", {"height": 640}, {}),
            ("min_width=8", {"width": 8}, {"width": 7}),
            ("max_width=8", {}, {"width": 9}),
            ("min_height=9", {"height": 9}, {}),
            ("max_height=8", {}, {"height": 9}),
            ("nsfw=safe", {"nsfw": "safe"}, {"nsfw": "unknown"}),
            ("nsfw=unknown", {}, {"nsfw": "safe"}),
            ("nsfw=flagged", {"nsfw": "flagged"}, {"nsfw": "unknown"}),
            ("starred=true&min_rating=2&width=9", {"starred": True, "rating": 2, "width": 9}, {"width": 9}),
        ],
    )
    def test_keep_what_they_name(self, visitor, query, fields, others):
        wanted = ImageFactory(public=True, **fields)
        ImageFactory(public=True, **others)

        assert ids(visitor.get(f"/api/images?{query}")) == keys(wanted)

    @pytest.mark.parametrize(
        "query",
        [
            "starred=maybe",
            "rating=6",
            "min_rating=-1",
            "width=0",
            "nsfw=perhaps",
            "deleted=1",
            "ordering=size",
        ],
    )
    def test_that_make_no_sense_are_refused(self, visitor, query):
        response = visitor.get(f"/api/images?{query}")

        assert response.status_code == 400
        assert response.json()["errors"][0]["pointer"] == f"/{query.partition('=')[0]}"

    def test_by_adapter(self, visitor):
        wanted, other = ImageFactory.create_batch(2, public=True)
        ImageLora.objects.create(image=wanted, lora_id="7")
        ImageLora.objects.create(image=other, lora_id="77")

        assert ids(visitor.get("/api/images?lora=7")) == keys(wanted)
        assert ids(visitor.get("/api/images?lora=9")) == []

    @pytest.mark.parametrize("few", [2000, 0])
    def test_by_tags_however_many_images_have_them(self, visitor, monkeypatch, few):
        monkeypatch.setattr("albums.api.filters.FEW", few)
        both, one, none = ImageFactory.create_batch(3, public=True)
        for image, tag in ((both, "red"), (both, "still life"), (one, "red")):
            Label.objects.create(image=image, kind="tag", text=tag.title(), identity=tag)
        Label.objects.create(image=none, kind="caption", text="red", identity="red")

        assert set(ids(visitor.get("/api/images?tag=RED%20"))) == set(keys(both, one))
        assert ids(visitor.get("/api/images?tag=red&tag=Still+Life")) == keys(both)
        assert ids(visitor.get("/api/images?tag=red&tag=blue")) == []
        assert len(ids(visitor.get("/api/images?tag="))) == 3

    def test_begins_with_a_tag_that_few_images_have(self, visitor, monkeypatch):
        monkeypatch.setattr("albums.api.filters.FEW", 1)
        images = ImageFactory.create_batch(3, public=True)
        for image, tag in (*((image, "common") for image in images), (images[1], "rare")):
            Label.objects.create(image=image, kind="tag", text=tag, identity=tag)

        assert ids(visitor.get("/api/images?tag=common&tag=rare")) == keys(images[1])

    def test_by_so_many_tags_and_no_more(self, visitor):
        tags = [f"tag=t{number}" for number in range(11)]

        assert visitor.get(f"/api/images?{'&'.join(tags)}").status_code == 400
        assert visitor.get(f"/api/images?{'&'.join(tags[1:])}").status_code == 200

    def test_no_tag_holds_a_nul(self, visitor):
        assert visitor.get("/api/images?tag=a%00b&tag=c").status_code == 400

    def test_by_owner_is_for_staff(self, visitor, staff):
        image = ImageFactory(public=True, owner=UserFactory(username="olivia"))
        ImageFactory(public=True)

        assert ids(staff.get("/api/images?owner=olivia")) == keys(image)
        # Nobody else learns who is there: a name that is one answers like any other.
        for client in (visitor, client_of(UserFactory())):
            assert ids(client.get("/api/images?owner=olivia")) == []
            assert ids(client.get("/api/images?owner=nobody")) == []


class TestFlagged:
    @pytest.fixture
    def images(self):
        return {nsfw: ImageFactory(public=True, nsfw=nsfw) for nsfw in ("unknown", "safe", "flagged")}

    def test_images_are_hidden_unless_asked_for(self, visitor, images):
        assert set(ids(visitor.get("/api/images"))) == set(keys(images["unknown"], images["safe"]))
        assert ids(visitor.get("/api/images?nsfw=flagged")) == keys(images["flagged"])
        assert len(ids(visitor.get("/api/images?nsfw=any"))) == 3

    def test_images_are_hidden_in_an_album_too(self, visitor, images):
        album = AlbumFactory(public=True, images=images.values())

        assert len(ids(visitor.get(f"/api/images?album={album.pk}"))) == album.public_images == 2

    def test_images_are_shown_to_staff(self, staff, images):
        assert len(ids(staff.get("/api/images"))) == 3

    def test_images_are_there_by_their_address(self, visitor, images):
        assert visitor.get(f"/api/images/{images['flagged'].pk}").json()["nsfw"] == "flagged"

    def test_private_images_stay_private_whoever_asks(self, visitor):
        image = ImageFactory(nsfw="flagged")

        assert ids(visitor.get("/api/images?nsfw=flagged")) == ids(visitor.get("/api/images?nsfw=any")) == []
        assert visitor.get(f"/api/images/{image.pk}").status_code == 404


class TestTrash:
    def test_is_listed_for_staff_last_deleted_first(self, staff, visitor):
        first, second, kept = ImageFactory.create_batch(3, public=True)
        trash_images([second.pk])
        trash_images([first.pk])

        assert ids(staff.get("/api/images?deleted=true")) == keys(first, second)
        for path in ("/api/images", "/api/images?deleted=false"):
            assert ids(staff.get(path)) == ids(visitor.get(path)) == keys(kept)
        assert ids(visitor.get("/api/images?deleted=true")) == []


class TestFields:
    @pytest.mark.parametrize("serializer", [ImageSerializer, StaffImageSerializer])
    def test_are_those_that_are_declared(self, serializer):
        image = ImageFactory()

        assert list(serializer(image).data) == serializer.Meta.fields

    def test_are_written_as_the_declared_ones_would_be(self):
        """What is written by hand, against what DRF makes of the declaration."""
        image = ImageFactory(
            owner=UserFactory(),
            loras=[{"id": "7", "name": "ink", "weight": 0.5, "path": "/srv/ink.safetensors"}],
            created_at=NOON + timedelta(microseconds=5),
            deleted_at=NOON,
            scheduler="euler",
            placeholder="LEHV6nWB2yk8",
            seed=1,
            guidance_scale=1.5,
        )
        declared = StaffImageSerializer(image)
        slowly = {
            name: field.to_representation(value)
            if (value := field.get_attribute(image)) is not None
            else None
            for name, field in declared.fields.items()
        }

        assert declared.data == slowly

    def test_of_staff_are_for_staff(self, staff, visitor):
        image = ImageFactory(public=True, original_name="IMG_0042.png", placeholder="LEHV6nWB2yk8")

        body = staff.get(f"/api/images/{image.pk}").json()
        assert (body["original_name"], body["deleted_at"], body["owner"]) == ("IMG_0042.png", None, None)
        public = visitor.get(f"/api/images/{image.pk}").json()
        assert set(body) - set(public) == {"storage_path", "owner", "original_name", "deleted_at"}
        assert public["placeholder"] == "LEHV6nWB2yk8"


class TestOrdering:
    @pytest.mark.parametrize("ordering", ImageViewSet.orderings)
    def test_sorts_by_what_it_names(self, visitor, ordering):
        numbers = [3, 1, 2]
        images = [
            ImageFactory(
                public=True,
                name=f"name {number}",
                rating=number,
                size_bytes=number,
                created_at=NOON + timedelta(hours=number),
            )
            for number in numbers
        ]
        wanted = [image for _, image in sorted(zip(numbers, images, strict=True), key=lambda pair: pair[0])]

        found = ids(visitor.get(f"/api/images?ordering={ordering}"))

        assert found == keys(*(reversed(wanted) if ordering.startswith("-") else wanted))

    @pytest.mark.parametrize("ordering", ["-created_at", "rating"])
    @settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(seed=st.integers(0, 10**6), limit=st.integers(1, 4))
    def test_meets_every_row_that_stays_exactly_once(self, db, ordering, seed, limit):
        """All rows share one time, rating and name, and others come and go while the list is read."""
        chance = random.Random(seed)
        Image.objects.all().delete()
        content = ImageFactory.build(content=b"x")

        def insert(count):
            return Image.objects.bulk_create(
                Image(
                    name="same",
                    visibility="public",
                    created_at=NOON,
                    storage_name=content.storage_name,
                    sha256=content.sha256,
                    size_bytes=1,
                    width=8,
                    height=8,
                    format="png",
                    source_kind="upload",
                )
                for _ in range(count)
            )

        stay, come_and_go = insert(9), insert(4)
        for link in ("next", "previous"):
            seen, url = [], f"/api/images?ordering={ordering}&limit={limit}"
            if link == "previous":  # from the end back to the beginning
                while (answer := APIClient().get(url).json())["next"]:
                    url = answer["next"]
                seen = [row["id"] for row in answer["results"]]
                url = answer["previous"]
            while url:
                answer = APIClient().get(url).json()
                seen += [row["id"] for row in answer["results"]]
                url = answer[link]
                if come_and_go and chance.random() < 0.5:
                    Image.objects.filter(pk=come_and_go.pop().pk).delete()
                elif chance.random() < 0.3:
                    insert(1)
            staying = {str(image.pk) for image in stay}
            met = [pk for pk in seen if pk in staying]
            assert sorted(met) == sorted(staying)


class TestQueries:
    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ("", 1),
            ("q=picture", 1),
            ("ordering=-rating&min_rating=0", 1),
            ("deleted=true", 1),
            ("count=exact", 2),
            ("tag=red&lora=7", 5),
            ("&".join(["tag=red", *(f"tag=Red{' ' * blanks}" for blanks in range(900))]), 3),
            ("&".join(["lora=7", "q=picture", "ordering=-rating", *(f"tag=t{n}" for n in range(10))]), 6),
        ],
    )
    def test_are_few_and_as_many_for_any_page(self, staff, django_assert_max_num_queries, query, count):
        for image in ImageFactory.create_batch(5, owner=UserFactory(), created_at=timezone.now()):
            Label.objects.create(image=image, kind="tag", text="red", identity="red")
            ImageLora.objects.create(image=image, lora_id="7")

        with django_assert_max_num_queries(count):
            staff.get(f"/api/images?limit=3&{query}")
