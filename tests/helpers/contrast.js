// Returns what cannot be read well: texts and controls whose contrast to what is behind them is below the limits.
// A canvas has no texts here; its chart is drawn like the ones that have.
(limits => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const read = new Map();
  const rgba = colour => {
    if (!read.has(colour)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
      read.set(colour, [r, g, b, a / 255]);
    }
    return read.get(colour);
  };
  const over = ([r, g, b, a], below) => [...[r, g, b].map((part, i) => a * part + (1 - a) * below[i]), 1];
  const faded = ([r, g, b, a], opacity) => [r, g, b, a * opacity];
  const luminance = colour =>
    colour
      .slice(0, 3)
      .map(part => part / 255)
      .map(part => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const parents = element => {
    const found = [];
    for (let at = element; at; at = at.parentElement) found.push(at);
    return found;
  };
  // Opacity fades an element together with its background; here it fades each into what is behind.
  const opacity = element => parents(element).reduce((all, at) => all * getComputedStyle(at).opacity, 1);
  const behind = element =>
    parents(element)
      .reverse()
      .reduce((below, at) => over(faded(rgba(getComputedStyle(at).backgroundColor), opacity(at)), below), [255, 255, 255, 1]);
  const visible = element => {
    const box = element.getBoundingClientRect();
    return (
      box.width > 1 && box.height > 1 && element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) &&
      !parents(element).some(at => getComputedStyle(at).clipPath !== "none" && at.matches("a:not(:focus)"))
    );
  };
  const disabled = element => element.closest("[disabled], [aria-disabled=true], fieldset:disabled") !== null;
  const found = new Map();
  const note = (what, element, ratio, limit) => {
    if (ratio >= limit - 0.005) return;
    const place = element.closest("[data-testid]")?.dataset.testid ?? element.tagName;
    found.set(`${place}: ${what}`, `${place}: ${what} has ${ratio.toFixed(2)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const [text, element] = [node.textContent.trim(), node.parentElement];
    if (!text || element.closest("script, style, noscript, title, desc") || !visible(element) || disabled(element)) continue;
    const style = getComputedStyle(element);
    const svg = element.closest("svg") !== null;
    const colour = rgba(svg ? style.fill : style.color);
    const below = behind(svg ? element.closest("svg") : element);
    note(text.slice(0, 50), element, contrast(over(faded(colour, opacity(element)), below), below), limits.text);
  }
  for (const element of document.querySelectorAll("button, input, [role=checkbox], [role=switch], [role=radio]")) {
    // Only a control without text or icon is told by its shape alone.
    if (!visible(element) || disabled(element) || element.textContent.trim()) continue;
    for (const icon of element.querySelectorAll("svg")) {
      const below = behind(element);
      const colour = over(faded(rgba(getComputedStyle(icon).color), opacity(icon)), below);
      note(element.ariaLabel ?? "icon", element, contrast(colour, below), limits.controls);
    }
    const placeholder = element.placeholder && !element.value && getComputedStyle(element, "::placeholder");
    if (placeholder) {
      const below = behind(element);
      const colour = over(faded(rgba(placeholder.color), opacity(element) * placeholder.opacity), below);
      note(element.placeholder, element, contrast(colour, below), limits.text);
    }
  }
  return [...found.values()];
})
