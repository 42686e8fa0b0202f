// Nothing here is needed to read the page: a theme button, values under the pointer, and folded
// parts opened for printing.
(() => {
  const root = document.documentElement;
  const button = document.querySelector(".theme");
  const dark = () =>
    (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "")) === "dark";
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.hidden = false;
  label();
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);

  const tip = document.querySelector(".tip");
  const said = new Map();
  for (const title of document.querySelectorAll("svg.plot title")) {
    const mark = title.parentNode;
    if (mark.matches("svg.plot")) continue;
    said.set(mark, title.textContent);
    title.remove();
  }
  for (const plot of document.querySelectorAll("svg.plot")) {
    const title = plot.querySelector("title");
    plot.setAttribute("aria-label", title.textContent);
    plot.removeAttribute("aria-labelledby");
    title.remove();
  }
  document.addEventListener("pointerover", (event) => {
    const words = said.get(event.target);
    tip.hidden = !words;
    if (!words) return;
    tip.textContent = words;
    const box = event.target.getBoundingClientRect();
    const half = tip.offsetWidth / 2;
    const middle = Math.min(Math.max(box.x + box.width / 2, half + 8), root.clientWidth - half - 8);
    tip.style.left = `${middle - half}px`;
    tip.style.top = `${Math.max(box.y - tip.offsetHeight - 8, 4)}px`;
  });
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details:not([open])")) {
      folded.open = true;
      folded.dataset.folded = "";
    }
  });
  addEventListener("afterprint", () => {
    for (const folded of document.querySelectorAll("details[data-folded]")) {
      folded.open = false;
      delete folded.dataset.folded;
    }
  });
})();
