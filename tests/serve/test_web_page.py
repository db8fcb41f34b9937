"""The page, in a browser: a video is dropped, asked, and shown where the answer rests; by mouse, keyboard and phone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest

import longtake
from longtake.media.filmstrip import Film, ask_film, build_film, level_spec, write_film
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import bundled_tiny
from longtake.serve import answers as answers_module
from longtake.serve import ingests as ingests_module
from longtake.serve.errors import busy
from longtake.serve.keys import add_key
from longtake.serve.routes_page import FOLDER, POLICY, TYPES
from tests.serve.browser import (
    ARGUMENTS,
    CHROMIUM,
    CONTRASTS,
    DROP,
    FOCUS,
    NAMES,
    NOTE_TEXTS,
    OVERFLOW,
    SMALLEST_TARGET,
    Watched,
)
from tests.serve.conftest import Live, serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is installed")
CARD = "Which letter is on the card with the grey drop?"
MOTION = "In which direction did the red ball start to move?"
PAINT_S = 5.0  # measured: some tenths of a second; generous, for a machine that has other things to do
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def film() -> Film:
    return build_film(level_spec("L1", 20_000_003, ("N1", "OR", "NH", "MO"), num_frames=48, hops=1))


@pytest.fixture(scope="module")
def film_path(film: Film, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(film, tmp_path_factory.mktemp("page") / "cards.mp4")


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return longtake.load(bundled_tiny())


@pytest.fixture(scope="module")
def site(tiny: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    limits = {"max_frames": 64, "upload_mb": 2}
    with serving(tiny, tmp_path_factory.mktemp("site"), limits=limits, notice="Knows cards alone.") as live:
        yield live


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    """Return a function that opens an address in a window of its own, and says what the page said and asked for."""
    opened = []

    def go(address: str, **options: Any) -> tuple[Any, Watched]:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        watched = Watched(page)
        page.goto(address)
        return page, watched

    yield go
    for context in opened:
        context.close()


@contextmanager
def slowed(monkeypatch: pytest.MonkeyPatch, step_s: float = 0.15, piece_s: float = 0.8) -> Iterator[None]:
    """Make the writing of an answer and the reading of a video so slow that a browser sees them go on."""
    decode, remember = answers_module.decode_together, ingests_module.remember

    def slow_decode(*args: Any, **kwargs: Any) -> Any:
        time.sleep(step_s)
        return decode(*args, **kwargs)

    def slow_remember(*args: Any, on_progress: Any, **kwargs: Any) -> Any:
        def told(stage: str, done: int, total: int) -> None:
            on_progress(stage, done, total)
            time.sleep(piece_s if stage == "encode" else 0)

        return remember(*args, on_progress=told, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(answers_module, "decode_together", slow_decode)
        patched.setattr(ingests_module, "remember", slow_remember)
        yield


def emptied(live: Live) -> str:
    """Delete all videos of a server without keys; return its address."""
    with live.http() as http:
        for video in http.get("/v1/videos").json()["data"]:
            assert http.delete(f"/v1/videos/{video['id']}").status_code == 200
    return live.url


def add(page: Any, path: Path) -> None:
    page.set_input_files("#file", path)
    page.wait_for_selector("#send:not([disabled])")


def ask(page: Any, question: str) -> str:
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_selector(".card:first-child.done")
    assert page.inner_text(".card:first-child .asked") == question
    return page.inner_text(".card:first-child .answer")


def player_s(page: Any) -> float:
    page.wait_for_function("() => !document.querySelector('#player').seeking")
    return page.evaluate("document.querySelector('#player').currentTime")


def test_the_files_of_the_page_may_ask_no_other_server(site: Live) -> None:
    with site.http() as http:
        for name in ("", *(f"page/{path.name}" for path in FOLDER.iterdir())):
            reply = http.get(f"/{name}")
            assert reply.status_code == 200
            assert reply.headers["content-security-policy"] == POLICY
            assert reply.headers["content-type"] == TYPES[Path(name or "index.html").suffix]
            assert "//" not in reply.text.replace("http://www.w3.org/2000/svg", "").replace("// ", ""), name
            assert " style=" not in reply.text and 'onclick="' not in reply.text, name
        known = {"If-None-Match": http.get("/page/main.js").headers["etag"]}
        again = http.get("/page/main.js", headers=known)
        assert (again.status_code, again.content, again.headers["content-security-policy"]) == (304, b"", POLICY)
        assert http.head("/").status_code == 200
        for name in ("../routes_page.py", "..%2froutes_page.py", "nothing.js", ""):
            assert http.get(f"/page/{name}").status_code == 404
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} < set(POLICY.split("; "))


@needs_browser
def test_the_first_paint_comes_soon(site: Live, visit: Open) -> None:
    address = emptied(site)
    paints = []
    for _ in range(3):
        page, _ = visit(address)
        page.wait_for_selector("#empty:not([hidden])")
        page.wait_for_function("() => performance.getEntriesByType('paint').length == 2")
        entries = page.evaluate("performance.getEntriesByType('paint').map((entry) => entry.startTime)")
        paints.append(max(entries) / 1000)
    assert min(paints) < PAINT_S, paints


@needs_browser
def test_a_film_is_added_asked_and_shown_where_the_answer_rests(
    site: Live, visit: Open, film: Film, film_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, watched = visit(emptied(site))
    assert page.inner_text("#notice") == "Knows cards alone."
    for selector in ("#work-text", ".card:first-child .answer", "#told"):
        page.evaluate(NOTE_TEXTS, selector)
    with slowed(monkeypatch):
        add(page, film_path)
        answer = ask(page, MOTION)
    notes = page.evaluate("window.notes")
    assert any("of 48 frames" in text for text in notes["#work-text"]), notes
    question = next(one for one in ask_film(film, paraphrase=0) if one.text == MOTION)
    assert answer in question.choices and notes[".card:first-child .answer"] == [answer.split()[0], answer]  # in pieces
    assert any(text.startswith(f"Answer: {answer}. Evidence: 0:") for text in notes["#told"])
    assert ask(page, CARD) == "Z"

    chip = page.locator(".card:first-child .chip").first
    assert chip.get_attribute("aria-label").startswith("Go to 0:15 – 0:1")
    page.wait_for_selector(".card:first-child .chip canvas")
    chip.click()
    assert player_s(page) == pytest.approx(15.0, abs=0.05)
    assert page.evaluate("document.querySelector('#player').readyState") >= 2, "H.264 is not played"
    assert "evidence" in page.inner_text("#readout")

    assert page.locator("#lanes .heat").count() == page.locator("#lanes .tokens").count() == 12
    assert page.locator("#lanes .mark").count() == page.locator(".card:first-child .chip").count()
    box = page.locator("#timeline").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + 40)
    assert player_s(page) == pytest.approx(36.0, abs=0.3)
    page.click(".card:nth-child(2) .asked")
    assert "active" in page.get_attribute(".card:nth-child(2)", "class")

    page.reload()
    page.wait_for_selector(".card:nth-child(2)")
    assert [text.split("\n")[0] for text in page.locator(".card").all_inner_texts()] == [CARD, MOTION]
    assert page.locator("#lanes .heat").count() == 12
    page.click("#clear")
    page.reload()
    page.wait_for_selector("#send:not([disabled])")
    assert page.locator(".card").count() == 0
    assert watched.errors == []
    assert all(found.startswith(site.url) for found in watched.addresses), watched.addresses


@needs_browser
def test_everything_can_be_done_with_the_keyboard(site: Live, visit: Open, film_path: Path) -> None:
    page, watched = visit(emptied(site))
    page.wait_for_selector("#empty:not([hidden])")

    def tab_to(wanted: str, most: int = 20, key: str = "Tab") -> None:
        for _ in range(most):
            page.keyboard.press(key)
            if page.evaluate("(s) => document.activeElement.matches(s)", wanted):
                name, is_seen = page.evaluate(FOCUS)
                assert is_seen, f"one does not see that {name} has the focus"
                return
        raise AssertionError(f"{wanted} is not reached with {key}")

    tab_to(".skip", most=1)
    tab_to("#add")
    # The browser's own dialog does not open reliably without a window: that the page asks for it is what is checked.
    page.evaluate("document.querySelector('#file').addEventListener('click', () => { window.asked = true; })")
    page.keyboard.press("Enter")
    page.wait_for_function("window.asked")
    page.set_input_files("#file", film_path)
    page.wait_for_selector("#send:not([disabled])")
    tab_to("#timeline")
    page.keyboard.press("ArrowRight")
    assert player_s(page) == pytest.approx(5.0, abs=0.05)
    tab_to("#question")
    page.keyboard.type(CARD)
    page.keyboard.press("Enter")
    page.wait_for_selector(".card:first-child.done")
    assert page.evaluate("document.activeElement.id") == "question"
    tab_to(".asked")
    tab_to(".chip")
    page.keyboard.press("Enter")
    assert player_s(page) == pytest.approx(15.0, abs=0.05)
    assert page.evaluate("document.activeElement.className") == "chip"
    tab_to("#timeline", key="Shift+Tab")
    page.keyboard.press("ArrowRight")
    assert player_s(page) == pytest.approx(16.0, abs=0.05)
    assert page.get_attribute("#timeline", "aria-valuetext").startswith("0:16 of 0:48, 0:16 – 0:20 · heat")
    page.keyboard.press("End")
    assert player_s(page) == pytest.approx(44.0, abs=0.05)

    tab_to(".remove", key="Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#confirm[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#confirm:not([open])", state="attached")
    assert page.evaluate("document.activeElement.className") == "remove"
    page.keyboard.press("Enter")
    tab_to("#confirm-yes", most=2)
    page.keyboard.press("Enter")
    page.wait_for_selector("#empty:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "add"
    assert page.evaluate("localStorage.length") == 0, "what was asked of a deleted video is kept"
    assert watched.errors == []


@needs_browser
def test_escape_stops_an_answer(site: Live, visit: Open, film_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, _ = visit(emptied(site))
    add(page, film_path)
    with slowed(monkeypatch, step_s=1.0):
        page.fill("#question", MOTION)
        page.press("#question", "Enter")
        page.wait_for_selector(".card.writing")
        page.press("#question", "Escape")
        page.wait_for_selector(".card.stopped")
    assert page.inner_text(".card .failed p") == "You stopped this answer."
    page.click(".card .failed button")
    page.wait_for_selector(".card.done")
    assert page.locator(".card").count() == 1


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_readably(site: Live, visit: Open, film_path: Path, scheme: str) -> None:
    page, _ = visit(emptied(site), viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    page.wait_for_selector("#empty:not([hidden])")

    def check(where: str) -> None:
        assert page.evaluate(OVERFLOW) <= 0.5, f"{where} is wider than 360 pixels"
        assert page.evaluate(SMALLEST_TARGET) >= 24, where
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 5 and min(ratio for _, ratio in contrasts) >= 4.5, (where, min(contrasts, key=_ratio))

    check("empty")
    add(page, film_path)
    ask(page, CARD)
    check("answer")
    page.set_input_files("#file", {"name": "n" * 60 + ".txt", "mimeType": "text/plain", "buffer": b"no video"})
    page.wait_for_selector(".alert")
    check("error")
    page.click(".remove")
    check("dialog")
    parts = "['--edge', '--heat', '--tokens', '--mark', '--accent', '--sheet']"
    colours = page.evaluate(f"{parts}.map((n) => getComputedStyle(document.documentElement).getPropertyValue(n))")
    sheet = _light(colours.pop())
    for colour in colours:
        low, high = sorted((sheet, _light(colour)))
        assert (high + 0.05) / (low + 0.05) >= 3, f"{colour} is not told from its ground"


def _ratio(found: tuple[str, float]) -> float:
    return found[1]


def _light(colour: str) -> float:
    """Return the relative luminance of #rrggbb (WCAG 2.2)."""
    values = [int(colour.strip()[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@needs_browser
def test_what_goes_wrong_is_said_in_the_servers_words(
    site: Live, visit: Open, film_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, _ = visit(emptied(site))

    def said(path: Path) -> str:
        page.set_input_files("#file", path)
        page.wait_for_selector(f".alert:has-text('{path.name}')")
        return page.inner_text(f".alert:has-text('{path.name}') p")

    page.evaluate(DROP, "words.txt")
    page.wait_for_selector(".alert:has-text('words.txt could not be added')")
    assert "expected one of MP4, MOV, Matroska" in page.inner_text(".alert p")
    large = tmp_path / "large.mp4"
    large.write_bytes(film_path.read_bytes() + bytes(4_000_000))
    assert "expected at most 3000000" in said(large)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(film_path.read_bytes()[:-3000])
    page.set_input_files("#file", broken)
    page.wait_for_selector("#failed:not([hidden])")
    assert "moov" in page.inner_text("#failed")
    assert not page.is_visible("#ask") and not page.is_visible("#player, #still")

    def full(*_: Any) -> Any:
        raise busy("64 questions wait", 3)

    add(page, film_path)
    with monkeypatch.context() as patched:
        patched.setattr(site.service.answers, "submit", full)
        page.fill("#question", CARD)
        page.press("#question", "Enter")
        page.wait_for_selector(".card.failed")
    assert page.inner_text(".card .failed p") == "64 questions wait; expected fewer at once; come again in 3 s."
    page.click(".card .failed button")
    page.wait_for_selector(".card.done")


@needs_browser
def test_sending_can_be_stopped(site: Live, visit: Open, film_path: Path) -> None:
    page, watched = visit(emptied(site))
    page.wait_for_selector("#empty:not([hidden])")
    page.route("**/v1/videos", lambda route: None)  # the server takes nothing
    page.set_input_files("#file", film_path)
    page.wait_for_selector("#list .state.sending")
    assert page.get_attribute(".remove", "aria-label") == "Stop sending cards.mp4"
    assert page.is_visible("#work") and not page.is_visible("#ask")
    page.click(".remove")
    page.wait_for_selector("#empty:not([hidden])")
    assert page.locator("#list li, .alert").count() == 0 and watched.errors == []


@needs_browser
def test_a_server_that_is_gone_is_waited_for(tiny: LoadedModel, visit: Open, film_path: Path, tmp_path: Path) -> None:
    with serving(tiny, tmp_path) as live:
        page, _ = visit(live.url)
        add(page, film_path)
    page.fill("#question", CARD)
    page.press("#question", "Enter")
    page.wait_for_selector(".card.failed")
    assert "The server does not answer" in page.inner_text(".alert")
    with serving(tiny, tmp_path, port=live.port):
        page.wait_for_selector(".alert", state="detached")
        assert ask(page, CARD) == "Z"


@needs_browser
def test_a_key_is_asked_for_and_forgotten(tiny: LoadedModel, visit: Open, film_path: Path, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "anna")
    with serving(tiny, tmp_path / "store", keys=str(tmp_path / "keys")) as live:
        page, watched = visit(live.url)
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "lt-wrong")
        page.press("#key", "Enter")
        page.wait_for_function("() => document.querySelector('#key-error').textContent.includes('Incorrect API key')")
        page.fill("#key", key)
        page.press("#key", "Enter")
        page.wait_for_selector("#key-dialog:not([open])", state="attached")
        add(page, film_path)
        assert ask(page, CARD) == "Z"
        page.click(".chip")
        assert player_s(page) == pytest.approx(15.0, abs=0.05)
        assert not any(key in address for address in watched.addresses)
        page.reload()
        page.wait_for_selector(".card")
        page.click("#key-button")
        page.wait_for_selector("#key-dialog[open]")
        assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
        assert page.locator("#list li").count() == 0


@needs_browser
def test_a_video_that_no_browser_plays_is_shown_by_its_pictures(site: Live, visit: Open, tmp_path: Path) -> None:
    path = tmp_path / "old.avi"
    with av.open(str(path), "w", format="avi") as container:
        stream: Any = container.add_stream("mpeg4", rate=2, width=96, height=64, pix_fmt="yuv420p")
        for number in range(24):
            frame = av.VideoFrame(96, 64, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([10 * number]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    page, _ = visit(emptied(site))
    add(page, path)
    page.wait_for_selector("#still:not([hidden])")
    assert "cannot play" in page.inner_text("#player-note")
    page.focus("#timeline")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#still').naturalWidth > 0")
    assert page.get_attribute("#still", "src").endswith("frames?t=5.00")
    assert page.get_attribute("#timeline", "aria-valuenow") == "5.0"
