"""`python mesh_command_process.py MEBIBYTES batch ...`: the command on a host with so much memory.

Prints the number of pages that its engine has.
"""

import os
import sys

from infer.engine import engine
from llama_jax.__main__ import main

mebibytes, *arguments = sys.argv[1:]
sysconf = os.sysconf


def memory_of_the_host(name):
    if name == "SC_AVPHYS_PAGES":
        return (int(mebibytes) << 20) // sysconf("SC_PAGE_SIZE")
    return sysconf(name)


class TellingScheduler(engine.Scheduler):
    def __init__(self, settings):
        super().__init__(settings)
        print("pages", settings.num_pages, flush=True)


os.sysconf = memory_of_the_host
engine.Scheduler = TellingScheduler
main(arguments)
