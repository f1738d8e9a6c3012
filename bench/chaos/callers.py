"""Clients of every kind that go on whatever happens, and write down what they were answered."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from bench.chaos.site import picture

TIMEOUT_SECONDS = 90.0
"""Longer than anything that the server waits for."""

AGAIN_SECONDS = 0.5
RESOLVE_SECONDS = 240.0
"""So long a request with a key is repeated until it is known what came of it."""

BOUNDARY = "chaos-boundary"
PAGES = (
    "/api/images",
    "/api/albums",
    "/api/health",
    "/",
    "/admin/login/",
    "/api/training",
    "/api/scraping/jobs",
    "/api/jobs",
)


@dataclass(frozen=True)
class Answer:
    """What came of one request. ``status`` is 0 where nobody answered; times are of the monotonic clock."""

    began: float
    ended: float
    what: str
    status: int
    retry_after: str
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Ledger:
    """What was promised to clients, and what they were answered."""

    answers: list[Answer] = field(default_factory=list)
    accepted: dict[str, dict[str, int]] = field(default_factory=dict)
    """By kind, the ids that were promised, and how many pictures each is to have."""
    unknown: dict[str, int] = field(default_factory=dict)
    """By kind, how many requests without a key may or may not have been accepted."""
    breaches: list[str] = field(default_factory=list)

    def accept(self, kind: str, pk: str, count: int = 0) -> None:
        self.accepted.setdefault(kind, {})[pk] = count


class Caller(threading.Thread):
    """One client, who does the same thing again and again."""

    def __init__(self, work: "Work", act: Callable[["Work"], None], *, rest: tuple[float, float]) -> None:
        super().__init__(name=act.__name__, daemon=True)
        self._work, self._act, self._rest = work, act, rest

    def run(self) -> None:
        try:
            while not self._work.is_over.is_set():
                self._act(self._work)
                self._work.is_over.wait(self._work.chance.uniform(*self._rest))
        except Exception as error:  # noqa: BLE001 - what nobody foresaw of an answer is a finding
            self._work.ledger.breaches.append(f"The caller {self.name} broke: {error!r}")


class Work:
    """What the clients share, and each thing that one of them does."""

    def __init__(self, port: int, token: str, site: str, seed: int) -> None:
        self.port, self.token, self.site = port, token, site
        self.ledger = Ledger()
        self.is_over = threading.Event()
        self.chance = random.Random(seed)
        self.album = ""
        self.template = ""

    def callers(self) -> list[Caller]:
        """Return one client for each thing there is to do."""
        return [
            Caller(self, Work.generate, rest=(0.3, 1.5)),
            Caller(self, Work.read, rest=(0.05, 0.3)),
            Caller(self, Work.upload, rest=(0.5, 2.0)),
            Caller(self, Work.make_set, rest=(10.0, 20.0)),
            Caller(self, Work.scrape, rest=(8.0, 15.0)),
            Caller(self, Work.train, rest=(15.0, 40.0)),
        ]

    def prepare(self) -> None:
        """Make what the clients use: an album that can be trained on, and a template of a set."""
        self.album = self._must("POST", "/api/albums", {"name": "For training"})["id"]
        for number in range(6):
            image = self._must_upload(number)
            label = {"kind": "caption", "text": f"a pattern number {number}"}
            self._must("POST", f"/api/images/{image}/labels", label)
            self._must("POST", f"/api/albums/{self.album}/images", {"image_ids": [image]})
        rows = [
            {"name": f"Card {number}", "shape": shape}
            for number, shape in enumerate(("heart", "star", "ring"))
        ]
        template = {
            "name": "Cards",
            "is_set_template": True,
            "base_prompt": "a card",
            "prompt_template": "a red {shape}",
            "set_rows": rows,
        }
        self.template = self._must("POST", "/api/albums", template)["id"]

    def generate(self) -> None:
        """Ask for pictures under a key, as long as it takes; perhaps ask again, perhaps change one's mind."""
        count = self.chance.randint(1, 3)
        body = {"prompt": "a red heart on a white background", "steps": self.chance.randint(2, 6), "n": count}
        key = str(UUID(int=self.chance.getrandbits(128)))
        pk = self._resolve(body, key)
        if pk is None:
            return
        self.ledger.accept("generation", pk, count)
        if self.chance.random() < 0.3 and (again := self._resolve(body, key)) not in (pk, None):
            self.ledger.breaches.append(f"One Idempotency-Key answered two jobs, {pk} and {again}")
        if self.chance.random() < 0.1:
            self.call("DELETE", f"/api/jobs/{pk}")

    def read(self) -> None:
        """Look at one page or list."""
        self.call("GET", self.chance.choice(PAGES))

    def upload(self) -> None:
        """Store a picture that nobody has stored before."""
        answer = self._send_picture(self.chance.getrandbits(48))
        if answer.status == 201:
            self.ledger.accept("upload", answer.json["results"][0]["image"]["id"])

    def make_set(self) -> None:
        """Make the pictures of a set."""
        self._submit("set", f"/api/albums/{self.template}/generate", {"theme": "watercolour", "steps": 3})

    def scrape(self) -> None:
        """Crawl a page that nobody has crawled before."""
        url = f"http://{self.site}/page{self.chance.getrandbits(32)}"
        self._submit("scraping", "/api/scraping/start", {"url": url, "album_name": "Crawled"})

    def train(self) -> None:
        """Train an adapter, in a few steps."""
        config = {
            "steps": 30,
            "resolution": 64,
            "rank": 2,
            "batch_size": 1,
            "checkpoint_every": 10,
            "sample_prompts": [],
        }
        body = {"name": "Chaos", "album_ids": [self.album], "base_model": "starter", "config": config}
        made = self._submit("training", "/api/training", body)
        if made is None:
            return
        deadline = time.monotonic() + RESOLVE_SECONDS
        while time.monotonic() < deadline:
            answer = self.call("POST", f"/api/training/{made}/start")
            if (
                0 < answer.status < 500
            ):  # it has begun, or is refused: also because it had begun, and nobody could tell us
                return
            time.sleep(AGAIN_SECONDS)
        self.ledger.breaches.append(f"Training {made} could not be started")

    def call(self, method: str, path: str, body: Any = None, *, key: str = "", form: bytes = b"") -> Answer:
        """Make one request and write down what came of it."""
        headers = {"Authorization": f"Bearer {self.token}"}
        data: bytes | None = None
        if form:
            headers["Content-Type"], data = f"multipart/form-data; boundary={BOUNDARY}", form
        elif body is not None:
            headers["Content-Type"], data = "application/json", json.dumps(body).encode()
        if key:
            headers["Idempotency-Key"] = key
        began, status, retry_after, content = time.monotonic(), 0, "", b""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body=data, headers=headers)
            response = connection.getresponse()
            content = response.read()
            status, retry_after = response.status, response.headers.get("Retry-After", "")
        except TimeoutError:
            self.ledger.breaches.append(f"{method} {path} had no answer within {TIMEOUT_SECONDS:.0f} s")
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        answer = Answer(began, time.monotonic(), f"{method} {path}", status, retry_after, content)
        self.ledger.answers.append(answer)
        return answer

    def _resolve(self, body: dict[str, Any], key: str) -> str | None:
        """Ask until it is known what came of it: the id of the job, or None where it was refused."""
        deadline = time.monotonic() + RESOLVE_SECONDS
        while time.monotonic() < deadline:
            answer = self.call("POST", "/api/generate", body, key=key)
            if answer.status in {200, 201}:
                return str(answer.json["id"])
            if 400 <= answer.status < 500:
                return None
            time.sleep(AGAIN_SECONDS)
        self.ledger.breaches.append("A request for pictures was never answered")
        return None

    def _submit(self, kind: str, path: str, body: dict[str, Any]) -> str | None:
        """Ask once, without a key; return the id of what was accepted."""
        answer = self.call("POST", path, body)
        if answer.status in {200, 201}:
            self.ledger.accept(kind, answer.json["id"])
            return str(answer.json["id"])
        if answer.status == 0 or answer.status >= 500:
            self.ledger.unknown[kind] = self.ledger.unknown.get(kind, 0) + 1
        return None

    def _send_picture(self, seed: int) -> Answer:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{seed}.png"\r\n'
        head += "Content-Type: image/png\r\n\r\n"
        form = head.encode() + picture(seed, 128) + f"\r\n--{BOUNDARY}--\r\n".encode()
        return self.call("POST", "/api/images/upload", form=form)

    def _must(self, method: str, path: str, body: Any) -> Any:
        answer = self.call(method, path, body)
        if answer.status >= 400 or answer.status == 0:
            raise RuntimeError(f"{answer.what} answered {answer.status}: {answer.content[:500]!r}")
        return answer.json

    def _must_upload(self, seed: int) -> str:
        answer = self._send_picture(seed)
        if answer.status != 201:
            raise RuntimeError(f"The upload answered {answer.status}: {answer.content[:500]!r}")
        return str(answer.json["results"][0]["image"]["id"])
