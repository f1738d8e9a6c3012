"""Sites decide how large their files are; a worker keeps so much of them and no more."""

from scraping.politeness.recent import Recent
from scraping.politeness.robots import MAX_BYTES, Robots
from scraping.politeness.store import MemoryStore, PolicyFile
from scraping.tests.test_politeness import NOW, World


def test_what_was_not_asked_for_longest_is_forgotten_first():
    recent = Recent(most=3, most_bytes=10)
    for name in "abc":
        recent.put(name, name.upper(), 3)
    assert recent.get("a") == "A"

    recent.put("d", "D", 4)
    assert [recent.get(name) for name in "abcd"] == ["A", None, "C", "D"]
    recent.put("a", "AA", 1)
    recent.put("e", "E", 3)
    assert [recent.get(name) for name in "acde"] == ["AA", None, "D", "E"]
    recent.put("f", "F", 11)
    assert (len(recent), recent.get("f")) == (0, None)
    recent.put("g", "G", 10)
    assert recent.get("g") == "G"


def test_rules_are_kept_by_what_their_files_weigh(monkeypatch):
    read = []
    monkeypatch.setattr(Robots, "read", lambda file: read.append(file) or Robots(None))
    monkeypatch.setattr("scraping.politeness.gatekeeper.MOST_UNDERSTOOD_BYTES", 2 * MAX_BYTES)
    world = World()
    for number in range(3):
        world.publish(f"http://{number}.test", robots=b"#" * MAX_BYTES)

    for number in (0, 1, 2, 2, 1, 0, 1):  # there is room for two: the second time, 0 has to be read again
        assert world.ask(f"http://{number}.test/1.png")["verdict"] == "go"
        world.clock.now += 1
        world.end(world.number, host=f"{number}.test")

    assert len(read) == 4


def test_a_file_that_was_fetched_anew_takes_the_place_of_the_old_one():
    world = World()
    world.publish()
    assert world.ask()["verdict"] == "go"
    world.clock.now += 1
    world.publish(robots=b"User-agent: *\nDisallow: /")
    assert world.ask()["verdict"] == "robots"


def test_a_store_in_memory_keeps_what_its_files_weigh(monkeypatch):
    monkeypatch.setattr("scraping.politeness.store.MOST_FILE_BYTES", 1000)
    store = MemoryStore()
    for origin in "abc":
        store.keep_file(origin, "/robots.txt", PolicyFile(200, bytes(400), NOW))
    assert [store.file(origin, "/robots.txt") is None for origin in "abc"] == [True, False, False]
