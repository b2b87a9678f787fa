// Table and answer of several pictures: a row, or a picture that decides, opens its picture (the whole row for a mouse, its
// button for the keyboard). While the table grows, Gradio writes other rows into the elements of the old ones: what is
// pressed, focused or read stays with its picture, wherever that picture stands then.
const numberOf = target => target.closest?.('[data-number]')?.dataset.number;
const buttonOf = number => element.querySelector(`[data-number="${number}"] button, button[data-number="${number}"]`);
let pressed, focused, read;

element.addEventListener('pointerdown', event => { pressed = numberOf(event.target); });
element.addEventListener('click', event => {
  const here = numberOf(event.target);
  if (here) trigger('select', {number: Number(pressed ?? here)});  // no press before the click of a key
  pressed = undefined;
});
document.addEventListener('focusin', event => {
  focused = element.contains(event.target) ? numberOf(event.target) : undefined;
});

function topRow(box) {
  const top = box.querySelector('th').getBoundingClientRect().bottom;  // it stays in sight
  return [...box.querySelectorAll('tbody tr')].find(row => row.getBoundingClientRect().bottom > top);
}
// The row that is read: the first in sight, once the visitor scrolled down.
element.addEventListener('scroll', event => {
  const row = event.target.scrollTop > 0 && topRow(event.target);
  read = row ? {number: row.dataset.number, from: row.getBoundingClientRect().top - event.target.getBoundingClientRect().top} : undefined;
}, true);

new MutationObserver(() => {
  const box = element.querySelector('.ms-scroll');
  if (!box) { focused = read = undefined; return; }
  const row = read && box.querySelector(`tr[data-number="${read.number}"]`);
  if (row) box.scrollTop += row.getBoundingClientRect().top - box.getBoundingClientRect().top - read.from;
  const button = focused !== undefined && element.contains(document.activeElement) && buttonOf(focused);
  if (button && button !== document.activeElement) button.focus({preventScroll: true});
}).observe(element, {childList: true, subtree: true, attributeFilter: ['data-number']});
