import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import AnonymousUser

from imagehub.accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "permission",
    [
        "albums.add_album", "albums.change_album", "albums.delete_album", "albums.view_image", "training.change_basemodel",
        "generation.change_generationjob", "jobs.view_workerpresence", "accounts.view_apitoken",
        "accounts.change_apitoken", "accounts.view_auditentry",
    ],
)  # fmt: skip
def test_staff_work_with_what_is_ours(permission):
    assert UserFactory(staff=True).has_perm(permission)
    for user in (UserFactory(), UserFactory(staff=True, deactivated=True), AnonymousUser()):
        assert not user.has_perm(permission)


@pytest.mark.parametrize(
    "permission",
    [
        "auth.view_user", "auth.change_user", "auth.add_group", "auth.change_permission", "django_q.add_schedule",
        "django_q.view_task", "sessions.view_session", "accounts.add_apitoken", "accounts.delete_apitoken",
        "accounts.add_auditentry", "accounts.change_auditentry", "accounts.delete_auditentry", "nothing.at_all",
    ],
)  # fmt: skip
def test_staff_reach_nothing_by_which_they_could_become_more(permission):
    assert not UserFactory(staff=True).has_perm(permission)


def test_staff_see_the_apps_that_they_may_work_with():
    staff = UserFactory(staff=True)

    assert staff.has_module_perms("albums")
    assert not staff.has_module_perms("auth")
    assert not staff.has_module_perms("django_q")
    assert not UserFactory().has_module_perms("albums")


def test_a_single_row_gives_no_further_permission():
    staff = UserFactory(staff=True)

    assert not staff.has_perm("albums.change_album", staff)


def test_nobody_signs_in_by_it():
    UserFactory(staff=True, username="ada")

    assert authenticate(username="ada", password="") is None
