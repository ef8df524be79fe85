// Search over `entries` ([title, section, address, text]) and the menu of small screens.
const query = document.getElementById('query'), found = document.getElementById('found');
const menu = document.getElementById('menu'), side = document.getElementById('side');

function score(entry, words) {
  const [title, section, , text] = entry.map(s => s.toLowerCase());
  let sum = 0;
  for (const w of words) {
    const s = (title === w ? 40 : title.startsWith(w) ? 15 : title.includes(w) ? 8 : 0)
      + (section.includes(w) ? 6 : 0) + Math.min(text.split(w).length - 1, 4);
    if (!s) return 0; // every word must be there
    sum += s;
  }
  return sum;
}

function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  return entries.map(e => [score(e, words), e]).filter(r => r[0]).sort((a, b) => b[0] - a[0]).slice(0, 12).map(r => r[1]);
}

function show() {
  const got = search(query.value);
  found.replaceChildren(...got.map(([title, section, to, text]) => {
    const a = document.createElement('a'), small = document.createElement('small');
    a.href = to;
    a.textContent = section ? `${title}: ${section}` : title;
    small.textContent = text.slice(0, 110);
    a.append(small);
    return a;
  }));
  if (!got.length) { const p = document.createElement('p'); p.textContent = 'Nothing found'; found.append(p); }
  found.hidden = !query.value.trim();
}

function move(by) {
  const all = [...found.querySelectorAll('a')];
  if (!all.length) return;
  const at = all.findIndex(a => a.className === 'at');
  all.forEach(a => a.className = '');
  const next = all[(at + by + all.length) % all.length];
  next.className = 'at';
  next.scrollIntoView({ block: 'nearest' });
}

query.addEventListener('input', show);
query.addEventListener('keydown', e => {
  if (e.key === 'ArrowDown') move(1);
  else if (e.key === 'ArrowUp') move(-1);
  else if (e.key === 'Enter') { const a = found.querySelector('a.at') || found.querySelector('a'); if (a) location = a.href; }
  else if (e.key === 'Escape') { query.value = ''; show(); query.blur(); }
});
document.addEventListener('keydown', e => {
  if (e.key === '/' && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) { e.preventDefault(); query.focus(); }
});
document.addEventListener('click', e => { if (!found.contains(e.target) && e.target !== query) found.hidden = true; });
menu.addEventListener('click', () => menu.setAttribute('aria-expanded', side.classList.toggle('open')));
const here = side.querySelector('[aria-current]');
if (here && here.offsetTop > side.clientHeight) side.scrollTop = here.offsetTop - side.clientHeight/2;
