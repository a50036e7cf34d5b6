"""What preparing needs to know of a data set of clips."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from data_pipelines.core import raw
from data_pipelines.sets._audio_video import media


@dataclasses.dataclass(frozen=True)
class Samples:
  """The samples of a download.

  Attributes:
    clips: {id: clip} of samples with files.
    problems: why there are no more.
    differences: of the lists from the published ones, one sentence each.
    notes: decisions that the user should know about, one sentence each.
    versions: {list: hash of its text}.
    few: ids of clips that can be decoded -> {id: split}, for when a split would
      be empty.
  """

  clips: dict[str, media.Clip]
  problems: list[raw.Defect]
  differences: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  few: Callable[[Sequence[str]], dict[str, str]] | None = None


class DataSet(Protocol):
  """The properties of one data set of clips.

  Attributes:
    name: of the data set.
    version: of the prepared data.
    rule: name of the rule of splitting, for messages.
    layout: what the raw folder should hold, for messages.
    expected: {class: clips} of the whole data set; empty if unknown.
    sizes: clips of the official splits; empty for other splits. Splits that are
      not named are held out of train and count as such.
  """

  @property
  def name(self) -> str: ...

  @property
  def version(self) -> str: ...

  @property
  def rule(self) -> str: ...

  @property
  def layout(self) -> str: ...

  @property
  def expected(self) -> Mapping[str, int]: ...

  @property
  def sizes(self) -> Mapping[str, int]: ...

  def identity(self) -> list[Any]:
    """All that the samples depend on besides the download, in JSON's types."""
    ...

  def samples(self, folder: pathlib.Path) -> Samples:
    """The samples of the download in ``folder``."""
    ...
