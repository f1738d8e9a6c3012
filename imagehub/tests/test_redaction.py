import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagehub.accounts.services import TOKEN_START
from imagehub.redaction import MIN_SENSITIVE_LENGTH, REDACTED, is_sensitive_field, redact, redact_paths

SECRET = "s3cr3t-Value_42"


class TestCredentials:
    @pytest.mark.parametrize(
        "text",
        [
            f"Authorization: Bearer {SECRET}",
            f"authorization: Basic {SECRET}==",
            f"{{'Authorization': 'Token {SECRET}'}}",
            f"(b'Authorization', b'Bearer {SECRET}')",
            f"curl -H 'Authorization: Bearer {SECRET}' https://example.org",
            f"refused bearer {SECRET} of user",
            f"Cookie: theme=dark; sessionid={SECRET}; other={SECRET}",
            f"Set-Cookie: sessionid={SECRET}; Path=/; HttpOnly",
            f"password={SECRET}",
            f"DB_PASSWORD = {SECRET}",
            f"HF_TOKEN={SECRET} python train.py",
            f"api_key: {SECRET}",
            f"X-API-Key: {SECRET}",
            f"x-goog-api-key={SECRET}&alt=json",
            f'{{"api_key": "{SECRET}", "page": 1}}',
            f'{{"password":"{SECRET} with spaces, and \\" quote {SECRET}"}}',
            f"{{'client_secret': '{SECRET}'}}",
            f'body="{{\\"access_token\\": \\"{SECRET}\\"}}"',
            f"--password {SECRET}",
            f"--hub-token '{SECRET}'",
            f"secret_key = r'{SECRET}'",
            f"csrftoken={SECRET}",
            f"aws_secret_access_key={SECRET}",
            f"https://user:{SECRET}@example.org/path",
            f"https://{SECRET}@example.org",
            f"postgres://imagehub:{SECRET}/with@signs#@db:5432/imagehub",
            f"redis://:{SECRET}@localhost:6379/0",
            f"https://api.example.org/v1?key={SECRET}&q=cats",
            f"wss://example.org/socket?{SECRET}",
            f"https://example.org/callback#access={SECRET}",
            f"Max retries exceeded with url: /api/?key={SECRET}&q=cats (Caused by",
            f'"GET /search?q={SECRET} HTTP/1.1" 200',
            f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n{SECRET}\n-----END RSA PRIVATE KEY-----",
            f'password="{SECRET}',
        ],
    )
    def test_are_removed(self, text):
        redacted = redact(text)

        assert SECRET not in redacted
        assert REDACTED in redacted
        assert redact(redacted) == redacted

    @pytest.mark.parametrize(
        "token",
        [
            "hf_" + "aB3" * 10,
            "sk-proj-" + "aB3" * 10,
            "ghp_" + "aB3" * 12,
            "github_pat_" + "aB3" * 12,
            "AKIA" + "ABCD" * 4,
            "AIza" + "aB3" * 12,
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        ],
    )
    def test_of_well_known_forms_are_removed_wherever_they_stand(self, token):
        assert redact(f"gave {token}, got 401") == f"gave {REDACTED}, got 401"

    def test_leave_the_text_around_them(self):
        assert (
            redact(f"GET https://u:{SECRET}@example.org/a/b?x={SECRET} failed")
            == f"GET https://{REDACTED}@example.org/a/b?{REDACTED} failed"
        )
        assert redact(f"token={SECRET}, step=3") == f"token={REDACTED}, step=3"

    def test_leave_json_readable(self):
        text = json.dumps({"token": SECRET, "url": f"https://example.org/?q={SECRET}", "steps": 3})

        assert json.loads(redact(text)) == {
            "token": REDACTED,
            "url": f"https://example.org/?{REDACTED}",
            "steps": 3,
        }

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "step 3/100, loss=0.123, lr=1e-4, 4.2 it/s",
            "Token indices sequence length is longer than 77 tokens",
            "loading tokenizer/special_tokens_map.json",
            "max_tokens=77 tokenizer=CLIPTokenizer",
            'File "/srv/imagehub/training/starter/loop.py", line 3, in step',
            "https://huggingface.co/stabilityai/sdxl-turbo",
            "https://unpkg.com/@babel/core",
            "What is this? a=b",
            "KeyError: 'unet.down_blocks.0'",
            "the cat's key: 42",
        ],
    )
    def test_are_not_seen_where_there_are_none(self, text):
        assert redact(text) == text


