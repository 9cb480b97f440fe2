"""The files of a job, from its first start to its end; how a start, a resumption and an end differ.

Every step leaves files that the next start understands: the manifest comes first, then parts and
claims; the output takes its place by a rename, then the manifest says "finished", then the parts
go. See the package's docstring for the names.
"""

import dataclasses
import shutil
from pathlib import Path

from infer.batch.claims import Claims
from infer.batch.kept_rows import KeptRows, part_files
from infer.batch.manifest import Manifest, read_manifest, write_manifest
from infer.batch.merge import Totals, merge_parts
from infer.batch.part_file import read_part
from llama_jax.errors import InputError
from llama_jax.whole_file import sync_folder

_BLOCK_ROWS = 64  # at most; of a small job less, so that it has blocks for several processes


class Job:
    """One job in the file system.

    Attributes:
      output, errors: where the answers and the failures go.
      manifest: as it is now; of a finished job `manifest.finished` is set, and there are no claims.
      claims: see there; None for a job that is finished, or in a process that writes nothing.
    """

    def __init__(self, output: Path, errors: Path | None = None):
        self.output = output
        self.errors = errors or output.with_name(f"{output.name}.errors.jsonl")
        self.manifest_path = output.with_name(f"{output.name}.manifest.json")
        self.parts = output.with_name(f"{output.name}.parts")
        self.claims: Claims | None = None
        self.manifest: Manifest | None = None

    def check_paths(self, source: Path) -> None:
        """Raises `InputError` if the input is none, or the output cannot be written there."""
        if not source.is_file():
            raise InputError(f"{source}: there is no such file")
        for path in (self.output, self.errors):
            if path.is_dir():
                raise InputError(f"{path}: is a folder; name a file")
            if not path.parent.is_dir():
                raise InputError(f"{path}: its folder does not exist; make it first")
            if path.exists() and path.samefile(source):
                raise InputError(f"{path}: is the input; name another file")
        if self.output.resolve() == self.errors.resolve():
            raise InputError("--output-errors: is the output itself; name another file")

    def open(self, wanted: Manifest) -> Manifest:
        """Starts the job, or joins it, or goes on with it.

        Raises `InputError` if the files there are of another job.
        """
        while True:
            self.manifest = read_manifest(self.manifest_path)
            if self.manifest is None or self.manifest.finished is None:
                self.parts.mkdir(exist_ok=True)
                self.claims = Claims(self.parts / "claims")
                self.claims.lock_job()
                if not self.claims.is_in_place():  # the job was ended between the two lines
                    self.claims.close()
                    self.claims = None
                    continue
                self.manifest = read_manifest(self.manifest_path)
            break
        if self.manifest is None:
            self._check_free()
            write_manifest(self.manifest_path, wanted)
            self.manifest = wanted
        self.manifest.check_same(wanted, self.manifest_path)
        if self.manifest.finished is not None:
            self._check_whole()
            self._remove_parts()
        elif self.claims is not None:
            self.claims.set_blocks(-(-wanted.rows // self.block_rows))
            self.claims.unlock_job()
        return self.manifest

    @property
    def block_rows(self) -> int:
        """Rows that are claimed together; follows from the number of rows, so all agree."""
        return min(max(self.manifest.rows // 64, 1), _BLOCK_ROWS)

    def is_finished(self) -> bool:
        """Whether the job has come to its end, perhaps in another process."""
        self.manifest = read_manifest(self.manifest_path) or self.manifest
        return self.manifest.finished is not None

    def finish(self, order) -> bool:
        """Puts the output in its place if nobody has; to be called when all blocks are done.

        Args:
          order: the schedule, int64 `[rows]`.

        Returns:
          False if rows are missing from the parts after all: their blocks are open again.
        """
        self.claims.lock_job()
        try:
            if self.is_finished():
                return True
            found = merge_parts(self.parts, self.manifest.rows, self.output, self.errors)
            if not isinstance(found, Totals):
                places = {int(row): place for place, row in enumerate(order)}
                for block in {places[row] // self.block_rows for row in found}:
                    self.claims.reopen(block)
                return False
            self.manifest = dataclasses.replace(self.manifest, finished=dataclasses.asdict(found))
            write_manifest(self.manifest_path, self.manifest)
            self._remove_parts()
            return True
        finally:
            self.claims.unlock_job()

    def forget_if_unbegun(self) -> None:
        """Removes the job's files if no row was answered yet and no other process works on it, so
        that a start that came to nothing binds nobody to its options."""
        self.claims.lock_job()
        try:
            if not self.is_finished() and self.claims.are_all_mine() and not self._has_answers():
                self.manifest_path.unlink(missing_ok=True)
                self._remove_parts()
        finally:
            self.claims.unlock_job()

    def close(self) -> None:
        """Gives up what this process has claimed."""
        if self.claims is not None:
            self.claims.close()
            self.claims = None

    def kept_rows(self) -> KeptRows:
        """The rows that are finished so far."""
        kept = KeptRows(self.parts, self.manifest.rows)
        kept.look()
        return kept

    def _has_answers(self) -> bool:
        kept = (
            row
            for path in part_files(self.parts)
            for row, _ in read_part(path, num_rows=self.manifest.rows)
        )
        return any(row.kind == "output" for row in kept)

    def _check_free(self) -> None:
        for path in (self.output, self.errors):
            if path.exists():
                raise InputError(f"{path}: exists and is of no job; move it away or give another")
        if any(self.parts.glob("*.jsonl")):
            raise InputError(
                f"{self.parts}: holds rows of a job whose manifest is gone; move the folder away"
            )

    def _check_whole(self) -> None:
        if not self.output.exists():
            raise InputError(
                f"{self.output}: the job is finished, but its output is gone; remove "
                f"{self.manifest_path} to answer all rows again"
            )

    def _remove_parts(self) -> None:
        shutil.rmtree(self.parts, ignore_errors=True)
        sync_folder(self.output.parent)
