"""The report in headless Chromium: it opens offline, everything in it can be reached, and model text stays text."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: it comes with the dev dependencies")

from tests.support.synthetic_training import make as make_training
from tests.support.synthetic_training import write
from tmas.files import read_lines
from tmas.methods import METHODS, MethodSettings
from tmas.records import CallKey, Problem
from tmas.report.report import ReportSettings, make_report
from tmas.report.view import ViewSettings, view_server
from tmas.run.trace import read_calls, trace_path
from tmas.testing import team
from tmas.testing.browser import Watched, browser, chromium
from tmas.testing.synthetic_run import Writer, make, problems

pytestmark = pytest.mark.e2e

HOSTILE = [
    "</script><script>hacked()</script>",
    "<img src=x onerror=hacked()>",
    "<svg onload=hacked()></svg><iframe src='javascript:hacked()'></iframe>",
    r"$\href{javascript:hacked()}{click}$ and \(\url{javascript:hacked()}\)",
    r"$$\includegraphics[alt=x]{http://127.0.0.1:9/leak.png}$$",
    r"$\htmlStyle{background:url(http://127.0.0.1:9/leak)}{x}$ $\htmlData{a=b}{x}$ $\htmlId{main}{x}$",
    r"$\def\a{\a\a}\a$ $\unclosed{ $ \boxed{1 **bold** `<b>code</b>` ``` \[ \begin{align}",
    "[click](javascript:hacked()) <a href='javascript:hacked()'>click</a> <style>*{display:none}</style>",
    "__proto__ constructor ${hacked()} {{ hacked() }} {% raw %} \u202e reversed \u2028 \x00",
]


class HostileWriter(Writer):
    """A model that attacks the page with whatever it writes."""

    def _solution(self, problem: Problem, key: CallKey, prompt: str, dice: random.Random) -> str:
        return "\n\n".join([*HOSTILE, r"\boxed{<img src=x onerror=hacked()>}"])

    @staticmethod
    def _bank_reply(new: list[dict[str, Any]], field: str, prefix: str, prompt: str, dice: random.Random) -> str:
        attacks = [{**item, field: attack} for item, attack in zip(new, HOSTILE, strict=False)]
        return Writer._bank_reply(attacks, field, prefix, prompt, dice)


def in_thread(function: Callable[..., Path], *given: Any) -> Path:
    """What ``function`` returns. It has a thread of its own, since Playwright has a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *given).result()


def made(folder: Path, tasks: Sequence[Problem], method: MethodSettings, writer: Writer) -> Path:
    """A run in ``folder``."""
    in_thread(lambda: asyncio.run(make(folder, tasks, method, writer)))
    return folder


