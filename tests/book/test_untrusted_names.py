"""Names that come from others are shown as text, in every page and in the explorer."""

import pytest
from browsing import serving, watch
from conftest import PARAMETERS
from PIL import Image
from playwright.sync_api import Browser

from rfviz.book import batch, html
from rfviz.images import photographs
from rfviz.lab.run import Run, open_run

pytestmark = [pytest.mark.book, pytest.mark.browser, pytest.mark.thorough]

NASTY = "<img src=x onerror=alert(1)>"
OTHER = '$x_1$ & "quoted" <b>`*bold*`'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A book about a folder of images with such classes, one broken image with such a name among them."""
    folder = tmp_path_factory.mktemp("images") / "my <i>images</i>"
    pieces = photographs.load(64, classes=2)
    for part, images in (("train", pieces.train), ("val", pieces.evaluation)):
        for name, label in ((NASTY, 0), (OTHER, 1)):
            (folder / part / name).mkdir(parents=True)
            chosen = [i for i in range(len(images)) if images[i][1] == label][:8]
            for i in chosen:
                pixels = images[i][0][:, :64, :64].permute(1, 2, 0).contiguous().numpy()
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    (folder / "train" / NASTY / "<script>alert(2)<|script>.png").write_bytes(b"no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFVIZ_RUNS", str(tmp_path_factory.mktemp("runs")))
        overrides = {"images": str(folder), "epochs": 1, "repeats": 2}
        opened = open_run("smoke", **overrides)
        opened.progress = False
        batch.compute([opened])
        html.book(opened, {**PARAMETERS, "overrides": overrides}, batch.made_of([opened]))
        yield opened


@pytest.mark.parametrize("name", list(batch.sources()))
def test_no_page_runs_what_a_name_says(run: Run, browser: Browser, name: str) -> None:
    with serving(run.folder / "html") as home:
        page = browser.new_page()
        wrong = watch(page, home)
        page.goto(f"{home}{name}.html", wait_until="load")
        page.wait_for_timeout(200)
        assert wrong == []
        assert (
            page.locator("article img[src='x'], article b:has-text('bold'), article i:has-text('images')").count() == 0
        )
        page.close()


def test_the_explorer_shows_the_name_as_it_is(run: Run, browser: Browser) -> None:
    with serving(run.folder / "html") as home:
        page = browser.new_page()
        wrong = watch(page, home)
        page.goto(f"{home}explorer.html#resnet34/maxpool/18")
        words = page.locator(".rx-told")
        seen = set()
        for channel in range(20):
            page.get_by_label("Channel", exact=True).fill(str(channel))
            for button in page.locator(".rx-stimuli .rx-strip button").all()[:4]:
                button.click()
                seen.add(words.text_content().split("class: ")[1].removesuffix(". "))
        assert seen == {NASTY, OTHER}
        assert wrong == []
        page.close()


def test_a_page_tells_the_name_of_what_was_left_out(run: Run, browser: Browser) -> None:
    with serving(run.folder / "html") as home:
        page = browser.new_page()
        page.goto(f"{home}notebooks/01_training.html")
        page.get_by_text("How this page was made").click()
        left_out = page.locator(".how-made tr", has_text="images left out")
        assert "<script>alert(2)<|script>.png" in left_out.text_content()
        page.close()
