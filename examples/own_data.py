"""Train on videos of your own: lay frames, masks and questions out as OK-VOS does, and prepare them
as any other benchmark.

python examples/own_data.py QUESTIONS.json ROOT

QUESTIONS.json lists {"id", "question", "frames": folder of 00000.jpg, 00001.jpg, …, "masks": folder
of PNGs of the same names, "ability": "in-video" if no search is needed, "steps": the searches you
would make}; the last two may be left out.
"""

import json
import shutil
import sys
from pathlib import Path

from seg_research.cli.main import main
from seg_research.mini.writer import RAW_SCHEMA


def lay_out(questions: Path, root: Path) -> None:
    """Copy frames and masks under `root`, and write the table of questions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for question in json.loads(questions.read_text(encoding="utf-8")):
        name, frames = str(question["id"]), questions.parent / question["frames"]
        shutil.copytree(frames, root / "train" / "JPEGImages" / name, dirs_exist_ok=True)
        shutil.copytree(
            questions.parent / question["masks"],
            root / "train" / "Annotations" / name / "0",
            dirs_exist_ok=True,
        )
        row = {
            "id": name,
            "question": question["question"],
            "video": name,
            "oid": "0",
            "images": sorted(p.stem for p in frames.glob("*.jpg")),
        }
        rows.append(
            row
            | {"ability": question.get("ability", "one-hop"), "steps": question.get("steps", [])}
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=RAW_SCHEMA), root / "train.parquet")


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.exit(main(["data", "okvos", "--root", sys.argv[2], "--split", "train", *sys.argv[3:]]))
