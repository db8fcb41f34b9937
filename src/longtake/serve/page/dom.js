// Makes and finds elements. Text is only ever set as text, so that no answer or file name can become markup.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const isSvg = tag === "svg" || tag === "rect";
  const made = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Says something to those who listen to the page instead of looking at it.
export function tell(text) {
  const place = byId("told");
  place.textContent = "";
  requestAnimationFrame(() => { place.textContent = text; });
}

// Shows what went wrong above everything else; the same name replaces what it said before.
export function warn(name, title, message, action = null) {
  clearWarning(name);
  const close = make("button", { type: "button", class: "plain", onclick: () => clearWarning(name) }, "Dismiss");
  const act = action && make("button", { type: "button", onclick: action.run }, action.label);
  byId("alerts").append(
    make("div", { class: "alert", "data-name": name },
      make("div", {}, make("strong", {}, title), make("p", {}, message)), make("div", { class: "buttons" }, act, close)),
  );
}

export function clearWarning(name) {
  for (const found of byId("alerts").querySelectorAll(".alert")) {
    if (found.dataset.name === name) found.remove();
  }
}
