"""How an episode searches, and how much of what was found it shows."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

Count = Annotated[int, Field(ge=1)]


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"extra": "forbid", "strict": True})
class SearchSettings:
    """Search server and results; the defaults are the published numbers.

    Attributes:
        url: address of the search server; None where none is known yet.
        browse: have the pages of web results read.
        deadline_s: for one search, all attempts together.
        top_k_text, top_k_images: number of results shown.
        body_chars: titles and passages are cut to this length, with an ellipsis.
        page_chars: the same for parts of pages that were read.
    """

    url: str | None = None
    browse: bool = False
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    top_k_text: Count = 2
    top_k_images: Count = 1
    body_chars: Count = 320
    page_chars: Count = 1_000
