"""docs/performance.md from the records in results/benchmarks; nothing is measured here, and no number is typed.

    python benchmarks/page.py [--check]"""
import argparse
import sys
from pathlib import Path

from turns import met

from scoreguidance.files import read_json

ROOT = Path(__file__).resolve().parent.parent
ROWS = ('networks', 'classifiers', 'optimiser', 'loading', 'evaluations', 'judging', 'frechet', 'neighbours', 'parzen')
PAGE = ROOT/'docs'/'performance.md'
WORDS = {True: 'met', False: '**missed**', None: ''}


def number(v): return f'{v:,.0f}' if abs(v) >= 100 else f'{v:.3g}'


def times(c):
    "A ratio with its spread, or a count"
    if c['kind'] == 'evaluations': return f"{c['ratio']} evaluations"
    one = f"{c['ratio']:.2f}x"
    return one if c['lowest'] == c['highest'] else f"{one} ({c['lowest']:.2f} to {c['highest']:.2f})"


def target(c):
    if c['target'] is None: return ''
    unit = '' if c['kind'] == 'evaluations' else 'x'
    return f"{'at least' if c['better'] == 'more' else 'at most'} {c['target']:g}{unit}"


def amount(v, c): return f"{number(v)} {c['unit']}"


def shown(r):
    "A record as lines for the terminal"
    out = [f"  same values: {a['what']}: {a['error']:.2g} (tolerance {a['tolerance']:g})" for a in r['agreement']]
    for c in r['claims']:
        out.append(f"  {c['what']}: {amount(c['ours'], c)} against {amount(c['theirs'], c)}: {times(c)}" +
                   (f", target {target(c)}: {WORDS[met(c)].strip('*')}" if c['target'] is not None else ''))
    return '\n'.join(out)


def table(r):
    "Claims of one record"
    head = ['| what | ours | peer | ratio | target | |', '|---|---|---|---|---|---|']
    return '\n'.join(head + [f"| {c['what']} | {amount(c['ours'], c)} | {amount(c['theirs'], c)} | {times(c)} | {target(c)} | "
                             f"{WORDS[met(c)]} |" for c in r['claims']])


def checks(r):
    return '\n'.join(f"- {a['what']}: {a['error']:.2g} (tolerance {a['tolerance']:g})" for a in r['agreement'])


def where(r):
    h = r['hardware']
    return f"{h['cpu']}{f' ({vector})' if (vector := h.get('vector')) else ''}, {h['cores']} cores, one thread, Python {h['python']}, torch {h['torch']}, {h['system']}"


def page(records):
    "The whole page"
    held = [(r, c) for r in records for c in r['claims'] if c['target'] is not None]
    bad = [(r, c) for r, c in held if not met(c)]
    places = list(dict.fromkeys(map(where, records)))
    parts = ['# Speed', '> What the package costs beside the libraries that do the same work, one row for each, built from stored runs',
             '<!-- Built by benchmarks/page.py from results/benchmarks: edit that, not this file. -->',
             ('`make benchmarks` runs all of it again and rebuilds this page; `python benchmarks/run.py --only NAME` one row. '
             'Both sides live in one process on one thread and take turns. Times are processor seconds, ratios are taken within a '
             'round, and what stands here is their median, with the lowest and the highest round. Before anything is timed, '
             'both sides must give the same values.'),
             f"Measured on: {'; '.join(places)}. Of {len(held)} targets {len(held) - len(bad)} are met and {len(bad)} missed"
             + (':' if bad else '.')]
    if bad: parts.append('\n'.join(f"- {r['what']}, {c['what']}: {times(c)}, target {target(c)}" for r, c in bad))
    for r in records:
        title = r['what'][0].upper() + r['what'][1:]
        parts += [f'## {title}', f"Against {r['peer']}. {r['rounds']} rounds, load of the machine {' to '.join(f'{v[0]:.1f}' for v in r['load'])}, "
                  f"commit {r['hardware']['commit']}"
                  + (f"; {where(r)}" if len(places) > 1 else '') + f". [The record](../results/benchmarks/{r['name']}.json).",
                  table(r), f'The same values:\n\n{checks(r)}']
        if r['note']: parts.append(r['note'])
    return '\n\n'.join(parts) + '\n'


def build(store=ROOT/'results'/'benchmarks'):
    return page([read_json(f) for f in (store/f'{n}.json' for n in ROWS) if f.exists()])


def write():
    PAGE.write_text(build(), encoding='utf-8')
    return PAGE


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--check', action='store_true', help='write nothing; fail where the page is out of date')
    if p.parse_args().check: sys.exit(None if PAGE.read_text(encoding='utf-8') == build() else 'docs/performance.md is out of date')
    write()
