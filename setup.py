"""Builds the native CPU kernel, one shared library an instruction set; without a compiler the install goes on without.

The libraries have a plain C interface (no Python, no torch headers), which focal_plugin/kernels/native/call.py calls: one
wheel of a platform serves every Python. CC and CXX name another compiler.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sysconfig import get_platform

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NATIVE = Path('focal_plugin/kernels/native')
MATH = Path('focal_plugin/math')
FLAGS = [
    '-std=c++17',
    '-O3',
    '-g0',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-ffp-contract=off',  # one loop gives a value alone, another beside its derivative: the same bits
    '-fopenmp-simd',
    '-fvisibility=hidden',
    '-pthread',
]
FAMILIES = ['elementwise.cpp', 'rowwise.cpp']
INSTRUCTION_SETS = {'baseline': []}
if get_platform().endswith('-x86_64'):  # of what is built for: _PYTHON_HOST_PLATFORM names another machine
    INSTRUCTION_SETS['avx2'] = ['-mavx2', '-mfma', '-mf16c']
    INSTRUCTION_SETS['avx512'] = [
        *INSTRUCTION_SETS['avx2'],
        *('-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mprefer-vector-width=512'),
    ]
# FOCAL_PLUGIN_SANITIZE=avx2 builds this library alone, with sanitizers: tests/kernels/test_sanitizers.py runs it.
SANITIZE = os.environ.get('FOCAL_PLUGIN_SANITIZE')
# FOCAL_PLUGIN_NATIVE=required: a library that does not compile fails the install. tools/setup_env.sh asks for it, since an
# editable install would go on with the libraries of before.
OPTIONAL = os.environ.get('FOCAL_PLUGIN_NATIVE') != 'required'
if sys.platform == 'win32':
    INSTRUCTION_SETS = {}
    print(
        'focal_plugin: its native CPU kernel is written for GCC and Clang; on Windows PyTorch serves', file=sys.stderr
    )
SANITIZERS = ['-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all'] if SANITIZE else []


class BuildNative(build_ext):
    """Compiles variant.cpp once for each math/*.h, with the names on the command line."""

    def get_export_symbols(self, ext):
        return []

    def get_ext_filename(self, fullname):
        return os.path.join(*fullname.split('.')) + '.so'  # no tag of Python in it

    def build_extension(self, ext):
        flags = FLAGS + INSTRUCTION_SETS[ext.name.rsplit('_', 1)[1]] + SANITIZERS
        folder = os.path.join(self.build_temp, ext.name)

        def compiled(source, folder, macros=()):
            return self.compiler.compile(
                [str(NATIVE / source)],
                output_dir=folder,
                include_dirs=[str(NATIVE), str(MATH)],
                macros=list(macros),
                extra_postargs=flags,
            )

        def variant(header):
            name = header.stem
            macros = [('HEADER', f'"{header.name}"'), ('VARIANT', name), ('SYMBOL', f'focal_plugin_{name}')]
            return compiled('variant.cpp', os.path.join(folder, name), macros)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(compiled, source, folder) for source in FAMILIES]
            jobs += [pool.submit(variant, header) for header in sorted(MATH.glob('*.h'))]
            objects = [name for job in jobs for name in job.result()]
        target = self.get_ext_fullpath(ext.name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        self.compiler.link_shared_object(objects, target, extra_postargs=['-pthread', *SANITIZERS], target_lang='c++')


class TaggedWheel(bdist_wheel):
    """A wheel for every Python: of this platform where it holds a library, else of every platform."""

    def get_tag(self):
        libraries = self.get_finalized_command('build_ext').get_outputs()
        self.root_is_pure = not any(map(os.path.exists, libraries))
        return 'py3', 'none', super().get_tag()[2]


def extension(instruction_set):
    sources = [str(NATIVE / source) for source in (*FAMILIES, 'variant.cpp')]
    depends = [str(path) for folder in (NATIVE, MATH) for path in sorted(folder.glob('*.h'))]
    return Extension(
        f'focal_plugin.kernels.native.lib_{instruction_set}',
        sources,
        depends=depends,
        language='c++',
        optional=OPTIONAL,
    )


setup(
    # The configs live at the top, where mmdet's users look for them, and ship as data of the package.
    packages=[*find_packages(include=['focal_plugin', 'focal_plugin.*']), 'focal_plugin.configs'],
    package_dir={'focal_plugin.configs': 'configs'},
    package_data={
        'focal_plugin.configs': ['**/*.py', '**/*.md', '**/*.yml'],
        'focal_plugin': ['py.typed', '**/*.pyi'],
        'focal_plugin.math': ['*.h'],
        'focal_plugin.kernels.native': ['*.h', '*.cpp'],
        'focal_plugin.kernels.cuda': ['*.h', '*.cu'],
    },
    ext_modules=[extension(name) for name in INSTRUCTION_SETS if SANITIZE in (None, name)],
    cmdclass={'build_ext': BuildNative, 'bdist_wheel': TaggedWheel},
)