def reported(run: Path) -> Path:
    """Write the report of ``run`` next to the run, and return its path."""
    return in_thread(make_report, ReportSettings(runs=(run,), output=run.parent / "report.html"))


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium on this machine (Debian's package is chromium; CHROMIUM=PATH names another)")
    with browser(executable) as launched:
        yield launched


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    method = team.method(n_candidates=3, n_verifications=3, max_iterations=4)
    folder = tmp_path_factory.mktemp("runs") / "run"
    return made(folder, problems(6), method, Writer(seed=5, ability=-1.0, reasoning=300))


@pytest.fixture(scope="module")
def report(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two runs, the other one a narrower TMAS."""
    narrow = team.method(n_candidates=2, max_iterations=2)
    other = made(tmp_path_factory.mktemp("other") / "narrow", problems(6), narrow, Writer(seed=5))
    return in_thread(make_report, ReportSettings(runs=(run, other), output=run.parent / "both.html"))


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "run"
    return made(folder, problems(3), team.method(max_iterations=2), HostileWriter(seed=5))


@pytest.fixture
def watched(chrome: Any) -> Iterator[Watched]:
    watched = Watched(chrome, viewport={"width": 1280, "height": 900})
    yield watched
    watched.page.context.close()
    assert watched.troubles == []


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two training runs, one of them resumed and the other one without components."""
    folder = tmp_path_factory.mktemp("training")
    hybrid = make_training(folder / "hybrid", [range(1, 26), range(21, 41)])
    vanilla = make_training(folder / "vanilla", [range(1, 41)], hybrid=False, seed=1)
    return make_report(ReportSettings(training=(hybrid, vanilla), output=folder / "training.html"))


def test_every_tab_opens(watched: Watched, report: Path):
    page = watched.open(report)
    tabs = page.locator("nav.tabs a")
    seen = []
    for tab in tabs.all():
        tab.click()
        page.wait_for_selector(f'nav.tabs a[aria-current="page"]:has-text("{tab.inner_text()}")')
        watched.drawn()
        seen.append((tab.inner_text(), page.locator("main svg").count() > 0, page.locator("main table").count() > 0))
    assert seen == [
        ("Results", True, True),
        ("Cost and failures", True, True),
        ("Verifier", True, True),
        ("Boundary", True, True),
        ("Memory and modes", True, True),
        ("Problems", True, True),
        ("About", False, True),
    ]


def test_charts_answer_to_choice_legend_and_pointer(watched: Watched, report: Path):
    page = watched.open(report, "results")
    chart = page.locator("figure.chart").first
    assert chart.locator("g.series").count() == 2
    page.get_by_role("button", name="Majority vote").click()
    watched.drawn()
    chart = page.locator("figure.chart").first
    assert chart.locator("figcaption").inner_text() == "Majority vote by iteration"
    chart.locator("svg").hover(position={"x": 300, "y": 100})
    assert re.search(r"tmas.*\d %.*at \d", chart.locator(".tip").inner_text())
    chart.locator(".entry").first.click()
    assert chart.locator("g.series").count() == 1


def test_a_logarithmic_axis_has_any_positive_values(watched: Watched, report: Path):
    page = watched.open(report, "results")
    drawn = """values => {
        const { at, ticks } = scale(values, 0, 300, true, null);
        return [values.map((value) => Math.round(at(value))), ticks];
    }"""
    assert page.evaluate(drawn, [0.001, 0.01, 0, 1]) == [[0, 100, 0, 300], [0.001, 0.01, 0.1, 1]]
    assert page.evaluate(drawn, [1000, 100_000]) == [[0, 300], [1000, 10_000, 100_000]]
    places, ticks = page.evaluate(drawn, [0.03, 0.04])
    assert (places, len(ticks) > 1) == ([0, 300], True)


def test_the_list_of_problems_is_filtered_and_sorted(watched: Watched, report: Path, run: Path):
    lines = list(read_lines(run / "predictions.jsonl"))
    page = watched.open(report, "problems")
    rows = page.locator("table.problems tbody tr")
    assert rows.count() == len(lines)
    page.get_by_role("button", name="Wrong", exact=True).click()
    assert rows.count() == sum(line["correct"] == "different" for line in lines)
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("searchbox").fill("SYNTHETIC-004")
    assert rows.all_inner_texts()[0].startswith("synthetic-004")
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="Problem").click()
    assert rows.first.inner_text().startswith("synthetic-005")


def test_from_a_problem_down_to_the_exact_prompt_reply_and_reasoning(watched: Watched, report: Path, run: Path):
    call = next(
        call
        for call in read_calls(trace_path(run, "synthetic-002"))
        if call.key.role == "verification" and call.key.iteration == 1
    )
    page = watched.open(report, "problems")
    page.get_by_role("link", name="synthetic-002").click()
    page.locator(f'[data-at="1/c{call.key.index}"]').click()
    article = page.locator("article.call", has=page.locator(f'b:text-is("Verification {call.key.index}")')).first
    article.locator("> details > summary", has_text="Reply 0").click()
    reply = article.locator("> details").first
    page.wait_for_function("() => document.querySelectorAll('.katex').length > 0")
    reply.get_by_role("button", name="Source").first.click()
    completion = call.reply.completions[0]
    assert reply.locator("pre.source").first.text_content() == completion.text
    reasoning = reply.locator("details", has=page.locator("summary", has_text="Reasoning"))
    reasoning.locator("summary").click()
    reasoning.get_by_role("button", name="Source").click()
    assert reasoning.locator("pre.source").text_content() == completion.reasoning
    prompt = article.locator("> details").last
    prompt.locator("summary", has_text="Prompt").click()
    prompt.get_by_role("button", name="Source").click()
    assert prompt.locator("pre.source").text_content() == call.messages[0].content


def test_the_grid_shows_every_candidate_and_its_verdict(watched: Watched, report: Path, run: Path):
    [line] = [line for line in read_lines(run / "predictions.jsonl") if line["problem_id"] == "synthetic-001"]
    page = watched.open(report, "problems/0/1")
    page.wait_for_selector("table.grid")
    kinds = {"equal": "right", "different": "wrong", "undecided": "undecided", None: "none"}
    for t, iteration in enumerate(line["iterations"]):
        for candidate in iteration["candidates"]:
            shown = page.locator(f'[data-at="{t}/c{candidate["candidate"]}"]').get_attribute("class").split()
            state = "failed" if candidate["failure"] else kinds[candidate["correct"]]
            assert {state, candidate["mode"]} <= set(shown)


@pytest.mark.parametrize("kind", ["experience", "guideline"])
def test_a_bank_shows_what_an_iteration_changed(watched: Watched, report: Path, run: Path, kind: str):
    lines = list(read_lines(run / "predictions.jsonl"))
    n, t, change = next(
        (n, t, change)
        for n, line in enumerate(lines)
        for t, iteration in enumerate(line["iterations"])
        if (change := iteration[f"{kind}_change"]) and change["dropped"] + change["corrected"] and change["confirmed"]
    )
    page = watched.open(report, f"problems/0/{n}/{t}/{kind}")
    page.wait_for_selector("ul.changes")
    signs = {"added": "+", "corrected": "~", "confirmed": "✓", "merged": "=", "echoed": "=", "contradicted": "−"}
    signs |= {"dropped": "−", "refused": "×", "shortened": "…", "evicted": "−"}
    expected = [f"{sign} {item}" for name, sign in signs.items() for item in change.get(name, [])]
    assert page.locator("ul.changes > li > .chip").all_inner_texts() == expected
    assert page.locator("ul.changes del").count() == len(change["corrected"])
    bank = lines[n]["iterations"][t][f"{kind}_bank"]
    shown = page.locator("ul.items:not(.changes) > li .chip").all_inner_texts()
    assert [text.split()[0] for text in shown] == [item["item_id"] for item in bank]
    candidates = [candidate for iteration in lines[n]["iterations"] for candidate in iteration["candidates"]]
    uses = [sum(item["item_id"] in candidate.get("shown", ()) for candidate in candidates) for item in bank]
    texts = page.locator("ul.items:not(.changes) > li").all_inner_texts()
    found = [re.search(r"Shown to (\d+) candidate", text) for text in texts]
    assert [int(match[1]) if match else 0 for match in found] == uses


def test_an_address_that_leads_nowhere_still_shows_something(watched: Watched, report: Path):
    page = watched.open(report, "problems/9/9")
    page.wait_for_selector("main section.card")
    for address in ("nonsense", "problems/0/0/99/constructor", "problems/0/0/x/c99"):
        page.evaluate("document.querySelector('main').replaceChildren()")
        watched.go(address)
        page.wait_for_selector("main section.card")


def test_methods_without_banks_grades_or_calls_of_their_own_can_be_browsed(watched: Watched, tmp_path: Path):
    for name in ("rse", "self_refine", "majority_vote"):
        settings = METHODS[name].settings_type
        method = settings.model_validate({"name": name, "max_iterations": min(3, settings().max_iterations)})
        run = made(tmp_path / name / "run", problems(1), method, Writer(seed=1))
        page = watched.open(reported(run), "problems/0/0")
        depth = page.locator("table.grid thead th").count() - 1
        for panel in ("experience", "guideline", "calls", "c0", "c1", "c2"):
            watched.go(f"problems/0/0/{depth - 1}/{panel}")
            page.wait_for_selector(".panel h3")
        assert page.locator("table.grid tbody tr", has_text="bank").count() == (name == "rse")


def test_mathematics_is_rendered_with_the_pages_own_fonts(watched: Watched, report: Path):
    page = watched.open(report, "problems/0/0")
    page.wait_for_selector(".formula .katex")
    assert page.locator("code.tex").count() == 0
    assert page.evaluate("document.fonts.ready.then(() => document.fonts.check('16px KaTeX_Math'))")
    loaded = "[...document.fonts].filter(f => f.status === 'loaded').length"
    assert page.evaluate(loaded) > 0


def test_punctuation_after_a_formula_on_its_own_line_stays_with_it(watched: Watched, report: Path):
    page = watched.open(report)
    shown = """text => {
        const node = h("div", { class: "prose" }, prose(text));
        return [...node.childNodes].map((part) => part.textContent);
    }"""
    before, formula, after = page.evaluate(shown, "Thus\n\n$$y$$\n\n. Then it holds.")
    assert (before, formula[-2:], after) == ("Thus", "y.", "Then it holds.")
    assert page.evaluate(shown, "Thus $$y$$ holds.")[2] == " holds."


def test_texts_that_were_left_out_are_said_to_be(watched: Watched, run: Path, tmp_path: Path):
    small = in_thread(make_report, ReportSettings(runs=(run,), output=tmp_path / "small.html", max_mb=0))
    page = watched.open(small, "problems/0/0/0/c0")
    page.wait_for_selector("article.call")
    assert "Left out of this file" in page.locator("article.call").first.inner_text()
    command = page.locator("section.card code").first.inner_text()
    assert command == f"tmas report runs=[{run}] problems=[synthetic-000] max_mb=1000 output=problem.html"


def test_texts_that_tmas_view_leaves_out_are_said_to_be(watched: Watched, run: Path):
    with served_view(run, max_mb=0.001) as url:
        watched.allowed += (url,)
        page = watched.page
        page.goto(url)
        page.wait_for_selector("nav.tabs a:has-text('Problems')")
        watched.go("problems/0/0/0/c0")
        page.wait_for_selector("article.call")
        shown = page.locator("article.call").first.inner_text()
        assert re.search(r"Left out: [\d,]+ characters\..* start tmas view again with a larger max_mb", shown)
        assert "command above" not in shown
        page.goto("about:blank")


def test_training_curves_show_single_steps_their_mean_and_both_runs(watched: Watched, training: Path):
    page = watched.open(training)
    assert page.locator("nav.tabs a").all_inner_texts() == ["Training", "About"]
    chart = page.locator("figure.chart", has_text="Training accuracy, all rows")
    chart.locator("path.line").first.wait_for()
    assert chart.locator("g.series path.dots.faint").count() == chart.locator("g.series path.line").count() == 2
    assert chart.locator("g.series path.dots").first.get_attribute("d").count("M") == 40
    assert "dots: single steps, line: mean of up to 5" in chart.inner_text()
    chart.locator("svg").hover(position={"x": 200, "y": 100})
    assert re.search(r"hybrid \d[\d.]* % at \d+, line \d[\d.]* %", chart.locator(".tip").inner_text())
    chart.locator(".entry", has_text="hybrid").click()
    assert chart.locator("g.series").count() == 1
    page.get_by_role("group", name="Reward in training").get_by_role("button", name="guideline rows").click()
    novelty = page.locator("figure.chart", has_text="Training novelty, guideline rows")
    novelty.locator("path.line").first.wait_for()
    assert [line.get_attribute("d") != "" for line in novelty.locator("path.line").all()] == [True, False]
    page.get_by_role("group", name="Part").get_by_role("button", name="update_actor").click()
    part = page.locator("figure.chart", has_text="Seconds a step: update_actor")
    part.locator("path.line").first.wait_for()
    assert part.locator("path.dots:not(.faint)").count() == 2


def test_names_in_metrics_cannot_become_markup_or_script(watched: Watched, tmp_path: Path):
    attack = "<img src=x onerror=hacked()>"
    names = [f"val-core/{HOSTILE[0]}/acc/mean@1", f"reward/all/outcome/{attack}", f"timing_s/{attack}", "timing_s/step"]
    masked = {"reward/all/samples": 1.0, f"reward/all/novelty_masked/{HOSTILE[2]}": 1.0}
    for run in (attack, "other"):
        write(tmp_path / run, 1, [(1, {**dict.fromkeys(names, 0.5), **masked})], {"data": {attack: run}})
    runs = (tmp_path / attack, tmp_path / "other")
    page = watched.open(make_report(ReportSettings(training=runs, output=tmp_path / "page.html")))
    assert HOSTILE[2] in page.locator("main").inner_text()
    assert page.get_by_role("button", name=HOSTILE[0]).count() == 1
    watched.go("about").wait_for_selector("figure.table")
    assert f"data.{attack}" in page.locator("main").inner_text()
    assert page.locator("img, iframe, object, embed, link, base, form").count() == 0
    assert page.evaluate("Object.keys(window).includes('hacked')") is False


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_training_fits_the_window_in_light_and_dark(chrome: Any, training: Path, scheme: str, width: int):
    watched = Watched(chrome, color_scheme=scheme, viewport={"width": width, "height": 900})
    page = watched.open(training)
    for address in ("training", "about"):
        watched.go(address)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width, address
    page.context.close()
    assert watched.troubles == []


def test_model_text_cannot_become_markup_or_script(watched: Watched, tmp_path: Path):
    attack = "<img src=x onerror=hacked()>"
    task = Problem(problem_id=f'"{attack}', question="\n".join(HOSTILE), answer="</script><b>")
    method = team.method(n_candidates=2, n_verifications=2, max_iterations=2)
    page = watched.open(reported(made(tmp_path / attack, [task], method, HostileWriter(seed=1))))
    for address in (
        "results",
        "cost",
        "about",
        "problems",
        *(f"problems/0/0/1/{p}" for p in ("experience", "calls", "c0")),
    ):
        watched.go(address)
        page.wait_for_timeout(150)
    page.evaluate("document.querySelectorAll('article.call details').forEach(details => { details.open = true })")
    page.wait_for_timeout(300)
    page.get_by_role("button", name="Source").first.click()
    assert page.locator("img, iframe, object, embed, link, base, form").count() == 0
    assert page.locator("script:not([type])").count() == page.locator("style").count() == 1
    links = page.eval_on_selector_all("a", "links => links.map(link => link.getAttribute('href'))")
    assert [link for link in links if link and not link.startswith("#")] == []
    assert page.evaluate("Object.keys(window).includes('hacked')") is False
    assert HOSTILE[1] in page.locator("main").inner_text()
    assert page.locator("h2").inner_text().startswith(f'"{attack}')


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_it_fits_the_window_in_light_and_dark(chrome: Any, report: Path, scheme: str, width: int):
    watched = Watched(chrome, color_scheme=scheme, viewport={"width": width, "height": 900})
    page = watched.open(report)
    for address in ("results", "cost", "verifier", "memory", "problems", "about", "problems/0/0/1/c0"):
        watched.go(address)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width, address
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert (red + green + blue < 150) == (scheme == "dark")
    page.locator("button.theme").click()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") != scheme
    page.context.close()
    assert watched.troubles == []


def test_tmas_view_shows_a_run_that_grows_and_keeps_what_is_being_read(
    watched: Watched, hostile_run: Path, tmp_path: Path
):
    run = shutil.copytree(hostile_run, tmp_path / "run")
    lines = (run / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (run / "predictions.jsonl").write_bytes(b"")
    with served_view(run) as url:
        watched.allowed += (url,)
        page = watched.page
        page.goto(url)
        page.wait_for_selector("main .tiles >> text=0 of 3")
        (run / "predictions.jsonl").write_bytes(b"".join(lines[:2]))
        page.wait_for_selector("main .tiles >> text=2 of 3")
        page.wait_for_selector("nav.tabs a:has-text('Problems')")
        watched.go("problems")
        assert page.locator("table.problems tbody tr").count() == 2
        page.locator("table.problems tbody tr a").first.click()
        page.wait_for_selector("section.panel >> text=hacked()")
        opened = page.url
        (run / "predictions.jsonl").write_bytes(b"".join(lines))
        page.get_by_role("button", name="New data: show").click()
        page.wait_for_selector("section.panel >> text=hacked()")
        assert page.url == opened
        watched.go("problems")
        assert page.locator("table.problems tbody tr").count() == 3
        page.goto("about:blank")  # a page that asks a server which has ended writes an error to the console


def test_the_status_is_shown_first_although_the_report_has_come_before_it(watched: Watched, hostile_run: Path):
    page, reports = watched.page, list[str]()
    page.on("response", lambda response: reports.append(response.url) if response.url.endswith("/report") else None)
    page.route("**/status", lambda route: route.continue_() if reports else route.fulfill(status=304))
    with served_view(hostile_run) as url:
        watched.allowed += (url,)
        page.goto(url)
        page.wait_for_selector("main .tiles >> text=3 of 3")
        assert reports
        page.goto("about:blank")


def test_tmas_view_names_a_damaged_file_and_an_error_of_the_page(watched: Watched, run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "run")
    good = (copy / "predictions.jsonl").read_bytes()
    (copy / "predictions.jsonl").write_bytes(b"{}\n" + good)
    page, notice = watched.page, watched.page.locator("p.connection")
    with served_view(copy) as url:
        watched.allowed += (url,)
        page.goto(url)
        page.wait_for_selector("p.connection >> text=predictions.jsonl:1")
        assert notice.inner_text().startswith("The server answered with status 500: ")
        page.wait_for_selector("nav.tabs a:has-text('Report')")
        assert notice.count() == 1  # an answer about the report does not remove it
        watched.troubles.clear()  # the console has an error for each answer with status 500
        (copy / "predictions.jsonl").write_bytes(good)
        page.wait_for_selector("main .tiles >> text=6 of 6")
        assert notice.count() == 0
        page.wait_for_selector("nav.tabs a:has-text('Problems')")
        page.evaluate("() => { window.redraw = () => { throw new TypeError('no such tile'); }; }")
        (copy / "predictions.jsonl").write_bytes(b"".join(good.splitlines(keepends=True)[:5]))
        page.wait_for_selector("p.connection >> text=no such tile")
        assert "No connection" not in notice.inner_text()
        page.goto("about:blank")
    assert {trouble for trouble in watched.troubles if "500" not in trouble} == {"error: no such tile"}
    watched.troubles.clear()


@contextmanager
def served_view(run: Path, **changes: Any) -> Iterator[str]:
    """The URL of ``tmas view`` for ``run``, in a thread of its own."""
    url: Future[str] = Future()
    ended = threading.Event()

    async def serve() -> None:
        async with view_server(ViewSettings(run=run, every=1, **changes)) as found:
            url.set_result(found)
            await asyncio.to_thread(ended.wait)

    with ThreadPoolExecutor(1) as threads:
        serving = threads.submit(asyncio.run, serve())
        try:
            yield url.result()
        finally:
            ended.set()
            serving.result()
