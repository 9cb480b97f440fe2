"""The endless sequence of rows that a stage trains on: several data sets by weight, each reshuffled
every time it is gone through.

Row i is a function of i, the seed and the sources alone: no state, no walk, nothing about hosts.
Which source row i comes from repeats with a period. With shares 50/25/17/8 a period has 100 rows
with exactly 50, 25, 17 and 8 of each, and inside it the rows are spread so that the first n rows of
the sequence hold, of every source, within less than one row of n times its share: the unit tasks of
a proportionate-fair schedule (Baruah, Cohen, Plaxton, Varvel 1996), where the k-th row of a source
with share w has its place in [floor(k / w), ceil((k + 1) / w)) and the earliest end goes first.
(Grain's own `mix` rounds weights to hundredths of the least one, and lets prefixes stray further.)
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from llama_jax.errors import InputError
from train.config import Source
from train.data.examples.example_row import ExampleRow
from train.data.manifest import RowKind
from train.data.packed_rows import PackedRows
from train.data.reference_log_probs import ReferencedRow
from train.data.row import Row

_MAX_PERIOD = 100_000
# Grain's shuffle has indices of 32 bits, and drops the higher ones without a word.
_MAX_ROWS = 1 << 32


class Mixture:
    """`mixture[i]` is row i of the sequence, for any i >= 0; safe from several threads at once.

    Attributes:
      row_length: tokens that a row predicts.
      kind: of the rows, the same in all sources.
      vocab_size, tokenizer_sha256: of the tokenizer, the same in all sources.
      sources: name -> its rows.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        row_length: int,
        seed: int,
        tokenizer_sha256: str | None = None,
        reference_sha256: str | None = None,
    ) -> None:
        """Args:
          sources: prepared folders and their weights. Shares with a period of over 100,000 rows are
            taken to one part in 100,000.
          row_length: what they must have been prepared with.
          seed: of the order within each source; 0 <= seed < 2**32.
          tokenizer_sha256: the tokenizer they must have been prepared with; None takes any, so long
            as it is the same for all.
          reference_sha256: of the model whose log-probabilities rows are to have; None for none.

        Raises `InputError` if they were not, if weights or names cannot be, if they are not of one
        kind, or if a source has over 2**32 rows.
        """
        import grain

        names = [source.name for source in sources]
        if not names or len(set(names)) != len(names):
            raise InputError(f"mixture: needs sources with names of their own, not {names}")
        if not 0 <= seed < 2**32:
            raise InputError(f"seed must be from 0 to {2**32 - 1}, not {seed}")
        self._names = names
        self._counts = _counts_per_period(sources)
        self._source_at, self._number_at = spread(self._counts)
        self.row_length = row_length
        self.sources: dict[str, PackedRows] = {}
        for source in sources:
            rows = PackedRows(
                source.path,
                row_length=row_length,
                tokenizer_sha256=tokenizer_sha256,
                reference_sha256=reference_sha256,
            )
            if len(rows) > _MAX_ROWS:
                raise InputError(
                    f"{source.path}: has {len(rows)} rows, and at most {_MAX_ROWS} of a source can "
                    "be shuffled; prepare it in several parts, each a source of its own"
                )
            tokenizer_sha256 = rows.manifest.tokenizer_sha256
            self.sources[source.name] = rows
        self.tokenizer_sha256 = tokenizer_sha256
        self.kind = _one_kind(sources, self.sources)
        for rows in self.sources.values():  # every row of a batch has arrays of the same shapes
            rows.slots = max(other.manifest.slots for other in self.sources.values())
        self.vocab_size = next(iter(self.sources.values())).manifest.vocab_size
        # Grain shuffles epoch e with seed + e; far seeds keep two sources of one length apart.
        seeds = np.random.SeedSequence(seed).generate_state(len(names))
        self._shuffled = [
            grain.MapDataset.source(rows).shuffle(seed=int(source_seed)).repeat()
            for rows, source_seed in zip(self.sources.values(), seeds, strict=True)
        ]

    def __getitem__(self, index: int) -> Row | ExampleRow | ReferencedRow:
        """Row `index` of the sequence."""
        source, number = self._place_of(index)
        return self._shuffled[source][number]

    def source_of(self, index: int) -> str:
        """Name of the source of row `index`."""
        return self._names[self._place_of(index)[0]]

    def rows_drawn(self, num_rows: int) -> dict[str, int]:
        """How many of the first `num_rows` rows come from each source. Divided by the length of the
        source it is how often the source has been gone through."""
        periods, rest = divmod(num_rows, len(self._source_at))
        partial = np.bincount(self._source_at[:rest], minlength=len(self._names))
        return {
            name: periods * count + int(extra)
            for name, count, extra in zip(self._names, self._counts, partial, strict=True)
        }

    def _place_of(self, index: int) -> tuple[int, int]:
        """The source of row `index`, and which of that source's rows it is."""
        if index < 0:
            raise IndexError(index)
        period, place = divmod(int(index), len(self._source_at))
        source = int(self._source_at[place])
        return source, period * self._counts[source] + int(self._number_at[place])


def _one_kind(sources: Sequence[Source], rows: Mapping[str, PackedRows]) -> RowKind:
    """Raises `InputError` if the sources are of several kinds."""
    kinds = {source.name: rows[source.name].manifest.kind for source in sources}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name} of {kind}" for name, kind in kinds.items())
        raise InputError(f"mixture: the sources must be of one kind, and they are {listed}")
    return kinds[sources[0].name]


def spread(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Spreads `counts[s]` rows of each source s evenly over a period of P = sum(counts) rows.

    Returns:
      The source at each place, int16 [P], and how many rows of that source came before, int32 [P].
    """
    period = sum(counts)
    source_at, number_at = np.zeros(period, np.int16), np.zeros(period, np.int32)
    upcoming = [(0, source) for source in range(len(counts))]  # a heap of (earliest place, source)
    ready: list[tuple[int, int]] = []  # a heap of (end of its places, source)
    numbers = [0] * len(counts)
    for place in range(period):
        while upcoming and upcoming[0][0] <= place:
            source = heapq.heappop(upcoming)[1]
            end = -(-(numbers[source] + 1) * period // counts[source])
            heapq.heappush(ready, (end, source))
        end, source = heapq.heappop(ready)
        source_at[place], number_at[place] = source, numbers[source]
        numbers[source] += 1
        if numbers[source] < counts[source]:
            heapq.heappush(upcoming, (numbers[source] * period // counts[source], source))
    return source_at, number_at


def _counts_per_period(sources: Sequence[Source]) -> list[int]:
    """Rows of each source in a period, in the proportion of the weights as they are written."""
    for source in sources:
        if not (math.isfinite(source.weight) and source.weight > 0):
            raise InputError(
                f"mixture: the weight of {source.name} must be more than 0, not {source.weight}; "
                "take the source out if it is not wanted"
            )
    weights = [Fraction(str(source.weight)) for source in sources]
    shares = [weight / sum(weights) for weight in weights]
    period = math.lcm(*(share.denominator for share in shares))
    if period <= _MAX_PERIOD:
        return [int(share * period) for share in shares]
    counts = [math.floor(share * _MAX_PERIOD) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda s: counts[s] - shares[s] * _MAX_PERIOD)
    for source in by_remainder[: _MAX_PERIOD - sum(counts)]:
        counts[source] += 1
    for source, count in zip(sources, counts, strict=True):
        if not count:
            raise InputError(
                f"mixture: the weight {source.weight} of {source.name} gives it less than one row "
                f"in {_MAX_PERIOD}; give it more or take it out"
            )
    return counts
