"""The one thing pyproject.toml cannot say yet: C code that is left out where it does not compile.

Without it everything works, with torch's own kernels and the same results to the bit, but slower.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "sixfold.train.native.kernels",
            sources=["src/sixfold/train/native/kernels.c"],
            depends=[
                "src/sixfold/train/native/pool.inc",
                "src/sixfold/train/native/pool_bf16.inc",
                "src/sixfold/train/native/norm.inc",
                "src/sixfold/train/native/needs.inc",
            ],
            extra_compile_args=["-O3", "-Wno-psabi", "-ffp-contract=off"],
            optional=True,
        )
    ]
)
