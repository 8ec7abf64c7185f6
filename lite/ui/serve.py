"""Serve the page: loopback unless asked, with credentials where it is not, behind the guard."""

import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from lite.errors import LockError, PreconditionError, RecipeError
from lite.runs.journal import try_lock
from lite.ui.app import build, make_site
from lite.ui.guard import Guard
from lite.ui.pages import rate
from lite.ui.site import Site

HERE = Path(__file__).parent
LOOPBACK = ("127.0.0.1", "localhost", "::1")
FIRST_PORT, PORTS = 7860, 100
SHORTEST_PASSWORD = 12

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.indigo,
    neutral_hue=gr.themes.colors.slate,
    radius_size="md",
    font=["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
).set(  # the stylesheet's own names, so that one place decides both themes
    body_background_fill="var(--ground)", body_background_fill_dark="var(--ground)",
    body_text_color="var(--ink)", body_text_color_dark="var(--ink)",
    block_background_fill="var(--card)", block_background_fill_dark="var(--card)",
    block_label_background_fill="var(--card)", block_label_background_fill_dark="var(--card)",
    border_color_primary="var(--line)", border_color_primary_dark="var(--line)",
    block_border_color="var(--line)", block_border_color_dark="var(--line)",
    block_info_text_color="var(--dim)", block_info_text_color_dark="var(--dim)",
    block_radius="12px", block_shadow="none", button_large_radius="10px", button_small_radius="8px",
    input_background_fill="var(--ground)", input_background_fill_dark="var(--ground)",
    input_border_color="var(--line)", input_border_color_dark="var(--line)",
    checkbox_label_background_fill="var(--card)", checkbox_label_background_fill_dark="var(--card)",
    checkbox_label_border_color="var(--line)", checkbox_label_border_color_dark="var(--line)", checkbox_label_border_width="1px",
    button_primary_background_fill="var(--solid)", button_primary_background_fill_dark="var(--solid)",
    button_primary_background_fill_hover="var(--solid-hover)", button_primary_background_fill_hover_dark="var(--solid-hover)",
    button_primary_text_color="white", button_primary_text_color_dark="white",
    button_secondary_background_fill="var(--card)", button_secondary_background_fill_dark="var(--card)",
    button_secondary_background_fill_hover="var(--accent-soft)", button_secondary_background_fill_hover_dark="var(--accent-soft)",
    button_secondary_border_color="var(--line)", button_secondary_border_color_dark="var(--line)", button_border_width="1px",
    button_secondary_text_color="var(--ink)", button_secondary_text_color_dark="var(--ink)",
    link_text_color="var(--accent)", link_text_color_dark="var(--accent)",
)  # fmt: skip


@dataclass(frozen=True)
class Door:
    """How the page is reached. ``login``: name and password; it must be there if the page is open to others."""

    listen: bool = False
    share: bool = False
    port: int | None = None
    login: tuple[str, str] | None = None
    hosts: tuple[str, ...] = ()

    @property
    def open_to_others(self) -> bool:
        return self.listen or self.share

    @property
    def address(self) -> str:
        return "0.0.0.0" if self.listen else LOOPBACK[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts under which the page answers."""
        own = (socket.gethostname(), socket.getfqdn()) if self.listen else ()
        return (*LOOPBACK, *own, *(("*.gradio.live",) if self.share else ()), *self.hosts)


def read_login(file: Path) -> tuple[str, str]:
    """``name:password`` from the first line of a file."""
    try:
        name, colon, password = file.read_text(encoding="utf-8").partition("\n")[0].strip().partition(":")
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError("--auth-file", [f"{file} cannot be read: {e}"]) from e
    if not name or not colon or len(password) < SHORTEST_PASSWORD:
        raise RecipeError(
            "--auth-file", [f"{file}: one line `name:password` is needed, the password of {SHORTEST_PASSWORD} characters or more"]
        )
    return name, password


def make_login() -> tuple[str, str]:
    """A login with 192 random bits."""
    return "lite", secrets.token_urlsafe(24)


def free_port(door: Door) -> int:
    """The port that was asked for, or the first free one; a :class:`PreconditionError` if it is taken."""
    asked = [door.port] if door.port else range(FIRST_PORT, FIRST_PORT + PORTS)
    for port in asked:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((door.address, port))
            except OSError:
                continue
            return port
    raise PreconditionError(f"port {asked[0]} is in use by another program; choose another with --port, or leave it out")


def options(door: Door) -> dict[str, Any]:
    """What launch() is given; everything that Gradio would offer beyond the pages is switched off."""
    if door.open_to_others and door.login is None:
        raise RecipeError("lite ui", ["a page that others can reach needs a login"])
    guard = Middleware(Guard, hosts=door.names, addresses=door.listen)
    return {
        "server_name": door.address,
        "share": door.share,
        "auth": door.login,
        "theme": THEME,
        "css_paths": [HERE / "style.css"],
        "head": f"<style>{HERE.joinpath('nav.css').read_text(encoding='utf-8')}</style>{rate.KEYS}",
        "app_kwargs": {"openapi_url": None, "docs_url": None, "redoc_url": None, "middleware": [guard]},
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "ssr_mode": False,
        "max_file_size": "50mb",
        "state_session_capacity": 50,
        "show_error": False,
        "quiet": True,
    }


def open_page(site: Site, door: Door, *, port: int) -> tuple[gr.Blocks, str]:
    """The page, being served, and its address. It ends with the process, or with ``close()``."""
    page = build(site)
    _, local, shared = page.launch(server_port=port, prevent_thread_lock=True, **options(door))
    return page, shared or local


def serve(runs: Path, door: Door, *, roots: tuple[Path, ...] = (), browser: bool = False) -> None:
    """Serve until Ctrl-C. A page that is already serving these runs is told of with a :class:`LockError`."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise PreconditionError(f"{runs}: cannot be made ({e.strerror}); choose another place with --runs") from e
    made = door.open_to_others and door.login is None
    if made:
        door = Door(door.listen, door.share, door.port, make_login(), door.hosts)
    with (runs / ".ui").open("a+", encoding="utf-8") as note:
        if not try_lock(note.fileno()):
            note.seek(0)
            raise LockError(note.read().strip())
        page, address = open_page(make_site(runs, roots), door, port=free_port(door))
        note.truncate(0)
        note.write(address)
        note.flush()
        _greet(address, door if made else None)
        if browser:
            import webbrowser

            webbrowser.open(address)
        page.block_thread()


def _greet(address: str, made: Door | None) -> None:
    print(f"lite is at {address}  (Ctrl-C ends the page; runs go on)", file=sys.stderr, flush=True)
    if made and made.login:
        print(
            f"log in as {made.login[0]} with the password {made.login[1]}  (made for this start, shown once)", file=sys.stderr, flush=True
        )
