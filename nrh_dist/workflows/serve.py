"""``nrh serve``: a page on this machine alone, where a photo is dropped and comes back harmonised.

It listens on loopback, answers only under a loopback name (no other page can reach it by a name of its own), takes a
photo only from its own page, fetches nothing, and keeps the last photos in a temporary folder that is gone with it.
"""

import asyncio
import errno
import io
import json
import signal
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from urllib.parse import quote, unquote, urlsplit

import numpy as np
from aiohttp import web
from PIL import Image

from nrh_dist.data.images import ImageProblem
from nrh_dist.engine.predict import Found, Harmoniser, write
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.photo import shown
from nrh_dist.photo.image import Photo, open_photo
from nrh_dist.workflows.harmonise import notes_of, opened

HOST, NAMES = "127.0.0.1", ("127.0.0.1", "localhost")
PAGES = Path(__file__).parent / "pages"
FILES = {"/": "serve.html", "/serve.js": "serve.js", "/serve.css": "serve.css"}
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".jpg": "image/jpeg", ".png": "image/png"}
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BYTES_LIMIT, PIXEL_LIMIT = 128 << 20, 100_000_000
KEPT = 8  # photos
FROM_THE_PAGE = "X-From-Page"  # a header that pages of other origins cannot send
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Kept:
    """A photo that was sent: its name at home, what was found, and the pictures of it by their files' names."""

    name: str
    photo: Photo
    found: Found
    pictures: dict[str, bytes]


