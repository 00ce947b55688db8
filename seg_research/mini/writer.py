"""Writing the benchmark to disk, in the layout of OK-VOS plus a knowledge base. The same arguments
give the same bytes (with the same versions of numpy, OpenCV, Pillow and Arrow), whatever the number
of processes.

Everything is drawn into a folder beside the target, which takes the target's name at the very end:
what stands under that name is whole.
"""

# pyarrow has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from seg_common.errors import UsageError
from seg_common.files import write_atomic
from seg_research.core.masks import write_mask
from seg_research.core.seeding import derive_seed
from seg_research.core.video import FramePosition
from seg_research.data.parallel import Progress, map_ordered
from seg_research.data.splits import SPLITS, Split
from seg_research.mini.folder import ANSWERS, IMAGES, MANIFEST, TEXT
from seg_research.mini.questions import Ability
from seg_research.mini.world import World, draw_world, render_image

VERSION = 2
"""Rises whenever the same seed gives other bytes than before."""
_QUESTIONS_PER_WORLD = len(Ability)
_JPEG_QUALITY = 92

RAW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        ("video", pa.string()),
        ("oid", pa.string()),
        ("images", pa.list_(pa.string())),
        ("ability", pa.string()),
        ("steps", pa.list_(pa.string())),
    ]
)
"""Columns of the raw rows; `steps` stands in every split here, in train only in OK-VOS."""


@dataclass(frozen=True, slots=True)
class MiniSizes:
    """Number of questions of each split; four share a clip."""

    train: int = 96
    val: int = 16
    test: int = 48

    def of(self, split: Split) -> int:
        """Return the number of questions of one split."""
        return {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}[split]


@dataclass(frozen=True, slots=True)
class MiniManifest:
    """What a benchmark folder holds.

    Attributes:
        content_sha256: digest over the path and the digest of every file but the manifest.
        new: False where the folder was already there and nothing was done.
    """

    version: int
    seed: int
    sizes: MiniSizes
    num_videos: int
    num_frames: int
    num_passages: int
    num_images: int
    num_bytes: int
    content_sha256: str
    new: bool = True


@dataclass(frozen=True, slots=True)
class _Job:
    seed: int
    split: Split
    index: int
    num_questions: int


@dataclass(frozen=True, slots=True)
class _Written:
    """What drawing one world left behind: digests by path, and rows for the tables that the worlds
    share.
    """

    split: Split
    num_frames: int
    num_bytes: int
    digests: dict[str, str]
    rows: list[dict[str, Any]]
    answers: list[dict[str, str]]
    passages: list[tuple[str, str]]
    images: list[tuple[str, str]]


def write_mini(
    out: Path,
    seed: int,
    sizes: MiniSizes,
    workers: int = 1,
    progress: Progress | None = None,
    *,
    force: bool = False,
) -> MiniManifest:
    """Write the benchmark, or find that it is already there.

    Args:
        out: folder to create; an empty one may exist.
        seed: fixes everything.
        sizes: questions of each split.
        workers: processes to draw with.
        progress: told about finished clips.
        force: delete a mini benchmark made with other arguments, and everything else in its folder,
            first.

    Raises:
        UsageError: the folder holds something else, or a mini benchmark made with other arguments;
            or the disk is full.
    """
    out = out.resolve()
    found = _found(out, seed, sizes, force=force)
    if found is not None:
        return found
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            manifest = _write_all(draft, seed, sizes, workers, progress)
            if out.exists():
                shutil.rmtree(out)
            draft.chmod(0o755)
            draft.rename(out)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise UsageError(
            f"{out}: cannot write ({error.strerror or error}); free some space or choose "
            "another folder, then run again"
        ) from error
    return manifest


def read_manifest(folder: Path) -> MiniManifest | None:
    """Read the manifest of a folder; None where there is none that this version understands."""
    path = folder / MANIFEST
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # Folders that were drawn before the field was renamed stay readable.
        content.setdefault("num_images", content.pop("num_pictures", None))
        content |= {"sizes": MiniSizes(**content["sizes"]), "new": False}
        return MiniManifest(**content)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _found(out: Path, seed: int, sizes: MiniSizes, *, force: bool) -> MiniManifest | None:
    if not out.exists():
        return None
    if not out.is_dir():
        raise UsageError(f"{out}: is a file; --out must be a folder")
    if not any(out.iterdir()):
        return None
    manifest = read_manifest(out)
    if manifest is None:
        raise UsageError(f"{out}: not empty, and not a mini benchmark; choose a new folder")
    if (manifest.version, manifest.seed, manifest.sizes) == (VERSION, seed, sizes):
        return manifest
    if not force:
        raise UsageError(
            f"{out}: holds a mini benchmark with seed {manifest.seed}, {_told(manifest.sizes)} "
            f"(version {manifest.version}), "
            f"not seed {seed}, {_told(sizes)} (version {VERSION}); choose another folder, or "
            "replace it with --force"
        )
    return None


