"""The page with all its routes. :func:`lite.ui.serve.serve` puts it behind its guard."""

import atexit
import shutil
import tempfile
from pathlib import Path

import gradio as gr

from lite.ui.pages import chat, export, machine, new, pairs, rate, run, runs
from lite.ui.site import Site

PAGES = (
    (new, "New run", "new", True),
    (pairs, "Pairs", "pairs", True),
    (rate, "Rate", "rate", True),
    (chat, "Chat", "chat", True),
    (export, "Export", "export", True),
    (machine, "Machine", "machine", True),
    (run, "Run", "run", False),
)


def make_site(folder: Path, roots: tuple[Path, ...] = ()) -> Site:
    downloads = Path(tempfile.mkdtemp(prefix="lite-downloads-"))
    site = Site(folder, downloads, roots)
    atexit.register(shutil.rmtree, downloads, ignore_errors=True)
    atexit.register(site.chat.stop)
    return site


def build(site: Site) -> gr.Blocks:
    with gr.Blocks(title="lite", analytics_enabled=False, fill_width=True, delete_cache=(86400, 86400)) as page:
        gr.Navbar(main_page_name="Runs")
        runs.build(site, page)
    for module, name, path, listed in PAGES:
        with page.route(name, path, show_in_navbar=listed):
            gr.Navbar(main_page_name="Runs")
            module.build(site, page)
    return page
