"""``nrh harmonise``: photos and folders of photos, one after the other; what goes wrong with one stops no other."""

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nrh_dist.engine import chosen
from nrh_dist.engine.notice import Notice, asked_by
from nrh_dist.engine.predict import Found, Harmoniser, load, read_mask_of, write, write_mask
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.photo import shown
from nrh_dist.photo.image import EXTENSIONS, Photo, is_text, open_photo
from nrh_dist.photo.writing import in_one_step

HOW_TO_GET_ONE = (
    "no checkpoint is known here: give --checkpoint with a run, a sweep, an exported folder or an .onnx file. "
    "nrh train makes one, nrh best RUNS names the best, which is remembered"
)
COMPARED_SIDE = 1200  # pixels, at most, of each picture
KINDS_TOLD = 5  # of the files in a folder that are not taken for photos


@dataclass(frozen=True)
class Wishes:
    """Options of the verb. ``mask``: a file for one photo, or a folder with a mask (NAME.png) for each.

    A photo whose result is there is a problem, unless it is to be replaced (``force``) or passed over (``skip``).
    """

    strength: float = 1.0
    mask: Path | None = None
    save_mask: bool = False
    compare: bool = False
    strip: bool = False
    force: bool = False
    skip: bool = False


class Task(NamedTuple):
    """A photo, and its place below the folder of the results."""

    photo: Path
    place: Path


class Files(NamedTuple):
    """What is written for one photo."""

    photo: Path
    mask: Path | None
    compared: Path | None


def harmonise(words: Sequence[Path], out: Path, checkpoint: str | None, wishes: Wishes, say: Say) -> bool:
    """Harmonise all photos of ``words`` into the folder ``out``; whether all went well.

    Names and sub-folders stay. A line for each photo, also for one that cannot be used. ``UserError``, before anything
    is written: no such photo, two files of one name, a photo that would be written over itself, no checkpoint, or a
    wish that the model cannot grant. Ctrl-C and SIGTERM let the photo at hand be finished; a second one ends at once.
    """
    tasks = [*listed(words, out, say)]
    _require_places(tasks, out, wishes)
    model = opened(checkpoint, say)
    _require_grantable(model, wishes, tasks)
    if wishes.skip:
        tasks = _without_result(tasks, out, wishes, say)
    done: list[str] = []
    with asked_by(signal.SIGINT, signal.SIGTERM) as asked:  # libvips would swallow the exception of Ctrl-C
        for task in tasks:
            if asked() != Notice.NONE:
                break
            done.append(_said(model, task, out, wishes, say))
    corrected, same, bad = (sum(one == kind for one in done) for kind in ("corrected", "same", "bad"))
    if len(tasks) > 1:
        say(f"{len(done)} photos: {corrected} corrected, {same} left as they are, {bad} with problems")
    if len(done) < len(tasks):
        left, first = len(tasks) - len(done), tasks[len(done)].photo
        raise UserError(f"interrupted: {left} photos are left, from {first} on; --skip-existing goes on there")
    return not bad


def opened(checkpoint: str | None, say: Say) -> Harmoniser:
    """The model that ``checkpoint`` means, or the one that was last chosen here. ``UserError`` where there is none."""
    if checkpoint is None:
        last = chosen.last()
        if last is None:
            raise UserError(HOW_TO_GET_ONE)
        say(f"with {last}, which was chosen last; --checkpoint names another")
        checkpoint = str(last)
    return load(checkpoint)


def listed(words: Sequence[Path], out: Path, say: Say) -> Iterator[Task]:
    """The photos that ``words`` mean: files, and whatever looks like a photo below folders, but for ``out``.

    Says which other kinds of files a folder holds.
    """
    for word in words:
        if word.is_dir():
            others: Counter[str] = Counter()
            found = [*_below(word, out, others)]
            if not found:
                raise UserError(f"{word} holds no photo: {', '.join(EXTENSIONS)} are looked for, in sub-folders too")
            if others:
                kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(KINDS_TOLD))
                say(f"{word}: not taken for photos: {kinds}{', ...' if len(others) > KINDS_TOLD else ''}")
            yield from found
        elif word.exists():
            yield Task(word, Path(word.name))
        else:
            raise UserError(f"there is no photo or folder at {word}")


def _below(folder: Path, out: Path, others: Counter[str]) -> Iterator[Task]:
    """The photos below ``folder``; ``others`` counts the other files by their extension."""
    own = out.resolve()
    for place, folders, names in os.walk(folder, onerror=_refuse):
        inside = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and (inside / name).resolve() != own)
        for name in sorted(name for name in names if not name.startswith(".")):
            if name.lower().endswith(EXTENSIONS):
                yield Task(inside / name, (inside / name).relative_to(folder))
            else:
                others[Path(name).suffix.lower() or "without an extension"] += 1


def _refuse(error: OSError) -> None:
    raise UserError(f"cannot look into {error.filename}: {error.strerror or error}")


