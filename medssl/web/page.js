// The tour, and the keyboard: arrows go from case to case, Escape closes the opened one.
(() => {
  const seen = 'medssl-tour-seen';
  const tour = element.querySelector('.ms-tour');
  const steps = [...element.querySelectorAll('.ms-tour p')];
  let at = 0;
  function mark(on) {
    document.querySelector(steps[at].dataset.target)?.classList.toggle('ms-tour-target', on);
  }
  function end() {
    mark(false);
    tour.hidden = true;
    try { localStorage.setItem(seen, '1'); } catch { /* a browser that keeps nothing shows the tour again */ }
  }
  let known = false;
  try { known = localStorage.getItem(seen) === '1'; } catch { /* see above */ }
  if (known) tour.hidden = true; else mark(true);
  element.querySelector('.ms-tour-end').addEventListener('click', end);
  element.querySelector('.ms-tour-next').addEventListener('click', () => {
    if (at === steps.length - 1) { end(); return; }
    mark(false);
    steps[at].hidden = true;
    steps[++at].hidden = false;
    mark(true);
    if (at === steps.length - 1) element.querySelector('.ms-tour-next').textContent = 'Done';
  });
  // Gradio 6.31 names its thumbnails by number, its drop zone otherwise than its text, and a plain box at all: axe calls
  // each serious. They are named here by what is written in them.
  function name() {
    for (const item of document.querySelectorAll('.thumbnail-item[aria-label^="Thumbnail"]')) {
      const caption = item.querySelector('.caption-label');
      if (caption) item.setAttribute('aria-label', caption.textContent.trim());
    }
    for (const zone of document.querySelectorAll('#upload .upload-container[aria-label]')) zone.removeAttribute('aria-label');
    for (const zone of document.querySelectorAll('#upload button[aria-label]:has([data-testid="upload-text"])')) zone.removeAttribute('aria-label');
    for (const head of document.querySelectorAll('.toast-header[role]')) head.removeAttribute('role');  // it holds a button
    for (const box of document.querySelectorAll('div.empty[aria-label]:not([role])')) box.setAttribute('role', 'img');
  }
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; name(); });
  }).observe(document.body, {childList: true, subtree: true});
  name();
  document.addEventListener('keydown', event => {
    const column = document.querySelector('#which');
    if (event.key === 'Escape' && !tour.hidden) end();
    if (event.key === 'Escape') column?.classList.add('ms-case-closed');
    const cases = [...document.querySelectorAll('#cases .thumbnail-item')];
    const place = cases.indexOf(document.activeElement);
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (place < 0 || !step) return;
    const next = cases[(place + step + cases.length) % cases.length];
    next.focus();
    next.click();
    event.preventDefault();
  });
  document.addEventListener('click', event => {
    if (event.target.closest?.('#cases .thumbnail-item')) document.querySelector('#which')?.classList.remove('ms-case-closed');
  }, true);
})();