def _told(sizes: MiniSizes) -> str:
    return f"{sizes.train}/{sizes.val}/{sizes.test} questions"


def _write_all(
    folder: Path, seed: int, sizes: MiniSizes, workers: int, progress: Progress | None
) -> MiniManifest:
    jobs = [job for split in SPLITS for job in _jobs(seed, split, sizes.of(split))]
    written = list(map_ordered(partial(_write_world, folder), jobs, workers, progress))
    digests = {path: digest for world in written for path, digest in world.digests.items()}
    num_bytes = sum(world.num_bytes for world in written)
    for path, content in _shared_files(written):
        write_atomic(folder / path, content)
        digests[path] = _digest(content)
        num_bytes += len(content)
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    manifest = MiniManifest(
        version=VERSION,
        seed=seed,
        sizes=sizes,
        num_videos=len(written),
        num_frames=sum(world.num_frames for world in written),
        num_passages=sum(len(world.passages) for world in written),
        num_images=sum(len(world.images) for world in written),
        num_bytes=num_bytes,
        content_sha256=_digest(lines.encode()),
    )
    content = {key: value for key, value in asdict(manifest).items() if key != "new"}
    write_atomic(folder / MANIFEST, json.dumps(content, indent=2) + "\n")
    return manifest


def _jobs(seed: int, split: Split, num_questions: int) -> Iterator[_Job]:
    for index, start in enumerate(range(0, num_questions, _QUESTIONS_PER_WORLD)):
        yield _Job(seed, split, index, min(_QUESTIONS_PER_WORLD, num_questions - start))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_world(folder: Path, job: _Job) -> _Written:
    """Draw one world and write its frames, masks and images."""
    import cv2

    cv2.setNumThreads(1)
    world = draw_world(job.seed, job.split, job.index)
    questions = world.questions[: job.num_questions]
    paths = _write_clip(
        folder, job.split, world, sorted({question.target for question in questions})
    )
    for image in world.images:
        path = folder / "local_KB" / "images" / f"{image.subject}.jpg"
        write_atomic(
            path,
            _jpeg(
                Image.fromarray(
                    render_image(image.look, derive_seed(job.seed, "picture", image.subject))
                )
            ),
        )
        paths.append(path)
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    stems = [f"{frame_id:05d}" for frame_id in world.frame_ids]
    return _Written(
        split=job.split,
        num_frames=len(stems),
        num_bytes=sum(map(len, contents.values())),
        digests={path: _digest(content) for path, content in contents.items()},
        rows=[
            {
                "id": f"{world.video}_{number}",
                "question": question.text,
                "video": world.video,
                "oid": str(question.target + 1),
                "images": stems,
                "ability": str(question.ability),
                "steps": list(question.steps),
            }
            for number, question in enumerate(questions)
        ],
        answers=[
            {
                "id": f"{world.video}_{number}",
                "target": world.cast[question.target].look.words,
                "clue": question.clue,
            }
            for number, question in enumerate(questions)
        ],
        passages=[(passage.title, passage.text) for passage in world.passages],
        images=[(image.subject, image.caption) for image in world.images],
    )


def _write_clip(folder: Path, split: Split, world: World, targets: Sequence[int]) -> list[Path]:
    """Write frames, and for every target a mask of every frame (empty where it is not seen)."""
    paths: list[Path] = []
    for position, frame_id in enumerate(world.frame_ids):
        rendering = world.render(FramePosition(position))
        frame_path = folder / split / "JPEGImages" / world.video / f"{frame_id:05d}.jpg"
        write_atomic(frame_path, _jpeg(Image.fromarray(rendering.rgb_HWC)))
        paths.append(frame_path)
        for target in targets:
            mask_path = (
                folder
                / split
                / "Annotations"
                / world.video
                / str(target + 1)
                / f"{frame_id:05d}.png"
            )
            write_mask(mask_path, rendering.labels_HW == target + 1)
            paths.append(mask_path)
    return paths


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _shared_files(written: Sequence[_Written]) -> Iterator[tuple[str, bytes]]:
    """Yield the tables that list all worlds: raw rows of each split, text and image collections of
    all splits together.
    """
    for split in SPLITS:
        rows = [row for world in written if world.split is split for row in world.rows]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=RAW_SCHEMA), buffer)
        yield f"{split}.parquet", buffer.getvalue()
    yield ANSWERS, _jsonl([answer for world in written for answer in world.answers])
    passages = sorted(passage for world in written for passage in world.passages)
    texts = [
        {"id": number, "contents": f"{title}\n{text}"}
        for number, (title, text) in enumerate(passages)
    ]
    yield TEXT, _jsonl(texts)
    images = sorted(image for world in written for image in world.images)
    images = [
        {
            "id": number,
            "name": caption,
            "filename": f"{subject}.jpg",
            "image_path": f"images/{subject}.jpg",
        }
        for number, (subject, caption) in enumerate(images)
    ]
    yield IMAGES, _jsonl(images)


def _jsonl(records: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode(
        "utf-8"
    )
