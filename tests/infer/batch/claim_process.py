"""A process that takes claims when it is told to, for tests: asked on stdin, answers on stdout."""

import sys
from pathlib import Path

from infer.batch.claims import Claims

claims = Claims(Path(sys.argv[1]))
claims.set_blocks(int(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    command, *rest = line.split()
    answer = getattr(claims, command)(*map(int, rest))
    print(answer, flush=True)
