"""Labeling: from the form to a dataset, by keys, without a connection, by several people."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Request, Response, Route, expect

from tests.browser import upload_files
from tests.browser.browser_errors import BrowserErrors
from tests.browser.conftest import OpenPage
from tests.browser.service import Json, Service
from tests.browser.test_accessibility import FIND_OVERFLOW, PHONE

MIN_BUTTON = 44  # pixels, of a finger
LONG = "word " * 4_000  # 20,000 characters
ARABIC = "هذا نص طويل من اليمين إلى اليسار، مع رقم 42. " * 20
MARKUP = '<img src=x onerror="window.caught=1">'
UNREACHABLE = r"ERR_INTERNET_DISCONNECTED|ERR_CONNECTION_REFUSED"
HOLD_KEY = """(key) => document.body.dispatchEvent(
  new KeyboardEvent("keydown", {key, code: `Digit${key}`, repeat: true, bubbles: true}))"""
UNSENT = "Object.keys(localStorage).filter((key) => key.startsWith('labeling/')).length"

Create = Callable[..., str]


@pytest.fixture(scope="module")
def texts(idle: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of 60 short texts, without labels."""
    rows = [(f"Text number {i} is {word}.",) for i in range(30) for word in ("good", "bad")]
    return upload(idle, tmp_path_factory.mktemp("texts") / "pile.csv", rows)


