"""The commands that `long_context_405b` gives for its data make the folders that it reads."""

import re
import subprocess
import textwrap

from configs import long_context_405b as module
from configs.long_context_405b import long_context_405b

# Instead of preparing anything, say what would be: output, least and greatest number of tokens.
SAY = """llama-jax() {
  local least=0 greatest=none
  while (($#)); do
    case $1 in
      --output) output=$2 ;;
      --row-length) row=$2 ;;
      --min-tokens) least=$2 ;;
      --max-tokens) greatest=$2 ;;
    esac
    shift
  done
  echo "$row $output $least $greatest"
}
"""


def test_the_commands_make_every_folder_of_the_run():
    loop = textwrap.dedent(re.search(r"^    for row.*^    done$", module.__doc__, re.S | re.M)[0])
    said = subprocess.run(["bash", "-euc", SAY + loop], capture_output=True, text=True, check=True)
    made = {}
    for line in said.stdout.splitlines():
        row, output, least, greatest = line.split()
        assert output.startswith(f"data/{row}/KIND_to_")
        made.setdefault(int(row), {})[output] = (least, greatest)
    for stage in long_context_405b().stages:
        paths = {source.path.replace("general", "KIND") for source in stage.mixture}
        assert {path for path in paths if "KIND" in path} == set(made[stage.row_length])
    assert len(made) == 6 and sum(map(len, made.values())) == 21
    # Each document is in one bucket: each range begins after the one before.
    ranges = list(made[131_072].values())
    assert ranges[0][0] == "0" and ranges[-1][1] == "none"
    for (_, greatest), (least, _) in zip(ranges, ranges[1:], strict=False):
        assert int(least) == int(greatest) + 1
