// The map of the cases: hover and arrow keys show a case, click and Enter open it, Escape lets go.
// All listeners are on the element around the map, which stays when the map in it is replaced.
function medsslCaseMap(element, open) {
  const map = () => element.querySelector('.ms-map');
  const dots = () => [...element.querySelectorAll('.ms-map circle')];
  let current = null;
  function show(dot) {
    const tip = element.querySelector('.ms-map-tip');
    if (!tip) return;
    if (current) current.classList.remove('ms-map-current');
    current = dot;
    tip.hidden = !dot;
    if (!dot) return;
    dot.classList.add('ms-map-current');
    const tile = Number(map().dataset.tile), columns = Number(map().dataset.columns), index = Number(dot.dataset.index);
    const picture = document.createElement('span'), words = document.createElement('span');
    picture.className = 'ms-map-tile';
    picture.style.backgroundPosition = `-${index % columns * tile}px -${Math.floor(index / columns) * tile}px`;
    words.textContent = `${dot.dataset.label.replaceAll('_', ' ')} · ${dot.dataset.source}`;
    tip.replaceChildren(picture, words);
    const box = tip.parentElement.getBoundingClientRect(), at = dot.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(at.left - box.left + 10, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, at.top - box.top - tip.offsetHeight - 6)}px`;
  }
  function next(key) {
    const here = current && [current.cx.baseVal.value, current.cy.baseVal.value];
    if (!here) return dots()[0];
    const axis = key === 'ArrowLeft' || key === 'ArrowRight' ? 0 : 1;
    const sign = key === 'ArrowLeft' || key === 'ArrowUp' ? -1 : 1;
    let best = null, least = Infinity;
    for (const dot of dots()) {
      const step = [dot.cx.baseVal.value - here[0], dot.cy.baseVal.value - here[1]];
      const along = sign * step[axis], aside = Math.abs(step[1 - axis]);
      if (dot !== current && along > 0 && along + 2 * aside < least) { best = dot; least = along + 2 * aside; }
    }
    return best || current;
  }
  element.addEventListener('mouseover', event => { if (event.target.matches?.('.ms-map circle')) show(event.target); });
  element.addEventListener('mouseout', event => { if (event.target.matches?.('.ms-map circle')) show(null); });
  element.addEventListener('click', event => { if (event.target.matches?.('.ms-map circle')) open(event.target.dataset.id); });
  element.addEventListener('change', event => { if (event.target.matches?.('.ms-map-by')) map().dataset.by = event.target.value; });
  element.addEventListener('keydown', event => {
    if (!event.target.matches?.('.ms-map-picture')) return;
    if (event.key.startsWith('Arrow')) { show(next(event.key)); event.preventDefault(); }
    if (event.key === 'Enter' && current) open(current.dataset.id);
    if (event.key === 'Escape') show(null);
  });
}
