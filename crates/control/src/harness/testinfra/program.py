#!/usr/bin/python3
"""Runs pytest with the server under test as testinfra's host."""
import sys

sys.dont_write_bytecode = True
try:
    import pytest
    import testinfra
except ImportError as error:
    print(error)
    sys.exit(97)

sys.exit(
    pytest.main(
        [
            "-p",
            "kiln_testinfra",
            "-p",
            "no:cacheprovider",
            "--rootdir=suite",
            "--hosts=kiln://server",
            "--junitxml=report.xml",
            *sys.argv[1:],
        ]
    )
)
