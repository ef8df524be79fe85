"The documentation: it builds, nothing in it leads nowhere, and claims about lines of code are counted"
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'scripts'))
import docs  # noqa: E402

words = dict(one=1, two=2, three=3, four=4, five=5, ten=10)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('site')/'pages'
    run = subprocess.run([sys.executable, root/'scripts'/'docs.py', out], capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stdout + run.stderr
    return out


def test_every_notebook_module_and_page_is_there(site):
    pages = {p.name for p in site.glob('*.html')}
    want = {docs.page(f) for f, *_ in docs.chapters()} | {'index.html', 'overview.html', 'api.html'}
    want |= {f'{f.stem}.html' for f in (root/'docs').glob('*.md')}
    lib = root/'scoreguidance'
    want |= {f'api-{f.stem}.html' for f in lib.glob('*.py') if f.stem[0] != '_'}
    assert pages == want


def test_chapters_have_subtitles():
    assert [f.name for f, title, sub in docs.chapters() if not title or not sub] == []


def test_links_are_checked(site):
    "A link, an anchor and an image that lead nowhere are all found"
    assert list(docs.broken(site)) == []
    (site/'extra.html').write_text('<a href="no.html"></a> <a href="faq.html#no"></a> <img src="figures/no.png">')
    assert len(list(docs.broken(site))) == 3
    (site/'extra.html').unlink()


def test_signatures_carry_the_comments(site):
    page = (site/'api-guide.html').read_text()
    assert 'class of each row [b]' in page and 'gradient of log p(y given x)' in page


def test_formulas_are_mathml(site):
    assert (site/'score.html').read_text().count('<math') > 5
    assert not re.search(r'class="math (inline|display)"', (site/'score.html').read_text())


def test_wide_tables_scroll(site):
    "Those of markdown and those of pandas, whose style sheet is left out"
    text = (site/'published.html').read_text() + (site/'digits.html').read_text()
    before = [text[:m.start()].rstrip() for m in re.finditer('<table', text)]
    assert len(before) > 5 and 'class="dataframe"' in text
    assert all(b.endswith('<div class="wide">') for b in before) and 'vertical-align' not in text


def test_names_lead_to_the_reference():
    assert docs.link_names('see `dsm` and\n```\n`dsm`\n```', {'dsm': 'api-matching.html#dsm'}) == \
        'see [`dsm`](api-matching.html#dsm) and\n```\n`dsm`\n```'


def claims(src):
    "(claimed, counted) for each block under a comment such as `# ten lines`"
    lines = src.splitlines()
    for i, l in enumerate(lines):
        if not (m := re.fullmatch(rf"(\s*)# ({'|'.join(words)}) lines?", l)): continue
        block = []
        for b in lines[i+1:]:
            if b.strip() and not b.startswith(m[1]): break
            if b.strip() and not b.strip().startswith('#'): block.append(b)
        yield words[m[2]], len(block)


def test_claimed_lines_are_counted():
    got = [c for f in sorted((root/'nbs').glob('*.ipynb')) for cell in nbformat.read(f, 4).cells
           if cell.cell_type == 'code' for c in claims(cell.source)]
    assert got and all(n <= said for said, n in got), got
    assert list(claims('# two lines\na\n\n# note\nb\nc')) == [(2, 3)]
