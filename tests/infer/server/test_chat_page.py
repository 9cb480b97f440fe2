"""The chat page in a real browser: Debian's Chromium, without a window."""

import re
import shutil

import pytest

from infer.server.chat_page import PAGE, chat_page

CHROMIUM = shutil.which("chromium")
SLOW_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]


def test_the_page_brings_all_it_needs():
    text = PAGE.read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", text)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert not re.findall(r"\sstyle=|\son\w+=", text)
    policy = chat_page().headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_every_field_has_a_label():
    text = PAGE.read_text(encoding="utf-8")
    for field in re.findall(r'<(?:input|textarea) id="([\w-]+)"', text):
        assert f'<label for="{field}"' in text or f'for="{field}"' in text


@pytest.fixture
def open_page(serve_script):
    """Opens the page of a scripted server; fails after the test if the page had an error."""
    from playwright.sync_api import sync_playwright

    complaints = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def open_it(**changes):
            server = serve_script(**changes)
            server.answering.limit = 10_000
            page = browser.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda message: complaints.append(message.text))
            page.goto(server.address)
            return server, page

        yield open_it
        browser.close()
    # Chromium itself tells of every answer that is no success.
    assert not [line for line in complaints if not line.startswith("Failed to load resource")]


def say(page, text):
    page.fill("#message", text)
    page.press("#message", "Enter")


def answer_of(page, number=0):
    """The text of a finished answer."""
    article = page.locator("article.assistant").nth(number)
    article.locator("small").wait_for()
    return article.locator("p").text_content()


@pytest.fixture
def bodies(monkeypatch):
    """What the page asked the server for."""
    from infer.server import answer_job

    seen = []
    parse = answer_job.parse_body

    def watch(body):
        seen.append(parse(body))
        return seen[-1]

    monkeypatch.setattr(answer_job, "parse_body", watch)
    return seen


class TestBrowser:
    pytestmark = SLOW_BROWSER

    def test_a_dialog_with_settings(self, open_page, bodies):
        server, page = open_page()
        page.wait_for_function("document.title == 'tiny – llama-jax'")
        page.click("#toggle")
        page.fill("#system", "Be short.")
        for field, value in [("temperature", "0.5"), ("top-p", "0.9"), ("seed", "7")]:
            page.fill(f"#{field}", value)
        page.fill("#max-tokens", "5")
        page.click("#done")
        hostile = "<img src=x onerror=alert(1)><b>bold</b>"
        page.fill("#message", hostile)
        page.press("#message", "Shift+Enter")
        page.keyboard.type("line two")
        page.press("#message", "Enter")
        assert answer_of(page) == "xxxxx"
        asked = page.locator("article.user p")
        assert asked.text_content() == f"{hostile}\nline two" and asked.locator("*").count() == 0
        say(page, "And?")
        assert answer_of(page, 1) == "xxxxx"
        assert "cut at the limit" in page.locator("article.assistant small").nth(1).text_content()
        numbers = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "max_tokens": 5}
        assert bodies[1].items() >= numbers.items()
        assert [message["role"] for message in bodies[1]["messages"]] == [
            "system", "user", "assistant", "user",
        ]  # fmt: skip
        page.click("#clear")
        assert page.locator("article").count() == 0
        say(page, "Again")
        answer_of(page)
        assert len(bodies[2]["messages"]) == 2

    @pytest.mark.parametrize("key", ["button", "Escape"])
    def test_an_answer_can_be_stopped(self, open_page, wait_until, key):
        server, page = open_page()
        server.answering.seconds_a_step = 0.2  # on a busy machine the browser takes seconds too
        say(page, "Go on")
        page.locator("article.writing p", has_text="xxx").wait_for()
        page.click("#stop") if key == "button" else page.keyboard.press("Escape")
        assert 3 <= len(answer_of(page)) < 240
        assert page.locator("article.assistant small").text_content() == "stopped"
        wait_until(lambda: server.answering.is_idle)
        assert page.locator("#send").is_visible() and page.locator("#stop").is_hidden()

    def test_errors_are_shown_and_the_message_is_kept(self, open_page):
        server, page = open_page()
        server.answering.limit = 1
        say(page, "Hello")
        page.locator("#error", has_text="over the scripted context").wait_for()
        assert page.input_value("#message") == "Hello" and page.locator("article").count() == 0
        server.answering.limit = 10_000
        page.press("#message", "Enter")
        assert answer_of(page).startswith("x") and page.locator("#error").is_hidden()
        page.click("#clear")  # or the next would be over the context
        page.click("#toggle")
        page.fill("#max-tokens", "13")  # the script lets it fail at the end
        say(page, "More")
        page.locator("#error", has_text="scripted failure").wait_for()
        assert answer_of(page) == "x" * 12
        page.fill("#temperature", "-1")
        say(page, "Never sent")
        assert page.locator("#temperature:invalid").count() == 1
        assert page.input_value("#message") == "Never sent"

    def test_a_key_is_asked_for(self, open_page):
        _, page = open_page(api_keys=("right",))
        page.locator("#error", has_text="asks for an API key.").wait_for()
        page.fill("#key", "wrong")
        say(page, "Hi")
        page.locator("#error", has_text="this is none of them").wait_for()
        page.fill("#key", "right")
        page.press("#message", "Enter")
        assert answer_of(page).startswith("x")

    def test_a_late_refusal_of_an_old_key_changes_nothing(self, open_page, bodies):
        _, page = open_page(api_keys=("right",))
        page.locator("#error", has_text="asks for an API key.").wait_for()
        held = []

        def hold_wrong_keys(route):
            wrong = "wrong" in route.request.headers["authorization"]
            held.append(route) if wrong else route.continue_()

        page.route("**/v1/models", hold_wrong_keys)
        page.fill("#max-tokens", "5")
        page.fill("#key", "wrong")
        say(page, "Hi")
        page.press("#message", "Enter")
        page.fill("#key", "right")
        page.press("#message", "Enter")
        assert answer_of(page) == "xxxxx"
        with page.expect_event("requestfinished", lambda request: request == held[-1].request):
            for route in held:
                route.continue_()
        say(page, "And?")
        assert answer_of(page, 1) == "xxxxx" and page.locator("#error").is_hidden()
        assert [len(body["messages"]) for body in bodies] == [1, 3]

    def test_a_server_that_is_gone_is_told(self, open_page):
        server, page = open_page()
        page.wait_for_function("document.title == 'tiny – llama-jax'")
        server.leave()
        server.wait()
        say(page, "Hi")
        page.locator("#error", has_text="cannot be reached").wait_for()

    def test_the_page_fits_a_phone(self, open_page):
        _, page = open_page()
        page.set_viewport_size({"width": 360, "height": 640})
        say(page, "x" * 150)
        answer_of(page)
        for selector in ("#send", "#toggle", "#message"):
            box = page.locator(selector).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] + 20 < 640
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
