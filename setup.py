"Package metadata, all of it read from settings.ini"
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

root = Path(__file__).resolve().parent
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

classifiers = {
    'status': {'3': 'Development Status :: 3 - Alpha', '4': 'Development Status :: 4 - Beta'}[cfg['status']],
    'audience': f"Intended Audience :: {cfg['audience']}",
    'language': f"Natural Language :: {cfg['language']}",
}
least = int(cfg['min_python'].split('.')[1])
pythons = [f'Programming Language :: Python :: 3.{v}' for v in range(least, 14)]
lib = cfg['lib_name']

setup(
    name=lib,
    version=cfg['version'],
    description=cfg['description'],
    long_description=(root/'README.md').read_text(encoding='utf-8') if (root/'README.md').exists() else '',
    long_description_content_type='text/markdown',
    author=cfg['author'],
    url=cfg['git_url'],
    keywords=cfg['keywords'],
    license_expression={'apache2': 'Apache-2.0'}[cfg['license']],
    classifiers=[*classifiers.values(), *pythons],
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require={k: cfg[f'{k}_requirements'].split() for k in ('dev', 'inception', 'hub', 'dask')},
    packages=find_packages(include=[lib, f'{lib}.*']),
    package_data={lib: ['py.typed', 'pretrained/*/*']},
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': [f'{lib}={lib}._modidx:d']},
    zip_safe=False,
)