class Studio:
    """The photos of one session, and the model that looks at them; one at a time."""

    def __init__(self, model: Harmoniser, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.photos: OrderedDict[str, Kept] = OrderedDict()
        self.lock = asyncio.Lock()

    async def add(self, name: str, path: Path) -> dict[str, object]:
        """Harmonise the file ``path``; what the page is told of it. ``ImageProblem`` and ``UserError`` as the verb."""
        async with self.lock:
            kept = await asyncio.to_thread(self._harmonised, name, path)
        key = path.name
        self.photos[key] = kept
        while len(self.photos) > KEPT:
            gone, _ = self.photos.popitem(last=False)
            for file in self.folder.glob(f"{gone}*"):
                file.unlink(missing_ok=True)
        changed = kept.found.correction is not None
        share = f"{100 * kept.found.share:.0f} % of the photo changes"
        width, height = kept.photo.upright_size
        return {
            "photo": key,
            "name": name,
            "size": f"{width} × {height}",
            "changed": changed,
            "said": share if changed else "nothing that it would correct: the photo stays as it is",
            "notes": notes_of(kept.photo) if changed else [],
            "pictures": sorted(kept.pictures),
        }

    async def written(self, key: str, strength: float) -> Path:
        """The file of a photo that is kept, with ``strength`` of its change."""
        kept, out = self.photos[key], self.folder / f"{key}-{strength:.3f}"
        async with self.lock:
            await asyncio.to_thread(write, kept.photo, kept.found, out, strength)
        return out

    def _harmonised(self, name: str, path: Path) -> Kept:
        photo = open_photo(path, PIXEL_LIMIT)
        found = self.model.look(photo)
        out = self.folder / f"{path.name}-after"
        write(photo, found, out)
        before, after = shown.preview(path), shown.preview(out)
        pictures = {"before.jpg": before, "after.jpg": after}
        if found.answer.mask is not None:
            pictures["found.png"] = shown.tint(before.shape[1], before.shape[0], found.small, found.answer)
        return Kept(name, photo, found, {key: _encoded(key, one) for key, one in pictures.items()})


STUDIO = web.AppKey("STUDIO", Studio)


def serve(checkpoint: str | None, port: int, say: Say) -> None:
    """Answer on ``port`` (0: any) until a signal of ``ENDS``.

    ``UserError``: no checkpoint, one that needs a mask, a port in use.
    """
    model = opened(checkpoint, say)
    if model.network.needs_mask:
        raise UserError(
            f"{model.network.origin} is a {model.network.name}, which needs the object's mask: give another"
        )
    with TemporaryDirectory(prefix="nrh-serve-") as folder:
        try:
            asyncio.run(_serve(Studio(model, Path(folder)), port, say))
        except OSError as error:
            raise UserError(f"cannot listen on port {port}: {error.strerror or error}; --port names another") from None


async def _serve(studio: Studio, port: int, say: Say) -> None:
    runner = web.AppRunner(application(studio), access_log=None)
    await runner.setup()
    ended = asyncio.Event()
    for number in ENDS:  # all of them leave the folder of photos to be cleared away
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        address = runner.addresses[0]
        say(f"open http://{HOST}:{address[1]} (on this machine alone; Ctrl-C ends it)")
        await ended.wait()
    finally:
        await runner.cleanup()


def application(studio: Studio) -> web.Application:
    """The page and what it asks for."""
    app = web.Application(middlewares=[_guarded])
    app[STUDIO] = studio
    for place in FILES:
        app.router.add_get(place, _page)
    app.router.add_post("/photos", _take)
    app.router.add_get("/photos/{photo}/{picture}", _picture)
    app.router.add_get("/photos/{photo}", _download)
    return app


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only loopback's own names, problems as one line, and headers that let a browser trust nothing else."""
    if urlsplit(f"//{request.host}").hostname not in NAMES:
        return _problem(403, "this page answers on this machine alone")
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = _problem(error.status, error.reason)
    except (ImageProblem, UserError) as error:
        response = _problem(415, error.reason if isinstance(error, ImageProblem) else str(error))
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


async def _page(request: web.Request) -> web.Response:
    name = FILES[request.path]
    return web.Response(text=(PAGES / name).read_text(), content_type=TYPES[Path(name).suffix])


async def _take(request: web.Request) -> web.Response:
    """A photo as the body, its name in the header; streamed to the disk."""
    if FROM_THE_PAGE not in request.headers:
        raise web.HTTPForbidden(reason="photos are taken from this page alone")
    studio = request.app[STUDIO]
    path = studio.folder / token_urlsafe(16)
    try:
        await _received(request, path)
        return web.json_response(await studio.add(_name(request.headers[FROM_THE_PAGE]), path))
    except BaseException as error:  # also of who leaves while it sends
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise web.HTTPInsufficientStorage(reason=f"the disk of {studio.folder} is full: make room") from None
        raise


async def _received(request: web.Request, path: Path) -> None:
    """Write the body to ``path``, as far as it is not too large."""
    length = 0
    with path.open("wb") as file:
        async for block in request.content.iter_chunked(1 << 18):
            length += len(block)
            if length > BYTES_LIMIT:
                raise web.HTTPRequestEntityTooLarge(BYTES_LIMIT, length, reason=_too_large())
            file.write(block)


async def _picture(request: web.Request) -> web.Response:
    kept = _kept(request)
    picture = kept.pictures.get(request.match_info["picture"])
    if picture is None:
        raise web.HTTPNotFound(reason="there is no such picture")
    return web.Response(body=picture, content_type=TYPES[Path(request.match_info["picture"]).suffix])


async def _download(request: web.Request) -> web.StreamResponse:
    kept = _kept(request)
    try:
        strength = float(request.query.get("strength", "1"))
    except ValueError:
        strength = np.nan
    if not 0 <= strength <= 1:
        raise web.HTTPBadRequest(reason="strength goes from 0 to 1")
    path = await request.app[STUDIO].written(request.match_info["photo"], strength)
    disposition = f"attachment; filename*=UTF-8''{quote(kept.name)}"
    headers = {"Content-Disposition": disposition, "Content-Type": f"image/{kept.photo.format}"}
    return web.FileResponse(path, headers=headers)


def _kept(request: web.Request) -> Kept:
    studio = request.app[STUDIO]
    kept = studio.photos.get(request.match_info["photo"])
    if kept is None:
        raise web.HTTPNotFound(reason=f"that photo is not kept any more: the last {KEPT} are")
    return kept


def _name(header: str) -> str:
    """The last part of a file's name as the page tells it, percent-encoded."""
    return Path(unquote(header).replace("\\", "/")).name or "photo"


def _problem(status: int, line: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"problem": line}), content_type="application/json")


def _too_large() -> str:
    return f"the file is larger than {BYTES_LIMIT >> 20} MiB"


def _encoded(name: str, picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG" if name.endswith(".png") else "JPEG", quality=shown.QUALITY)
    return out.getvalue()
