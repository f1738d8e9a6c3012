import math
import uuid

import pytest
from django.contrib.auth.models import User
from rest_framework.exceptions import ErrorDetail, ValidationError

from imagehub.accounts.models import ApiToken
from imagehub.accounts.tests.factories import ApiTokenFactory, UserFactory
from imagehub.api import serializers
from imagehub.api.tests.urls import BodySerializer, TokenSerializer


def codes(data, serializer_class=BodySerializer):
    serializer = serializer_class(data=data)
    return (
        {} if serializer.is_valid() else {name: errors[0].code for name, errors in serializer.errors.items()}
    )


def refusal(field, value):
    with pytest.raises(ValidationError) as caught:
        field.run_validation(value)
    return caught.value.detail[0]


class TestUnknownFields:
    def test_are_refused_each_by_name(self):
        assert codes({"text": "ok", "txet": 1, "": 2}) == {"txet": "unknown_field", "": "unknown_field"}

    def test_are_refused_beside_what_else_is_wrong(self):
        assert codes({"count": "7", "txet": 1}) == {"count": "invalid", "txet": "unknown_field"}

    def test_are_refused_in_nested_objects(self):
        serializer = BodySerializer(data={"loras": [{"name": "a"}, {"name": "b", "wieght": 1}]})

        assert not serializer.is_valid()
        assert serializer.errors["loras"][1]["wieght"][0].code == "unknown_field"

    def test_include_those_that_only_the_server_sets(self):
        assert codes({"id": 1, "now": "then"}) == {"id": "read_only_field", "now": "unknown_field"}

    def test_are_refused_in_serializers_of_models(self):
        assert codes({"name": "a", "user": 1}, TokenSerializer) == {"user": "unknown_field"}

    @pytest.mark.parametrize(
        ("body", "found"),
        [([], "a list"), ("text", "a string"), (1, "a number"), (True, "true or false")],
    )
    def test_a_body_that_is_no_object_is_refused_as_a_whole(self, body, found):
        serializer = BodySerializer(data=body)

        assert not serializer.is_valid()
        assert serializer.errors == {"non_field_errors": [f"An object is expected, not {found}."]}

    def test_null_is_refused_as_a_whole(self):
        assert codes(None) == {"non_field_errors": "null"}


class TestSave:
    @pytest.mark.parametrize("serializer_class", [BodySerializer, TokenSerializer])
    def test_is_left_to_services(self, serializer_class):
        serializer = serializer_class(data={"name": "a"} if serializer_class is TokenSerializer else {})
        serializer.is_valid(raise_exception=True)

        with pytest.raises(NotImplementedError):
            serializer.save()


class TestStrictCharField:
    field = serializers.StrictCharField(min_length=2, max_length=5)

    def test_takes_white_space_off_before_it_counts(self):
        assert self.field.run_validation("  abcde\n") == "abcde"

    @pytest.mark.parametrize("value", [1, 1.5, True, ["ab"], {"a": 1}, float("nan")])
    def test_refuses_other_types(self, value):
        assert refusal(self.field, value).code == "invalid"

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            ("a", "min_length"),
            ("abcdef", "max_length"),
            ("", "blank"),
            ("  ", "blank"),
            (None, "null"),
            ("a\x00b", "null_character"),
            ("\x00", "null_character"),
            ("a\ud800b", "surrogate"),
            ("\udc00", "surrogate"),
        ],
    )
    def test_refuses_text_that_does_not_fit(self, value, code):
        assert refusal(self.field, value).code == code

    def test_takes_characters_beyond_the_basic_plane(self):
        assert self.field.run_validation("🂡🂢") == "🂡🂢"


class TestStrictIntegerField:
    field = serializers.StrictIntegerField(min_value=0, max_value=10)

    @pytest.mark.parametrize("value", [0, 10])
    def test_takes_whole_numbers(self, value):
        assert self.field.run_validation(value) == value

    @pytest.mark.parametrize("value", [True, False, "3", "", 3.0, 3.5, math.nan, math.inf, [3], {}])
    def test_refuses_other_types(self, value):
        assert refusal(self.field, value).code == "invalid"

    @pytest.mark.parametrize(("value", "code"), [(-1, "min_value"), (11, "max_value"), (10**29, "max_value")])
    def test_refuses_numbers_out_of_range(self, value, code):
        assert refusal(self.field, value).code == code

    def test_names_what_it_was_given(self):
        assert refusal(self.field, "3") == ErrorDetail("A whole number is expected, not a string.", "invalid")
        assert refusal(self.field, math.nan) == ErrorDetail("A whole number is expected, not nan.", "invalid")


