"""What a machine may lack of what Triton needs for its first launch on a GPU, and what the self-test is to say of it."""

import shutil
import sysconfig


def compile_module():
    """What Triton does at its first launch on a GPU: compiles a C extension."""
    try:
        from triton.runtime.build import compile_module_from_src
    except ImportError:  # Triton 3.3 and before
        from triton.backends.nvidia.driver import compile_module_from_src
    source = '#include <Python.h>\nstatic struct PyModuleDef it = {PyModuleDef_HEAD_INIT, "it", NULL, -1, NULL};\n'
    compile_module_from_src(source + 'PyMODINIT_FUNC PyInit_it(void) {return PyModule_Create(&it);}', 'it')


def no_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv('CC', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))


def no_headers(monkeypatch, tmp_path):
    paths = sysconfig.get_paths
    monkeypatch.setattr(sysconfig, 'get_paths', lambda **named: paths(**named) | {'include': str(tmp_path)})


def read_only_folder(monkeypatch, tmp_path):
    (tmp_path / 'a file').write_text('')
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path / 'a file' / 'cache'))


def failing_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv('CC', shutil.which('false'))


NO_LIBCUDA = {
    'not listed': 'assert False, \'Please make sure GPU is set up and then run "/sbin/ldconfig"\'',
    'ldconfig fails': "import subprocess; raise subprocess.CalledProcessError(1, ['/sbin/ldconfig', '-p'])",
    'no ldconfig': "raise FileNotFoundError(2, 'No such file or directory', '/sbin/ldconfig')",
}


def looking_for_libcuda(code):
    """What Triton's driver of NVIDIA's GPUs does before it builds anything, and what comes of it."""

    def spoil(monkeypatch, _):
        monkeypatch.setitem(globals(), 'compile_module', lambda: exec(code, {}))

    return spoil


MACHINES = {
    'no compiler': (
        no_compiler,
        r'built by a C compiler: install gcc, or name one in CC, or .* choose the cuda backend',
    ),
    'a compiler that is not there': (
        lambda patch, _: patch.setenv('CC', '/nonexistent'),
        r'which CC=/nonexistent is not: install gcc, or name one in CC',
    ),
    'no Python.h': (no_headers, r'Python.h is in none of .*: install the headers of this Python \(python3-dev'),
    'a compiler that fails': (
        failing_compiler,
        'message is printed above: mend that, name another in CC, or .* choose the cuda backend',
    ),
    **{
        f'no libcuda: {name}': (
            looking_for_libcuda(command),
            'libcuda.so.1 by .*ldconfig: name its folder in TRITON_LIBCUDA_PATH',
        )
        for name, command in NO_LIBCUDA.items()
    },
    'no folder to keep it in': (read_only_folder, 'Name a folder in TRITON_CACHE_DIR'),
}
