const KEYS = { n: "next", Enter: "next", 0: "none", u: "undo", f: "fit" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey && event.key === "z") event.preventDefault();
  else if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const name = event.ctrlKey ? "undo" : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!name || (event.key === "Enter" && event.target.closest("button"))) return;
  document.querySelector(`#annotate-${name}`)?.click();
});
