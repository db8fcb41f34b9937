// Asks, shows the answers as they are written, with what they rest on, and keeps them.

import { byId, make, tell } from "/page/dom.js";
import { many, percent, span } from "/page/format.js";
import * as api from "/page/api.js";
import * as history from "/page/history.js";

export class Questions {
  // onShow: another question is shown on the timeline. onSeek: a piece of evidence was chosen. still: a picture of a time.
  constructor({ onShow, onSeek, onError, still }) {
    Object.assign(this, { onShow, onSeek, onError, still });
    [this.videos, this.video, this.active] = [new Map(), null, null];
    byId("form").addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    byId("question").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit();
    });
    byId("ask").addEventListener("keydown", (event) => { if (event.key === "Escape") this.stop(); });
    byId("clear").addEventListener("click", () => this.clear());
  }

  entries(id = this.video?.id) {
    if (!this.videos.has(id)) this.videos.set(id, history.load(id));
    return this.videos.get(id);
  }

  show(video) {
    const isOther = this.video?.id !== video?.id;
    this.video = video;
    byId("ask").hidden = video === null || video.status === "sending" || video.status === "failed";
    const isReady = video?.status === "ready";
    byId("send").disabled = !isReady;
    byId("hint").textContent = isReady ? "Enter asks, Shift+Enter begins a line"
      : "You can ask when the video has been read";
    if (!isOther || video === null) return;
    this.active = this.entries()[0] ?? null;
    this.draw();
  }

  draw() {
    const entries = this.entries();
    byId("answers").replaceChildren(...entries.map((entry) => this.card(entry)));
    byId("kept").hidden = !entries.some((entry) => entry.state === "done");
    this.onShow(this.active);
  }

  activate(entry) {
    if (this.active === entry) return;
    const before = this.active;
    this.active = entry;
    if (before) this.redraw(before);
    this.redraw(entry);
    this.onShow(entry);
  }

  clear() {
    for (const entry of this.entries()) entry.abort?.abort();
    this.videos.set(this.video.id, []);
    history.save(this.video.id, []);
    this.active = null;
    this.draw();
    tell("The questions are forgotten");
    byId("question").focus();
  }

  forget(video) {
    for (const entry of this.entries(video.id)) entry.abort?.abort();
    this.videos.delete(video.id);
    history.save(video.id, []);
  }

  forgetAll() {
    for (const entries of this.videos.values()) for (const entry of entries) entry.abort?.abort();
    this.videos.clear();
    history.forgetAll();
  }

  stop() { this.entries().find((entry) => entry.abort)?.abort.abort(); }

  submit() {
    const field = byId("question");
    const question = field.value.trim();
    if (!question || byId("send").disabled) return;
    field.value = "";
    this.ask({ question });
  }

  async ask(asked) {
    const entry = { ...asked, state: "waiting", answer: "", evidence: [], timeline: null, notes: [], error: null };
    const video = this.video;
    const entries = this.entries(video.id);
    entries.unshift(entry);
    this.active = entry;
    this.draw();
    tell("Asked. The answer comes.");
    await this.follow(video.id, entry);
    if (entry.state === "done") history.save(video.id, entries);
    byId("kept").hidden = !this.entries().some((other) => other.state === "done");
  }

  async follow(videoId, entry) {
    entry.abort = new AbortController();
    const began = performance.now();
    try {
      for await (const [name, value] of api.ask(videoId, { question: entry.question }, entry.abort.signal)) {
        this.take(entry, name, value);
        entry.seconds = (performance.now() - began) / 1000;
        if (name === "piece") this.write(entry);
        else this.redraw(entry);
      }
      if (entry.state !== "done") throw new api.NoServer();
    } catch (error) {
      entry.state = error.name === "AbortError" ? "stopped" : "failed";
      entry.error = error.name === "AbortError" ? "You stopped this answer." : error.message;
      if (error.status === 401 || error instanceof api.NoServer) this.onError(error);
    }
    delete entry.abort;
    this.redraw(entry);
    tell(entry.state === "done" ? `Answer: ${entry.answer || "none"}. ${spoken(entry.evidence)}` : entry.error);
  }

  take(entry, name, value) {
    if (name === "evidence") {
      entry.state = "writing";
      entry.evidence = value.evidence;
      entry.kind = value.evidence_kind;
      entry.notes = value.notes;
      entry.timeline = history.packed(value.timeline);
      if (this.active === entry) this.onShow(entry);
    } else if (name === "piece") {
      entry.answer += value.text;
    } else if (name === "done") {
      entry.state = "done";
      [entry.answer, entry.reason, entry.usage] = [value.answer, value.finish_reason, value.usage];
    } else if (name === "error") {
      throw new api.ServerError(500, value.error.message);
    }
  }

  cardOf(entry) {
    const place = this.entries().indexOf(entry);
    return place < 0 ? null : (byId("answers").children[place] ?? null);
  }

  // Writes what has come of the text, and leaves the rest of the card alone.
  write(entry) {
    const place = this.cardOf(entry)?.querySelector(".answer");
    if (place) place.textContent = entry.answer;
    else this.redraw(entry);
  }

  redraw(entry) {
    const card = this.cardOf(entry);
    if (card === null) return;
    const focused = [...card.querySelectorAll("button")].indexOf(document.activeElement);
    const made = this.card(entry);
    card.replaceWith(made);
    if (focused >= 0) (made.querySelectorAll("button")[focused] ?? byId("question")).focus();
  }

  card(entry) {
    const isActive = entry === this.active;
    const isOpen = entry.state === "waiting" || entry.state === "writing";
    return make("article", { class: `card ${entry.state}${isActive ? " active" : ""}`, "aria-busy": isOpen },
      make("h3", {}, make("button", { type: "button", class: "asked", "aria-pressed": isActive,
        title: "Show on the timeline", onclick: () => this.activate(entry) }, entry.question)),
      isOpen && !entry.answer ? make("p", { class: "waiting quiet" }, entry.state === "waiting"
        ? "Reading the question" : "Writing") : null,
      entry.answer || entry.state === "done" ? make("p", { class: "answer" }, entry.answer || "(no text)") : null,
      entry.error ? this.error(entry) : null,
      entry.reason === "length" ? make("p", { class: "quiet small" }, "The answer was cut at the limit of tokens.") : null,
      entry.evidence.length ? this.evidence(entry, isActive) : null,
      ...entry.notes.map((note) => make("p", { class: "quiet small" }, note)),
      isOpen ? make("button", { type: "button", class: "plain", onclick: () => entry.abort?.abort() }, "Stop") : null,
      entry.usage ? make("p", { class: "quiet small" }, costOf(entry)) : null);
  }

  error(entry) {
    const again = () => {
      const entries = this.entries();
      entries.splice(entries.indexOf(entry), 1);
      this.ask({ question: entry.question });
      byId("question").focus();
    };
    return make("div", { class: "failed", role: entry.state === "failed" ? "alert" : null },
      make("p", {}, entry.error), make("button", { type: "button", onclick: again }, "Ask again"));
  }

  evidence(entry, isActive) {
    const title = entry.kind === "relevance" ? "Chosen for this question" : "Looked at most";
    return make("div", { class: "evidence" }, make("h4", {}, title),
      make("ul", {}, ...entry.evidence.map((found) => make("li", {}, this.chip(entry, found, isActive)))));
  }

  chip(entry, found, isActive) {
    const times = span(found.start_s, found.end_s);
    const share = found.score === null ? "" : percent(found.score);
    const picture = make("span", { class: "picture" });
    if (isActive) this.still((found.start_s + found.end_s) / 2)?.then((canvas) => canvas && picture.append(copied(canvas)));
    const label = `Go to ${times}${share && `, ${share} of what was looked at`}`;
    const go = () => { this.activate(entry); this.onSeek(found.start_s); };
    return make("button", { type: "button", class: "chip", "aria-label": label, onclick: go },
      isActive ? picture : null, make("span", { class: "times" }, times), make("span", { class: "share" }, share));
  }
}

function copied(canvas) {
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  copy.getContext("2d").drawImage(canvas, 0, 0);
  return copy;
}

function spoken(evidence) {
  return evidence.length ? `Evidence: ${evidence.map((found) => span(found.start_s, found.end_s)).join(", ")}` : "";
}

function costOf(entry) {
  const cached = entry.usage.prompt_tokens_details.cached_tokens;
  const read = many(entry.usage.prompt_tokens - cached, "token");
  const took = entry.seconds < 0.95 ? `${Math.round(entry.seconds * 1000)} ms` : `${entry.seconds.toFixed(1)} s`;
  const reused = cached ? `, ${cached.toLocaleString("en")} reused` : "";
  return `${took} · ${read} read${reused}, ${entry.usage.completion_tokens.toLocaleString("en")} written`;
}