class TestStrictFloatField:
    field = serializers.StrictFloatField(min_value=-2, max_value=2)

    @pytest.mark.parametrize("value", [-2, 0, 1.5, 2])
    def test_takes_numbers(self, value):
        assert self.field.run_validation(value) == value

    @pytest.mark.parametrize("value", [True, "1", "NaN", [1], {}])
    def test_refuses_other_types(self, value):
        assert refusal(self.field, value).code == "invalid"

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
    def test_refuses_what_is_not_finite(self, value):
        assert refusal(self.field, value).code == "not_finite"

    @pytest.mark.parametrize(("value", "code"), [(-2.1, "min_value"), (2.1, "max_value")])
    def test_refuses_numbers_out_of_range(self, value, code):
        assert refusal(self.field, value).code == code


class TestStrictBooleanField:
    field = serializers.StrictBooleanField()

    @pytest.mark.parametrize("value", [True, False])
    def test_takes_true_and_false(self, value):
        assert self.field.run_validation(value) is value

    @pytest.mark.parametrize("value", [0, 1, 0.0, "true", "on", "", [], {}])
    def test_refuses_everything_else(self, value):
        assert refusal(self.field, value).code == "invalid"


class TestStrictChoiceField:
    field = serializers.StrictChoiceField(choices=["red", "True", "1"])

    def test_takes_a_choice(self):
        assert self.field.run_validation("red") == "red"

    @pytest.mark.parametrize("value", [True, 1, ["red"], {}])
    def test_refuses_other_types(self, value):
        assert refusal(self.field, value).code == "invalid"

    def test_lists_the_choices_and_does_not_repeat_what_was_sent(self):
        assert str(refusal(self.field, "x" * 10_000)) == "It is one of: red, True, 1."

    def test_takes_nothing_only_when_that_is_allowed(self):
        assert serializers.StrictChoiceField(choices=["red"], allow_blank=True).run_validation("") == ""
        assert refusal(self.field, "").code == "invalid_choice"


class TestStrictUUIDField:
    def test_takes_a_uuid_as_a_string_only(self):
        field, value = serializers.StrictUUIDField(), uuid.uuid4()

        assert field.run_validation(str(value)) == value
        for other in (5, True, "5", [str(value)], "\x00"):
            assert refusal(field, other).code == "invalid"


class TestStrictJSONField:
    field = serializers.StrictJSONField()

    def test_takes_json(self):
        value = {"a": [1, 2.5, "text", None, True]}

        assert self.field.run_validation(value) == value

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            ({"a": [math.nan]}, "not_finite"),
            ([{"a": "\x00"}], "null_character"),
            ({"\ud800": 1}, "surrogate"),
        ],
    )
    def test_refuses_what_cannot_be_stored(self, value, code):
        assert refusal(self.field, value).code == code


@pytest.mark.django_db
class TestRelatedFields:
    def test_find_a_row(self):
        user = UserFactory(username="ada")
        by_id = serializers.StrictPrimaryKeyRelatedField(queryset=User.objects.all())
        by_name = serializers.StrictSlugRelatedField(queryset=User.objects.all(), slug_field="username")

        assert by_id.run_validation(user.pk) == by_name.run_validation("ada") == user

    @pytest.mark.parametrize("value", [True, 1.0, [1], {}, "\x00", "\ud800", math.nan])
    def test_refuse_what_is_no_key_before_the_database_sees_it(self, value, django_assert_num_queries):
        UserFactory()
        by_id = serializers.StrictPrimaryKeyRelatedField(queryset=User.objects.all())
        by_name = serializers.StrictSlugRelatedField(queryset=User.objects.all(), slug_field="username")

        with django_assert_num_queries(0):
            assert refusal(by_id, value).code == "incorrect_type"
            assert refusal(by_name, value).code == "invalid"

    @pytest.mark.parametrize("value", [10**29, -1, "1e5", "unknown"])
    def test_refuse_keys_that_nothing_has(self, value):
        by_id = serializers.StrictPrimaryKeyRelatedField(queryset=User.objects.all())

        assert refusal(by_id, value).code in {"does_not_exist", "incorrect_type"}


class TestStrictModelSerializer:
    def test_uses_the_strict_fields_for_columns(self):
        class EveryKind(serializers.StrictModelSerializer):
            class Meta:
                model = ApiToken
                fields = ["id", "name", "user"]

        class OfUser(serializers.StrictModelSerializer):
            class Meta:
                model = User
                fields = ["id", "is_staff"]

        fields, of_user = EveryKind().fields, OfUser().fields

        assert isinstance(fields["id"], serializers.StrictUUIDField)
        assert isinstance(fields["name"], serializers.StrictCharField)
        assert isinstance(fields["user"], serializers.StrictPrimaryKeyRelatedField)
        assert isinstance(of_user["id"], serializers.StrictIntegerField)
        assert isinstance(of_user["is_staff"], serializers.StrictBooleanField)

    @pytest.mark.django_db
    def test_shows_a_row_like_any_serializer(self):
        token = ApiTokenFactory(name="mine")

        assert TokenSerializer(token).data == {"id": str(token.pk), "name": "mine"}
