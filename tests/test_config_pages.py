"""What stands beside the configs: pages, the index, metafiles."""

import pytest
import yaml

from focal_plugin import losses
from focal_plugin.math import SPECS
from tests.configs import BOARDS, CONFIGS, FOLDER, ROOT, fused, parsed


def test_lists_are_complete():
    index = (FOLDER / 'README.md').read_text()
    folders = {path.parent for path in CONFIGS}
    for folder in folders:
        assert f']({folder.name}/README.md)' in index
        models = yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
        files = sorted(path.relative_to(ROOT).as_posix() for path in CONFIGS if path.parent == folder)
        assert sorted(model['Config'] for model in models) == files
        assert all(model['Config'].endswith(f'/{model["Name"]}.py') for model in models)
        readme = (folder / 'README.md').read_text()
        assert [path for path in CONFIGS if path.parent == folder and f']({path.name})' not in readme] == []


@pytest.mark.parametrize('folder', sorted(SPECS))
def test_variant_has_configs_and_a_page(folder):
    kind = losses.CLASSES[folder].__name__
    paths = [path for path in CONFIGS if path.parent.name == folder]
    using = [path for path in paths if any(loss.type == kind for _, loss in fused(parsed(path).model, ('model',)))]
    assert {path in BOARDS for path in using} == {True, False}
    models = yaml.safe_load((FOLDER / folder / 'metafile.yml').read_text())['Models']
    epochs = {path.stem: parsed(path).train_cfg.max_epochs for path in paths}
    assert {model['Name']: model['Metadata']['Epochs'] for model in models} == epochs
    row = next(line for line in (FOLDER / 'README.md').read_text().splitlines() if f'[{folder}]' in line)
    for text in (row, (FOLDER / folder / 'README.md').read_text()):
        assert kind in text
        assert f'https://arxiv.org/abs/{SPECS[folder].paper}' in text