def _require_places(tasks: Sequence[Task], out: Path, wishes: Wishes) -> None:
    if out.suffix.lower() in EXTENSIONS and not out.is_dir():
        raise UserError(f"-o {out} would be a folder, as photos keep their names: give a folder's name")
    if not is_text(out):
        raise UserError(f"-o {out} is not UTF-8: give another name")
    owners: dict[Path, Path] = {}
    for task in tasks:
        for path in filter(None, _files(task, out, wishes)):
            if path in owners:
                raise UserError(f"{owners[path]} and {task.photo} would both write {path}: give them one at a time")
            owners[path] = task.photo
            if path.resolve() == task.photo.resolve():
                raise UserError(f"{task.photo} would be written over itself: give another folder with -o")


def _without_result(tasks: Sequence[Task], out: Path, wishes: Wishes, say: Say) -> list[Task]:
    """The ``tasks`` of which a file is still to be written."""
    left = [task for task in tasks if not all(path.exists() for path in filter(None, _files(task, out, wishes)))]
    if len(left) < len(tasks):
        say(f"{len(tasks) - len(left)} of {len(tasks)} photos have their results: passed over")
    return left


def _files(task: Task, out: Path, wishes: Wishes) -> Files:
    target = out / task.place
    mask, compared = (target.with_name(f"{target.stem}-{name}") for name in ("mask.png", "compare.jpg"))
    return Files(target, mask if wishes.save_mask else None, compared if wishes.compare else None)


def _require_grantable(model: Harmoniser, wishes: Wishes, tasks: Sequence[Task]) -> None:
    network = model.network
    if network.needs_mask and wishes.mask is None:
        raise UserError(f"{network.origin} is a {network.name}, which needs the object's mask: give --mask")
    if wishes.save_mask and not network.detects:
        raise UserError(f"--save-mask: {network.origin} is a {network.name}, which does not say what it found")
    if wishes.mask and not wishes.mask.is_dir() and len(tasks) > 1:
        raise UserError(f"--mask {wishes.mask} is one mask, for {len(tasks)} photos: give a folder of NAME.png")


def _said(model: Harmoniser, task: Task, out: Path, wishes: Wishes, say: Say) -> str:
    """Do one photo and say how it went: "corrected", "same" or "bad"."""
    try:
        kind, line = _one(model, task, out, wishes)
    except UserError as error:
        kind, line = "bad", str(error)
    except OSError as error:
        kind, line = "bad", f"{task.photo}: {error.filename}: {error.strerror or error}"
    say(line)
    return kind


def _one(model: Harmoniser, task: Task, out: Path, wishes: Wishes) -> tuple[str, str]:
    files = _files(task, out, wishes)
    target = files.photo
    present = [path for path in files if path and path.exists() and not wishes.force]
    if present and not wishes.skip:
        raise UserError(f"{task.photo}: {present[0]} exists; --force replaces it, --skip-existing passes over it")
    photo = open_photo(task.photo)
    mask = read_mask_of(photo, _mask_path(wishes.mask, task)) if wishes.mask else None
    found = model.look(photo, mask)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {target.parent}: {error.strerror or error}") from None
    if target not in present:
        write(photo, found, target, wishes.strength, mask, wishes.strip)
    if files.mask and files.mask not in present:
        write_mask(photo, found, files.mask)
    if files.compared and files.compared not in present:
        compare(photo, target, found, files.compared)
    notes = "".join(f"; {note}" for note in notes_of(photo))
    if found.correction is None or wishes.strength == 0:
        why = "nothing that it would correct" if found.correction is None else "strength 0"
        if wishes.strip:
            return "same", f"{task.photo}: {why}, written without what it says about itself: {target}{notes}"
        return "same", f"{task.photo}: {why}, the same file: {target}"
    return "corrected", f"{task.photo}: corrected, {100 * found.share:.0f} % of the photo changes: {target}{notes}"


def compare(photo: Photo, target: Path, found: Found, out: Path) -> None:
    """Write before and after, and what was detected if the model says so, side by side as a JPEG."""
    before, after = (shown.preview(one, COMPARED_SIDE) for one in (photo.path, target))
    pictures = [before, after]
    if found.answer.mask is not None:
        pictures.append(shown.overlay(before, found.small, found.answer))
    with in_one_step(out) as partial:
        shown.beside(pictures).save(partial, "JPEG", quality=shown.QUALITY)


def notes_of(photo: Photo) -> list[str]:
    """What a person should know about how the file was treated."""
    notes = []
    if photo.is_cmyk:
        notes.append("its CMYK colours became sRGB")
    if photo.palette_or_bits:
        notes.append(f"its {photo.palette_or_bits} became channels of 8 bits")
    if photo.facts.has_more_pictures:
        notes.append("the other pictures in the file (depth, gain map) are not kept")
    return notes


def _mask_path(given: Path, task: Task) -> Path:
    return given / task.place.with_suffix(".png") if given.is_dir() else given
