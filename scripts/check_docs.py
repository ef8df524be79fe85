"""The built site in a real browser: `python scripts/check_docs.py [FOLDER] [--shots FOLDER]`.

Serves the folder on this machine, opens every page in Chromium at desktop and phone width, and fails where a script
fails, an image does not load, a formula has no size, a page is wider than the phone, or the search finds nothing.
Without Chromium it says so and checks nothing."""
import argparse, json, os, shutil, signal, subprocess, sys, tempfile, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

root = Path(__file__).resolve().parent.parent
names = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
# opens each page in a frame, twice, and tells the server what it saw
probe = '''<!doctype html><meta charset="utf-8"><body><script>
const pages = %s, widths = [1280, 390], seen = [];
const wait = ms => new Promise(r => setTimeout(r, ms));
(async () => {
  for (const width of widths) for (const page of pages) {
    const f = document.createElement('iframe');
    f.style = `width:${width}px;height:800px`;
    const loaded = new Promise(r => f.onload = r);
    f.src = page;
    document.body.append(f);
    await loaded;
    const w = f.contentWindow, d = f.contentDocument, bad = [];
    const box = e => e.getBoundingClientRect();
    for (const i of d.images) { try { await i.decode() } catch { bad.push('image ' + i.src) } }
    for (const m of d.querySelectorAll('math')) if (!box(m).width || !box(m).height) bad.push('formula ' + m.textContent.slice(0, 30));
    if (!d.querySelector('h1')) bad.push('no heading');
    if (d.documentElement.scrollWidth > width) bad.push(`wider than ${width}: ${d.documentElement.scrollWidth}`);
    const q = d.getElementById('query');
    q.value = 'score';
    q.dispatchEvent(new w.Event('input'));
    if (!d.querySelectorAll('#found a').length) bad.push('the search finds nothing');
    q.value = 'zzzz';
    q.dispatchEvent(new w.Event('input'));
    if (d.querySelectorAll('#found a').length) bad.push('the search finds anything');
    seen.push([page, width, d.images.length, d.querySelectorAll('math').length, bad]);
    f.remove();
  }
  await fetch('/_seen', { method: 'POST', body: JSON.stringify(seen) });
})();
</script>'''


class Site(ThreadingHTTPServer):
    "A folder, the probe, and what the probe saw"
    def __init__(self, folder, probe):
        self.probe, self.seen, self.ended = probe, [], threading.Event()
        super().__init__(('127.0.0.1', 0), partial(Files, directory=str(folder)))
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Files(SimpleHTTPRequestHandler):
    def log_message(self, *a): pass
    def answer(self, text):
        self.send_response(200)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self): self.answer(self.server.probe) if self.path == '/_probe' else super().do_GET()
    def do_POST(self):
        self.server.seen = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        self.answer('')
        self.server.ended.set()


def browse(exe, url, *more, until=None, seconds=300):
    "Open an address; returns what the console said"
    with tempfile.TemporaryDirectory() as profile, tempfile.TemporaryFile('w+') as log:
        cmd = [exe, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--enable-logging=stderr',
               f'--user-data-dir={profile}', *more, url]
        p = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)
        try: until.wait(seconds) if until else p.wait(seconds)
        except subprocess.TimeoutExpired: pass
        if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)
        p.wait()
        log.seek(0)
        return [l.split('CONSOLE', 1)[1].strip() for l in log.read().splitlines() if 'CONSOLE' in l]


def check(folder, exe, shots=None):
    "A list of what is wrong, and what was seen"
    pages = sorted(p.name for p in folder.glob('*.html'))
    with Site(folder, probe % json.dumps(pages)) as server:
        home = f'http://127.0.0.1:{server.server_port}'
        said = browse(exe, f'{home}/_probe', '--remote-debugging-port=0', until=server.ended)
        for page in ('index', 'score', 'api-score', 'faq') if shots else ():
            for name, size in (('desktop', '1280,1400'), ('phone', '500,1000')):
                browse(exe, f'{home}/{page}.html', f'--window-size={size}', f'--screenshot={shots}/{page}-{name}.png')
        server.shutdown()
    bad = [f'{page} at {width}: {b}' for page, width, _, _, bs in server.seen for b in bs]
    if len(server.seen) < 2*len(pages): bad.append(f'only {len(server.seen)} of {2*len(pages)} page views ended')
    return bad + [f'console: {l}' for l in said], server.seen


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('folder', nargs='?', type=Path, default=root/'_docs')
    p.add_argument('--shots', type=Path, help='folder for screenshots')
    args = p.parse_args()
    exe = next(filter(None, map(shutil.which, names)), None)
    if not exe:
        print('check_docs: no Chromium here, so nothing is checked')
        sys.exit()
    if not (args.folder/'index.html').exists(): sys.exit(f'check_docs: no site in {args.folder}: make docs first')
    if args.shots: args.shots.mkdir(parents=True, exist_ok=True)
    bad, seen = check(args.folder, exe, args.shots)
    if bad: sys.exit('check_docs: ' + '\n            '.join(bad))
    images, formulas = (sum(s[i] for s in seen)//2 for i in (2, 3))
    print(f'check_docs: {len(seen)//2} pages, {images} figures, {formulas} formulas, at two widths: all fine')
