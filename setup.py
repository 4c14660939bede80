"""Builds the search kernels. Everything else about the package stands in pyproject.toml.

The extension is optional: where there is no C compiler, the same results come from numpy, more slowly.
"""

import sys
import sysconfig

from setuptools import Extension, setup

# No fused multiply-add: it rounds once where numpy rounds twice, and scores must be equal bit for bit.
FLAGS = ["/O2", "/std:c11", "/fp:precise"] if sys.platform == "win32" else ["-O3", "-std=c11", "-ffp-contract=off"]

# One wheel for every Python from 3.10; the free-threaded builds have no stable ABI yet.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "polylex._kernels",
            ["src/polylex/_kernels.c"],
            extra_compile_args=FLAGS,
            define_macros=[("Py_LIMITED_API", "0x030A0000")] if STABLE else [],
            py_limited_api=STABLE,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if STABLE else {},
)
