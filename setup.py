"""The one thing pyproject.toml cannot say yet: C code that is left out where it does not compile.

Without it everything works, slower, with torch's own kernels: the same results to the bit, but for
convolutions of some shapes (`sixfold.training.native.winograd` and `.conv_weights`).
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "sixfold.training.native.kernels",
            sources=["src/sixfold/training/native/kernels.c"],
            depends=[
                "src/sixfold/training/native/pool.inc",
                "src/sixfold/training/native/pool_bf16.inc",
                "src/sixfold/training/native/norm.inc",
                "src/sixfold/training/native/conv.inc",
                "src/sixfold/training/native/product.inc",
                "src/sixfold/training/native/winograd.inc",
                "src/sixfold/training/native/needs.inc",
            ],
            extra_compile_args=["-O3", "-g0", "-Wno-psabi", "-ffp-contract=off"],
            optional=True,
        )
    ]
)