class TestSensitiveStrings:
    PROMPT = 'A “castle”\nby C:\\night, with a "moon"'

    @pytest.mark.parametrize(
        "written",
        [
            *(str, repr, ascii, json.dumps, str.lower),
            lambda prompt: json.dumps(prompt, ensure_ascii=False),
            lambda prompt: prompt.replace(" ", "  "),
            lambda prompt: f"a\n{prompt}\nb",
            lambda prompt: f"{prompt}?{prompt}",
        ],
    )
    def test_are_removed_in_every_spelling(self, written):
        redacted = redact(f"prompt is {written(self.PROMPT)} now", sensitive=[self.PROMPT])

        assert "castle" not in redacted
        assert "moon" not in redacted
        assert redacted.startswith("prompt is ")
        assert redacted.endswith(" now")

    def test_of_several_lines_are_removed_line_by_line(self):
        assert redact("[1] A “castle”", sensitive=[self.PROMPT]) == f"[1] {REDACTED}"

    def test_are_removed_the_longest_first(self):
        assert redact("a red cat and a cat", sensitive=["cat", "red cat"]) == f"a {REDACTED} and a {REDACTED}"

    def test_do_not_open_what_is_redacted(self):
        once = redact("red", sensitive=["red", "act"])

        assert once == REDACTED
        assert redact(once, sensitive=["red", "act"]) == REDACTED

    def test_are_removed_whole_also_around_a_url(self):
        prompt = "poster of https://example.org/?q=1 in neon"

        assert redact(f"got {prompt}", sensitive=[prompt]) == f"got {REDACTED}"

    def test_are_ignored_when_they_are_too_short(self):
        assert redact("a to z", sensitive=["to", "", "  a  "]) == "a to z"

    def test_include_the_part_that_a_tokenizer_says_it_dropped(self):
        warning = "input was truncated because CLIP can only handle sequences up to 77 tokens: ['by night']"

        assert redact(warning).endswith(f"77 tokens: {REDACTED}")

    @given(st.text(min_size=MIN_SENSITIVE_LENGTH, max_size=40), st.text(max_size=40), st.text(max_size=40))
    def test_never_survive(self, prompt, before, after):
        if len(" ".join(prompt.split())) < MIN_SENSITIVE_LENGTH or prompt.lower() in REDACTED:
            return

        redacted = redact(f"{before} {prompt} {after}", sensitive=[prompt])

        assert prompt not in redacted.replace(REDACTED, "\0")


class TestPaths:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("cannot open /var/lib/imagehub/models/a.safetensors", "cannot open a.safetensors"),
            ("cannot open /var/lib/imagehub/a.safetensors.", "cannot open a.safetensors."),
            ("[Errno 2] No such file: '/srv/my models/a b.png'", "[Errno 2] No such file: 'a b.png'"),
            ('File "/usr/lib/python3.11/json/decoder.py", line 3', 'File "decoder.py", line 3'),
            ("path=/tmp/x/y.log, next", "path=y.log, next"),
            ("path:/tmp/x/y.log", "path:y.log"),
            ("(/home/me/run/)", "(run)"),
            ("in /tmp", "in tmp"),
            ("C:\\Users\\me\\model.bin missing", "model.bin missing"),
            ("'C:\\\\Users\\\\me\\\\model.bin'", "'model.bin'"),
            ("see file:///home/me/a.png", "see a.png"),
            ("/a/b and /c/d", "b and d"),
        ],
    )
    def test_are_shortened_to_their_last_part(self, text, expected):
        assert redact_paths(text) == expected
        assert redact_paths(expected) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "step 3/100 at 4 it/s and/or image/png",
            "https://example.org/a/b and http://localhost:8000/api/v1/images",
            "models/base/unet",
            "./here/there and ../up/there",
            "a / b",
            "</div>",
        ],
    )
    def test_are_told_from_what_looks_like_them(self, text):
        assert redact_paths(text) == text


class TestSpeed:
    @pytest.mark.parametrize(
        "hostile",
        [
            *(
                "/",
                "//",
                "a://",
                "://",
                "?a=",
                "-",
                "-a",
                "--token",
                "token",
                "password=",
                '"',
                "\\",
                "x",
                "a.b",
            ),
            *(
                "token='",
                'token=\\"',
                "Bearer ",
                "-----BEGIN PRIVATE KEY-----",
                "cookie:",
                "'/a",
                "hf_",
                "@",
                " ",
            ),
            *("eyJa.", "eyJabcdefghi.", "a.b:", "C:\\", "token ", "token :"),
        ],
    )
    @pytest.mark.parametrize("function", [redact, redact_paths, lambda text: redact(text, sensitive=["abc"])])
    def test_is_linear(self, function, hostile):
        text = hostile * (100_000 // len(hostile))
        began = time.perf_counter()

        function(text)

        assert time.perf_counter() - began < 2


def test_our_own_tokens_are_known_anywhere_in_a_text():

    secret = TOKEN_START + "k" * 43

    assert secret not in redact(f"nobody knows {secret} here")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("text", True), ("Tag", True), ("caption_of_it", True), ("context", False), ("tags_count", False)],
)
def test_fields_of_captions_and_tags_are_known_by_their_names(name, expected):
    assert is_sensitive_field(name) is expected
