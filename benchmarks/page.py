"""docs/performance.md from the records in results/benchmarks; nothing is measured here, and no number is typed.

    python benchmarks/page.py [--check]"""
import argparse
import sys
from pathlib import Path

from turns import SHARE, met

from scoreguidance.files import read_json

ROOT = Path(__file__).resolve().parent.parent
ROWS = ('networks', 'classifiers', 'optimiser', 'loading', 'sampling', 'evaluations', 'judging', 'frechet', 'neighbours', 'parzen')
PAGE = ROOT/'docs'/'performance.md'
WORDS = {True: 'met', False: '**missed**', None: ''}


def number(v): return f'{v:,.0f}' if abs(v) >= 100 else f'{v:.3g}'


def spread(c, form, unit):
    "A ratio with its lowest and highest"
    one, lo, hi = (format(c[k], form) for k in ('ratio', 'lowest', 'highest'))
    return f'{one}{unit}' + ('' if lo == hi else f' ({lo} to {hi})')


def times(c): return f"{c['ratio']} evaluations" if c['kind'] == 'evaluations' else spread(c, '.2f', 'x')


def share(c): return '' if c['share'] is None else spread({k: 100*v for k, v in c['share'].items()}, '.0f', '%')


def target(c):
    if c['target'] is None: return ''
    if c['better'] == 'less': return f"at most {c['target']:g}{'' if c['kind'] == 'evaluations' else 'x'}"
    return 'no slower' + (f", {100*c['target']:.0f}% of the floor" if c['share'] else '')


def amount(v, c): return '' if v is None else f"{number(v)} {c['unit']}"


def said(c): return times(c) + (f", {share(c)} of the floor" if c['share'] else '')


def shown(r):
    "A record as lines for the terminal"
    out = [f"  same values: {a['what']}: {a['error']:.2g} (tolerance {a['tolerance']:g})" for a in r['agreement']]
    for c in r['claims']:
        out.append(f"  {c['what']}: {amount(c['ours'], c)} against {amount(c['theirs'], c)}: {said(c)}" +
                   (f", target {target(c)}: {WORDS[met(c)].strip('*')}" if c['target'] is not None else ''))
    return '\n'.join(out)


def table(r):
    "Claims of one record"
    head = ['| what | ours | peer | floor | beside the peer | share of the floor | target | |', '|---|---|---|---|---|---|---|---|']
    return '\n'.join(head + [f"| {c['what']} | {amount(c['ours'], c)} | {amount(c['theirs'], c)} | {amount(c['floor'], c)} | {times(c)} | "
                             f"{share(c)} | {target(c)} | {WORDS[met(c)]} |" for c in r['claims']])


def front(records):
    "What a user cares about, in five lines"
    have = {(r['name'], c['what']): c for r in records for c in r['claims']}

    def line(text, *keys, **more):
        cs = [have.get(k) for k in keys]
        return None if None in cs else '- ' + text(*cs)
    ratio = lambda c: f"{c['ratio']:.1f}"
    cost = lambda c: f"{number(c['ours'])} {c['unit']}"
    judged = ('judging', 'time'), ('judging', 'peak memory beyond the features'), ('frechet', 'time')
    lines = [
        line(lambda f, s: f"**Networks.** A forward pass of NCSN++ takes {cost(f)}, a training step {cost(s)}: {ratio(f)} and {ratio(s)} times as fast as diffusers.",
             ('networks', 'forward'), ('networks', "training step, theirs as in diffusers' example")),
        line(lambda a, b: f"**Classifiers.** Self-calibration and DLSM make a training step {ratio(a)} and {ratio(b)} times as long as cross-entropy alone.",
             *(('classifiers', f'encoder: CE+{k}, whole step, beside cross-entropy') for k in ('SC', 'DLSM'))),
        line(lambda h, m: f"**Sampling.** {m['ours']} evaluations of the network give what {m['theirs']:,} of the published predictor-corrector give, with DPM-Solver++ 2M; {h['ours']} with Heun.",
             ('evaluations', 'Gaussian of forty scales, error of scale, exact'), ('evaluations', '2M: Gaussian of forty scales, error of scale, exact')),
        line(lambda t, m, f: f"**Judging.** 10,000 samples in {cost(t)} and {cost(m)} for P, R, D, C ({ratio(t)} times as fast as prdc, and {m['theirs']/m['ours']:.0f} times "
             f"as small), and {cost(f)} for a Frechet distance ({ratio(f)} times as fast as scipy's root).", *judged),
        line(lambda d, n: f"**Feeding.** Images reach the network in {cost(d)}, {ratio(d)} times as fast as a DataLoader of one process; noised as well, {cost(n)}.",
             ('loading', 'drawn, mirrored, scaled'), ('loading', 'and noised, on both sides'))]
    return '\n'.join(v for v in lines if v)


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
             front(records),
             ('`make benchmarks` runs all of it again and rebuilds this page; `python benchmarks/run.py --only NAME` one row. '
             'Both sides live in one process on one thread and take turns. Times are processor seconds, ratios are taken within a '
             'round, and what stands here is their median, with the lowest and the highest round. Before anything is timed, '
             'both sides must give the same values. The *floor* is what this machine needs, in the same round, for the part of the work '
             'that nothing can do without; a judged row must not be slower than its peer, and its floor must be at least '
             f'{100*SHARE:.0f}% of its time. Where no floor is given, none was measured.'),
             f"Measured on: {'; '.join(places)}. Of {len(held)} judged rows {len(held) - len(bad)} reach this and {len(bad)} do not"
             + (':' if bad else '.')]
    if bad: parts.append('\n'.join(f"- {r['what']}, {c['what']}: {said(c)}" for r, c in bad))
    for r in records:
        title = r['what'][0].upper() + r['what'][1:]
        parts += [f'## {title}', f"Against {r['peer']}. {r['rounds']} rounds, load of the machine {' to '.join(f'{v[0]:.1f}' for v in r['load'])}, "
                  f"commit {r['hardware']['commit']}"
                  + (f"; {where(r)}" if len(places) > 1 else '') + f". [The record](../results/benchmarks/{r['name']}.json).",
                  table(r), f'The same values:\n\n{checks(r)}']
        if r.get('floor'): parts.append(f"The floor: {r['floor']}.")
        if r['note']: parts.append(r['note'])
    return '\n\n'.join(filter(None, parts)) + '\n'


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
