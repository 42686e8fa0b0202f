// Every text of the page whose contrast with what it lies on is below what WCAG 2.2 (1.4.3) asks.
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = (top, share, below) => top.slice(0, 3).map((c, n) => c * share + below[n] * (1 - share));
const light = (colour) => {
  const [r, g, b] = colour.slice(0, 3).map((c) => {
    c /= 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = rgba(getComputedStyle(at).backgroundColor);
    if (colour[3] > 0) return colour;
  }
  return [255, 255, 255, 1];
};
const beneath = (element) => {
  const below = ground(element);
  if (!element.matches(".letter")) return below;
  let part = element.previousElementSibling;
  while (part && !part.matches(".part")) part = part.previousElementSibling;
  const style = getComputedStyle(part);
  return over(rgba(style.fill), Number(style.fillOpacity), below);
};
const faults = [];
let texts = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || element.matches("script, style, title, desc")) continue;
  if (!element.checkVisibility({ visibilityProperty: true })) continue;
  const style = getComputedStyle(element);
  const svg = element.closest("svg");
  const below = beneath(element.closest("text") || element);
  const [one, other] = [light(rgba(svg ? style.fill : style.color)), light(below)];
  const ratio = Math.max(one, other) / Math.min(one, other);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  texts += 1;
  if (ratio < (large ? 3 : 4.5)) faults.push(`${ratio.toFixed(2)}: ${element.textContent.slice(0, 60)}`);
}
return [texts, faults];