@pytest.fixture
def create(idle: Service, texts: str, request: pytest.FixtureRequest) -> Create:
    """Create a project by the API; return its name. Its vectors stay queued: no worker runs."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:60].strip("-")

    def make(task: Json | None = None, *, dataset: str = "", **fields: Any) -> str:
        body = {"name": name, "dataset": dataset or texts, "labels": ["bad", "good"], **fields}
        idle.post("/v1/labeling", body | ({"task": task} if task else {}))
        return str(body["name"])

    return make


@pytest.fixture
def page(open_page: OpenPage, idle: Service) -> Page:
    return open_page(idle.url)


def upload(service: Service, path: Path, rows: Sequence[Sequence[str]], *columns: str) -> str:
    """Upload texts without labels; return the reference of the dataset."""
    upload_files.write(path, rows, columns or ("text",))
    pair = {"text_pair_column": columns[1]} if columns else {}
    ref: str = service.upload(path, path.stem, purpose="predict", **pair)["ref"]
    return ref


def open_texts(page: Page, name: str) -> None:
    page.goto(f"/labeling/{name}/label")
    expect(page.locator("#text")).to_be_visible()


def annotations(service: Service, name: str) -> list[Json]:
    """Return the annotations of a project, the newest first."""
    found: list[Json] = service.get(f"/v1/labeling/{name}/annotations", limit=100)["data"]
    return found


def matching(*patterns: str) -> list[re.Pattern[str]]:
    return [re.compile(each, re.DOTALL) for each in patterns]


def expect_saved(page: Page) -> None:
    expect(page.locator("#save-state")).to_have_text("All saved")


def label(page: Page, *keys: str) -> list[str]:
    """Press keys, each when the text before has gone; return the texts in order."""
    shown = []
    for key in keys:
        shown.append(page.locator("#text").inner_text())
        page.keyboard.press(key)
        expect(page.locator("#text")).not_to_have_text(shown[-1])
    return shown


def test_from_the_form_to_a_training(page: Page, idle: Service, texts: str) -> None:
    page.goto("/datasets/" + texts)
    page.get_by_role("link", name="Label these texts").click()
    expect(page.get_by_label("Texts", exact=True)).to_have_value(texts)
    page.get_by_label("Name").fill("from-the-form")
    page.get_by_role("textbox", name="Labels").fill("bad\n\ngood\n")
    page.get_by_role("button", name="Start labeling").click()
    page.wait_for_url("**/labeling/from-the-form/label")
    expect(page.locator("#text")).to_be_visible()
    expect(page.locator("#labels button")).to_have_text(matching("1.*bad", "2.*good"))
    shown = label(page, *"121")
    expect_saved(page)
    expect(page.locator("#progress")).to_contain_text("3 of 60 texts labeled")
    said = {each["text"]: each["label"] for each in annotations(idle, "from-the-form")}
    assert said == dict(zip(shown, ("bad", "good", "bad"), strict=True))
    page.get_by_role("link", name="from-the-form").click()
    expect(page.locator("#labels tbody tr")).to_have_text(matching("bad.*2", "good.*1"))
    page.get_by_role("button", name="Make a dataset").click()
    expect(page.get_by_role("dialog").get_by_label("Name")).to_have_value("from-the-form")
    page.keyboard.press("Enter")
    expect(page.locator("#made")).to_contain_text("3 rows")
    page.get_by_role("link", name="Train on it").click()
    expect(page.get_by_label("Dataset", exact=True)).to_have_value("from-the-form:1")


def test_a_button_pressed_before_its_script_has_loaded_works(page: Page, create: Create) -> None:
    open_texts(page, name := create())
    label(page, "1")
    expect_saved(page)
    pending: list[Route] = []
    page.route("**/labeling_project.js*", lambda route: pending.append(route))
    page.goto(f"/labeling/{name}", wait_until="commit")
    page.get_by_role("button", name="Make a dataset").click()
    [script] = pending
    script.continue_()
    expect(page.get_by_role("dialog").get_by_label("Name")).to_have_value(name)


def test_a_dataset_with_a_name_of_its_own(
    page: Page, idle: Service, create: Create, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(409, 422)
    open_texts(page, name := create())
    label(page, "1", "1")
    expect_saved(page)
    page.goto(f"/labeling/{name}")
    page.get_by_role("button", name="Make a dataset").click()
    field = page.get_by_label("Name")
    field.fill("Not a name")
    page.keyboard.press("Enter")
    expect(page.locator("#error-name")).to_contain_text("lowercase")
    expect(field).to_be_focused()
    field.fill("named-by-hand")
    page.get_by_role("button", name="Make it").click()
    expect(page.locator("#make-dataset-error")).to_contain_text("have the same label")
    page.get_by_role("button", name="Go back").click()
    rows = [each["row"] for each in annotations(idle, name)]
    path = f"/v1/labeling/{name}/texts/{rows[0]}"
    idle.client.request_json("PUT", path, json={"label": "good"})
    page.get_by_role("button", name="Make a dataset").click()
    expect(page.locator("#make-dataset-error")).to_be_empty()
    page.get_by_role("button", name="Make it").click()
    expect(page.locator("#made")).to_contain_text("named-by-hand:1")


def test_form_errors_are_shown_at_the_fields(
    page: Page, create: Create, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(409, 422)
    taken = create()
    page.goto("/labeling")
    name, start = page.get_by_label("Name"), page.get_by_role("button", name="Start labeling")
    for bad, message in (("", "lowercase"), (taken, "already")):
        name.fill(bad)
        start.click()
        expect(page.locator("#error-name")).to_contain_text(message)
        expect(name).to_have_attribute("aria-invalid", "true")
        expect(name).to_be_focused()
    name.fill("new-name")
    page.get_by_role("textbox", name="Labels").fill("same\nsame")
    start.click()
    expect(page.locator("#error-labels")).to_contain_text("distinct")
    page.get_by_text("More settings").click()
    page.get_by_role("textbox", name="Labels").fill("")
    page.get_by_label("Random share").fill("200")
    start.click()
    expect(page.locator("#error-random-share")).to_be_visible()


def test_undo_skip_and_keys_that_do_nothing(page: Page, idle: Service, create: Create) -> None:
    open_texts(page, name := create())
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    first, second, third = label(page, "1", "2", "s")
    label(page, "z")
    expect(page.locator("#text")).to_have_text(third)
    label(page, "z")
    expect(page.locator("#text")).to_have_text(second)
    expect(page.get_by_role("button", name="good")).to_have_class(re.compile("chosen"))
    assert label(page, "1", "2") == [second, third]
    expect_saved(page)
    fourth = page.locator("#text").inner_text()
    for key in ("9", "x", "Enter", "Control+1"):
        page.keyboard.press(key)
    page.evaluate(HOLD_KEY, "1")
    expect(page.locator("#text")).to_have_text(fourth)
    said = {each["text"]: each["label"] for each in annotations(idle, name)}
    assert said == {first: "bad", second: "bad", third: "good"}


def test_keys_can_be_switched_off(page: Page, create: Create) -> None:
    open_texts(page, create())
    page.get_by_text("Keys and options").click()
    page.get_by_label("Use these keys").uncheck()
    text = page.locator("#text").inner_text()
    page.keyboard.press("1")
    expect(page.locator("#text")).to_have_text(text)
    page.reload()
    expect(page.locator("#text")).to_have_text(text)  # the same annotator has it still
    page.keyboard.press("1")
    expect(page.locator("#text")).to_have_text(text)
    page.get_by_role("button", name="bad").click()
    expect(page.locator("#text")).not_to_have_text(text)


def test_offline_then_online(
    page: Page, idle: Service, create: Create, browser_errors: BrowserErrors
) -> None:
    browser_errors.expected.append(UNREACHABLE)
    open_texts(page, name := create())
    label(page, "1")
    expect_saved(page)
    page.context.set_offline(True)
    shown = label(page, *"2121")
    expect(page.locator("#save-state")).to_have_text("4 not yet saved")
    expect(page.locator("#sync-message")).to_contain_text("kept in this browser")
    assert len(annotations(idle, name)) == 1
    page.context.set_offline(False)
    expect_saved(page)
    expect(page.locator("#sync-problem")).to_be_hidden()
    newest_first = [(each["text"], each["label"]) for each in annotations(idle, name)[:4]]
    assert newest_first[::-1] == list(zip(shown, ("good", "bad", "good", "bad"), strict=True))


def test_a_closed_tab_loses_nothing(
    page: Page, idle: Service, create: Create, browser_errors: BrowserErrors
) -> None:
    browser_errors.expected.append(UNREACHABLE)
    open_texts(page, name := create())
    page.context.set_offline(True)
    shown = label(page, "1", "2", "z", "1")
    context = page.context
    page.close()
    context.set_offline(False)
    again = context.new_page()
    open_texts(again, name)
    expect_saved(again)
    said = {each["text"]: each["label"] for each in annotations(idle, name)}
    assert said == {shown[0]: "bad", shown[1]: "bad"}
    assert again.evaluate(UNSENT) == 0


@pytest.mark.parametrize("status", [503, 401])
def test_labels_wait_for_the_service_or_for_a_sign_in(
    status: int, page: Page, idle: Service, create: Create, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(status)
    open_texts(page, name := create(name=f"waits-{status}"))
    problem = {"detail": "Not now.", "code": "not_now"}
    page.route("**/texts/*", lambda route: route.fulfill(status=status, json=problem))
    label(page, "1", "2")
    expect(page.locator("#sync-message")).to_contain_text("Not now.")
    expect(page.locator("#save-state")).to_have_text("2 not yet saved")
    sign_in = page.get_by_role("link", name="Sign in")
    if status == 401:
        expect(sign_in).to_have_attribute("href", f"/sign-in?next=/labeling/{name}/label")
    else:
        expect(page.locator("#sync-message")).to_contain_text("Trying again.")
        expect(sign_in).to_be_hidden()
    page.unroute("**/texts/*")
    if status == 401:
        page.reload()  # as after the sign-in
    expect_saved(page)
    assert [each["label"] for each in annotations(idle, name)] == ["good", "bad"]


def test_a_rejected_label_is_kept_until_it_is_discarded(
    page: Page, idle: Service, create: Create, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(404, 422)
    open_texts(page, name := create())
    page.route("**/texts/*", lambda route: route.continue_(post_data='{"label": "unknown"}'))
    page.keyboard.press("1")
    problem = page.locator("#sync-problem")
    expect(problem).to_contain_text("was not saved")
    expect(problem).to_contain_text("'unknown' is not a label")
    expect(page.locator("#save-state")).to_have_text("1 not yet saved")
    page.unroute("**/texts/*")
    problem.get_by_role("button", name="Try again").click()
    expect_saved(page)
    idle.client.request("DELETE", f"/v1/labeling/{name}")
    page.keyboard.press("1")
    expect(problem).to_contain_text("There is no labeling project")
    problem.get_by_role("button", name="Discard this label").click()
    expect_saved(page)


def test_enter_presses_the_buttons_of_a_rejected_label(
    page: Page, idle: Service, create: Create, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(422)
    open_texts(page, name := create({"type": "multi_label"}))
    problem = page.locator("#sync-problem")
    for button in ("Try again", "Discard this label"):
        page.route("**/texts/*", lambda route: route.continue_(post_data='{"labels": ["x"]}'))
        page.locator("#text-panel").focus()
        label(page, "Enter")
        expect(problem).to_contain_text("was not saved")
        page.unroute("**/texts/*")
        problem.get_by_role("button", name=button).focus()
        page.keyboard.press("Enter")
        expect_saved(page)
    assert len(annotations(idle, name)) == 1


def test_two_people_get_different_texts(open_page: OpenPage, idle: Service, create: Create) -> None:
    name = create()
    shown: dict[str, list[str]] = {}
    pages = {annotator: open_page(idle.url) for annotator in ("ada", "grace")}
    for annotator, page in pages.items():
        open_texts(page, name)
        page.get_by_text("Keys and options").click()
        page.get_by_label("Your name").fill(annotator)
        page.get_by_label("Your name").press("Tab")
        expect(page.locator("#text")).to_be_visible()
        expect_saved(page)
    for annotator, page in pages.items():
        shown[annotator] = label(page, *"12121")
        expect_saved(page)
    assert not set(shown["ada"]) & set(shown["grace"])
    names = {each["text"]: each["annotator"] for each in annotations(idle, name)}
    for annotator, own in shown.items():
        assert {names[text].rpartition("/")[2] for text in own} == {annotator}
    pages["ada"].goto(f"/labeling/{name}")
    expect(pages["ada"].locator("#annotators tbody tr")).to_have_count(2)


def test_two_tabs_of_one_annotator_label_no_text_twice(
    page: Page, idle: Service, create: Create
) -> None:
    open_texts(page, name := create())
    open_texts(other := page.context.new_page(), name)
    assert page.locator("#text").inner_text() == other.locator("#text").inner_text()
    sent: list[str] = []

    def note(request: Request) -> None:
        if request.method == "PUT":
            sent.append(request.url)

    page.context.on("request", note)
    for tab, unused in ((page, other), (other, page), (page, other)):
        shown = label(tab, "1", "2")
        for text in shown:
            expect(unused.locator("#text")).not_to_have_text(text)
        expect(unused.locator("#text")).to_have_text(tab.locator("#text").inner_text())
    expect_saved(page)
    expect_saved(other)
    assert len(annotations(idle, name)) == len(sent) == len(set(sent)) == 6
    label(other, "z")  # back in this tab, and labeled in the other one after all
    undone = other.locator("#text").inner_text()
    assert undone != page.locator("#text").inner_text()


def test_a_text_that_was_labeled_elsewhere_is_gone_when_the_tab_is_shown_again(
    page: Page, idle: Service, create: Create
) -> None:
    open_texts(page, name := create())
    shown = page.locator("#text").inner_text()
    texts = idle.post(f"/v1/labeling/{name}/next", {"count": 1})["texts"]
    assert [each["text"] for each in texts] == [shown]
    path = f"/v1/labeling/{name}/texts/{texts[0]['row']}"
    idle.client.request_json("PUT", path, json={"label": "good"})
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#text")).not_to_have_text(shown)
    expect(page.locator("#text")).to_be_visible()


def test_nothing_is_rendered_while_nothing_changes(
    page: Page, idle: Service, create: Create
) -> None:
    name = create()
    polled: list[int] = []

    def note(response: Response) -> None:
        if response.url.endswith(f"/{name}"):
            polled.append(response.status)

    page.on("response", note)
    page.goto(f"/labeling/{name}")
    while len(polled) < 5:
        page.wait_for_timeout(500)
    assert polled[:2] == [200, 200]  # the page, and the first time that it is fetched again
    assert polled.count(304) >= len(polled) - 3  # once a minute in between
    path = f"/v1/labeling/{name}/texts/5"
    idle.client.request_json("PUT", path, json={"label": "good"})
    expect(page.locator("#progress")).to_contain_text("1 of 60 texts labeled")


def test_several_labels(page: Page, idle: Service, create: Create) -> None:
    open_texts(page, name := create({"type": "multi_label"}, labels=["a", "b", "c"]))
    shown = page.locator("#text").inner_text()
    for key in "123":
        page.keyboard.press(key)
    page.keyboard.press("2")
    pressed = page.locator("#labels [aria-pressed=true]")
    expect(pressed).to_have_count(2)
    expect(page.locator("#text")).to_have_text(shown)
    label(page, "Enter", "Enter")  # the second without labels
    expect(pressed).to_have_count(0)
    page.get_by_role("button", name="b", exact=False).first.click()
    page.keyboard.press("Enter")  # the button has the focus, and is not pressed again
    expect_saved(page)
    assert [each["labels"] for each in annotations(idle, name)] == [["b"], [], ["a", "c"]]
    label(page, "z")
    expect(pressed).to_have_text(matching("b"))


def test_a_number(page: Page, idle: Service, create: Create) -> None:
    open_texts(page, name := create({"type": "regression"}, labels=[]))
    number = page.get_by_label("Number")
    expect(number).to_be_focused()
    page.keyboard.type("many")
    page.keyboard.press("Enter")
    expect(page.locator("#number-error")).to_contain_text("Enter a number")
    expect(number).to_have_attribute("aria-invalid", "true")
    number.fill("12,345")  # as suggestions are shown
    page.keyboard.press("Enter")
    expect(page.locator("#number-error")).to_contain_text("Enter 12345 or 12.345")
    number.fill("3,5")
    label(page, "Enter", "s")
    page.keyboard.type("-1e3")
    label(page, "Enter", "z")
    expect(number).to_have_value("-1000")
    page.keyboard.press("Enter")
    expect_saved(page)
    said = annotations(idle, name)
    assert [each.get("value") for each in said if not each["skipped"]] == [-1000, 3.5]
    assert len(said) == 3


def test_pairs(page: Page, idle: Service, create: Create, tmp_path: Path) -> None:
    rows = [(f"Premise {i}.", f"Claim {i}.") for i in range(12)]
    dataset = upload(idle, tmp_path / "claims.csv", rows, "text", "claim")
    open_texts(page, create(dataset=dataset))
    number = page.locator("#text").inner_text().removeprefix("Premise ")
    expect(page.get_by_role("region", name="Second text")).to_have_text(f"Claim {number}")


def test_ordered_labels_keep_their_order(page: Page, create: Create) -> None:
    ranks = ["1 poor", "2 fair", "3 good"]
    open_texts(page, create({"type": "single_label", "ordered": True}, labels=ranks))
    buttons = page.get_by_role("group", name="Labels from lowest to highest").get_by_role("button")
    expect(buttons).to_have_text(matching("1 poor", "2 fair", "3 good"))
    page.keyboard.press("?")
    page.keyboard.type("2 so-so")
    page.keyboard.press("Enter")
    expect(buttons).to_have_text(matching("1.*1 poor", "2.*2 fair", "3.*2 so-so", "4.*3 good"))


def test_add_a_label(
    page: Page, open_page: OpenPage, idle: Service, create: Create, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(422)
    name = create(labels=[])
    other = open_page(idle.url)
    for each in (page, other):
        open_texts(each, name)
        expect(each.locator("#no-labels")).to_be_visible()
    page.keyboard.press("?")
    field = page.get_by_role("textbox", name="New label")
    expect(field).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#new-label-error")).not_to_be_empty()
    page.keyboard.type(MARKUP)
    page.keyboard.press("Enter")
    for each in (page, other):
        expect(each.locator("#labels button")).to_have_text(matching("1.*<img"))
        assert each.evaluate("window.caught") is None
    label(page, "1")
    expect_saved(page)
    assert annotations(idle, name)[0]["label"] == MARKUP


def test_more_labels_than_keys(page: Page, idle: Service, create: Create) -> None:
    open_texts(page, name := create(labels=[f"intent {i}" for i in range(60)]))
    shortcuts = page.locator("#labels button[aria-keyshortcuts]")
    expect(shortcuts).to_have_count(32)
    assert not {"q", "s", "z"} & {each.inner_text() for each in page.locator("#labels kbd").all()}
    label(page, "a")
    page.keyboard.press("/")
    page.keyboard.type("tent 57")
    expect(page.locator("#labels button:visible")).to_have_count(1)
    label(page, "Enter")
    expect(page.locator("#labels button:visible")).to_have_count(60)
    expect_saved(page)
    assert [each["label"] for each in annotations(idle, name)] == ["intent 57", "intent 9"]


def test_change_a_label(page: Page, idle: Service, create: Create) -> None:
    open_texts(page, name := create())
    (shown,) = label(page, "1")
    expect_saved(page)
    page.goto(f"/labeling/{name}")
    page.get_by_role("link", name="Change").click()
    expect(page.locator("#text")).to_have_text(shown)
    expect(page.locator("#reason")).to_have_text("You labeled this text before.")
    expect(page.get_by_role("button", name="bad")).to_have_class(re.compile("chosen"))
    label(page, "2")
    expect_saved(page)
    assert [each["label"] for each in annotations(idle, name)] == ["good"]
    label(page, "z")
    expect(page.locator("#text")).to_have_text(shown)
    expect_saved(page)
    assert [each["label"] for each in annotations(idle, name)] == ["bad"]  # as it was before


def test_no_text_is_left(page: Page, idle: Service, create: Create, tmp_path: Path) -> None:
    dataset = upload(idle, tmp_path / "few.csv", [("One.",), ("Two.",), ("Three.",)])
    open_texts(page, create(dataset=dataset))
    label(page, "1", "2")
    page.keyboard.press("1")
    expect(page.get_by_role("heading", name="No text is left")).to_be_visible()
    expect_saved(page)
    page.keyboard.press("z")
    expect(page.locator("#text")).to_be_visible()


@pytest.fixture(scope="module")
def odd(idle: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of texts that are long, from right to left, without spaces, or markup."""
    rows = [(text,) for text in (LONG, ARABIC, "x" * 3_000, MARKUP)]
    return upload(idle, tmp_path_factory.mktemp("odd") / "odd.csv", rows)


def test_odd_texts_fit_a_phone(
    open_page: OpenPage, idle: Service, create: Create, odd: str, tmp_path: Path
) -> None:
    labels = [f"label {i} {'long ' * i}" for i in range(12)] + ["تسليم"]
    name = create(dataset=odd, labels=labels)
    page = open_page(idle.url, viewport=PHONE, has_touch=True, is_mobile=True)
    open_texts(page, name)
    for number in range(4):
        page.screenshot(path=tmp_path / f"{number}.png")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], page.evaluate(FIND_OVERFLOW)
        assert page.evaluate("window.caught") is None
        text = page.locator("#text")
        if "نص" in text.inner_text():
            assert text.evaluate("(each) => getComputedStyle(each).direction") == "rtl"
        expect(page.locator("#skip")).to_be_in_viewport(ratio=1)
        expect(page.locator("#labels")).to_be_in_viewport(ratio=1)
        for button in page.locator("#controls button:visible").all():
            box = button.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= MIN_BUTTON, button.inner_text()
        page.locator("#labels button").nth(number).tap()
    expect(page.locator("#no-text-left")).to_be_visible()
    expect_saved(page)
