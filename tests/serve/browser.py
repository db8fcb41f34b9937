"""Debian's Chromium, driven by Playwright: where it is, and what a test reads off a page."""

from __future__ import annotations

import shutil
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Every text that is seen, with its contrast: text over all grounds below it, alpha blended.
CONTRASTS = """() => {
  const parse = (text) => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith('color(srgb') ? [...numbers.slice(0, 3).map((n) => n * 255), numbers[3] ?? 1]
      : [numbers[0], numbers[1], numbers[2], numbers[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const found = [];
  const add = (element, text, colour) => {
    const below = ground(element);
    const [a, b] = [light(over(parse(colour), below)), light(below)];
    found.push([text.trim().slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent;
    if (!text.trim() || element.closest('.unseen, .skip, noscript') || !element.checkVisibility()) continue;
    add(element, text, getComputedStyle(element).color);
  }
  for (const field of document.querySelectorAll('[placeholder]')) {
    if (field.checkVisibility()) add(field, field.placeholder, getComputedStyle(field, '::placeholder').color);
  }
  return found;
}"""

# How far anything reaches beyond the right edge of the window, but for what scrolls by itself.
OVERFLOW = """() => Math.max(document.documentElement.scrollWidth - innerWidth,
  ...[...document.body.querySelectorAll('*')]
    .filter((e) => e.checkVisibility() && !e.closest('#list, .unseen, .skip, svg'))
    .map((e) => e.getBoundingClientRect().right - innerWidth))"""

SMALLEST_TARGET = """() => Math.min(...[...document.querySelectorAll('button, [role=slider]')]
  .filter((e) => e.checkVisibility()).map((e) => e.getBoundingClientRect()).map((b) => Math.min(b.width, b.height)))"""

# Drops a file of that name, which is no video, on the page.
DROP = """(name) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File(['no video at all'], name));
  for (const kind of ['dragenter', 'dragover', 'drop']) {
    document.body.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer }));
  }
}"""

# Whether one sees where the focus is: an outline of the element or of the frame that stands for it.
FOCUS = """() => {
  const e = document.activeElement;
  const seen = [e, e.closest('.composer')].filter(Boolean).map((x) => getComputedStyle(x))
    .some((style) => style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2);
  return [e.id || e.className || e.tagName, seen];
}"""

# Notes every text that an element shows, from now on.
NOTE_TEXTS = """(selector) => {
  const notes = (window.notes ??= {});
  const list = (notes[selector] = []);
  new MutationObserver(() => {
    const text = document.querySelector(selector)?.textContent;
    if (text && list.at(-1) !== text) list.push(text);
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


class Watched:
    """What a page said and asked for."""

    def __init__(self, page: Any) -> None:
        self.errors: list[str] = []
        self.addresses: list[str] = []
        page.on("console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.addresses.append(request.url))
