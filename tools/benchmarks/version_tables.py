"""The tables of what was seen beside which versions of others' packages, in Markdown, from the rows of their CSV files."""

from tools.benchmarks.tables import Row, groups, markdown

ON_GPU = 'on an NVIDIA GPU'


def hosts(rows: list[Row]) -> str:
    """How far a training step of OpenMMLab's other codebases is from that with the stock class."""
    columns = ('host', 'version', 'config', 'fused', 'loss', 'losses apart', 'gradients apart')
    header = ('codebase', 'version', 'config', 'fused', 'loss of the step', 'losses apart', 'gradients apart')
    versions = (f'{name} {rows[0][name]}' for name in ('python', 'torch', 'mmcv', 'mmdet', 'mmengine'))
    return (
        markdown(header, ([row.get(name, '') for name in columns] for row in rows))
        + f'\n\nBeside {", ".join(versions)}.'
    )


def triton_versions(rows: list[Row]) -> str:
    """A line per version: how many kernels compile for each architecture, and why others don't; what is right."""
    archs = list(dict.fromkeys(row['arch'] for row in rows))
    software, tested = 'executed in software', 'self-test, interpreted'
    lines = []
    for (version, calls, verdict), rows_here in groups(rows, 'triton', software, tested).items():
        counts = {row['arch']: f'{row["compiled"]} of {row["kernels"]}' for row in rows_here}
        cells = {row['arch']: ': '.join(filter(None, (counts[row['arch']], row['failed']))) for row in rows_here}
        passes = verdict if verdict == 'passes' else 'refused'
        lines.append([version, *(cells.get(arch, '-') for arch in archs), calls, passes])
    return markdown(['Triton', *archs, software, tested], lines)


def stacks(rows: list[Row]) -> str:
    """What was seen of the package beside each stack of versions."""
    names = ('python', 'torch', 'host', 'numpy', 'setuptools', 'triton', 'install', 'import', 'tests', 'training')
    lines = [[row[name] or '-' for name in (*names, ON_GPU)] for row in rows]
    return markdown([*names, ON_GPU], lines)


def serves(rows: list[Row]) -> str:
    """Which backend serves float32 logits on an NVIDIA GPU beside each stack."""
    lines = []
    for row in rows:
        if row[ON_GPU] == '-':
            continue
        host = 'onedl' if 'onedl' in row['host'] else 'mmdet'
        lines.append([row['python'], row['torch'], row['triton'] or 'none', host, row[ON_GPU]])
    return markdown(['Python', 'torch', 'its Triton', 'OpenMMLab', ON_GPU], lines)
