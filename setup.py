"""Builds the search kernels. Everything else about the package stands in pyproject.toml.

The extension is optional: where there is no C compiler, the same results come from numpy, more slowly.
"""

import sys

from setuptools import Extension, setup

# No fused multiply-add: it rounds once where numpy rounds twice, and scores must be equal bit for bit.
FLAGS = ["/O2", "/fp:precise"] if sys.platform == "win32" else ["-O3", "-ffp-contract=off", "-std=c99"]

setup(
    ext_modules=[
        Extension(
            "polylex._kernels",
            ["src/polylex/_kernels.c"],
            extra_compile_args=FLAGS,
            define_macros=[("Py_LIMITED_API", "0x030A0000")],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
