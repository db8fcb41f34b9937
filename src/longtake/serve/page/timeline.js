// A strip of the whole video: what was looked at, the tokens of each clip, the evidence, and where the player is.

import { byId, make } from "/page/dom.js";
import { clock, many, percent, span } from "/page/format.js";

const WIDTH = 1000;
const EVIDENCE = { top: 0, height: 6, narrowest: 9 };
const HEAT = { top: 10, height: 50, narrowest: 2.5 };
const TOKENS = { top: 64, height: 16, narrowest: 1 };
const HEIGHT = TOKENS.top + TOKENS.height;
const STEP_S = 5;
const NICE_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
const MOST_TICKS = 8;

export class Timeline {
  constructor(onSeek) {
    [this.box, this.lanes, this.playhead] = [byId("timeline"), byId("lanes"), byId("playhead")];
    this.lanes.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.onSeek = onSeek;
    [this.duration, this.time, this.clips, this.evidence, this.isHeld] = [0, 0, null, [], false];
    [this.entry, this.columns, this.gap] = [null, null, 0];
    this.box.addEventListener("pointerdown", (event) => this.pressed(event));
    this.box.addEventListener("pointermove", (event) => this.pointed(event));
    this.box.addEventListener("pointerup", () => { this.isHeld = false; });
    this.box.addEventListener("pointercancel", () => { this.isHeld = false; });
    this.box.addEventListener("pointerleave", () => this.read(this.time));
    this.box.addEventListener("keydown", (event) => this.key(event));
  }

  // entry: an answered question, or none.
  show(duration, entry) {
    const columns = entry?.timeline ?? null; // it comes later than the question
    if (duration === this.duration && entry === this.entry && columns === this.columns) return;
    [this.duration, this.entry, this.columns] = [duration, entry, columns];
    this.clips = columns?.start.length ? columns : null;
    this.evidence = entry?.evidence ?? [];
    this.draw();
    this.moved(this.time);
  }

  x(seconds) { return this.duration ? (WIDTH * Math.max(0, Math.min(seconds, this.duration))) / this.duration : 0; }

  bar(lane, name, start, end, share) {
    const height = Math.max(share > 0 ? 1 : 0, lane.height * share);
    const wide = this.x(end) - this.x(start) - this.gap;
    const width = Math.max(lane.narrowest, wide);
    const x = Math.max(0, this.x(start) - (width - Math.max(wide, 0)) / 2);
    return make("rect", { class: name, x, y: lane.top + lane.height - height, width, height });
  }

  draw() {
    const drawn = [];
    if (this.clips) {
      const { start, end, heat, tokens } = this.clips;
      const most = Math.max(...tokens, 1);
      this.gap = start.length <= 100 ? 1.5 : 0;
      start.forEach((_, place) => {
        drawn.push(this.bar(HEAT, "heat", start[place], end[place], heat[place]));
        drawn.push(this.bar(TOKENS, "tokens", start[place], end[place], tokens[place] / most));
      });
    }
    this.gap = 0;
    for (const found of this.evidence) drawn.push(this.bar(EVIDENCE, "mark", found.start_s, found.end_s, 1));
    this.lanes.replaceChildren(...drawn);
    this.drawTicks();
  }

  drawTicks() {
    const step = NICE_S.find((seconds) => this.duration / seconds <= MOST_TICKS) ?? 3600 * Math.ceil(this.duration / 28800);
    const ticks = [];
    for (let time = 0; this.duration > 0 && time <= this.duration - step / 3; time += step) {
      const tick = make("span", {}, clock(time));
      tick.style.left = `${(100 * time) / this.duration}%`;
      ticks.push(tick);
    }
    byId("ticks").replaceChildren(...ticks);
  }

  clipAt(seconds) {
    if (!this.clips) return -1;
    const next = this.clips.start.findIndex((start) => start > seconds + 0.01);
    return (next < 0 ? this.clips.start.length : next) - 1;
  }

  said(seconds) {
    const place = this.clipAt(seconds);
    if (place < 0) return "";
    const { start, end, heat, tokens } = this.clips;
    const inEvidence = this.evidence.some((found) => found.start_s < end[place] && found.end_s > start[place]);
    const parts = [span(start[place], end[place]), `heat ${percent(heat[place])}`, many(tokens[place], "token")];
    return [...parts, ...(inEvidence ? ["evidence"] : [])].join(" · ");
  }

  read(seconds) {
    const empty = this.duration ? "Ask something to see which seconds were looked at." : "";
    byId("readout").textContent = this.said(seconds) || (this.entry ? "" : empty);
  }

  moved(seconds) {
    this.time = seconds;
    this.playhead.hidden = !this.duration;
    this.playhead.style.left = `${this.x(seconds) / (WIDTH / 100)}%`;
    const said = this.said(seconds);
    this.box.setAttribute("aria-valuemin", "0");
    this.box.setAttribute("aria-valuemax", this.duration.toFixed(1));
    this.box.setAttribute("aria-valuenow", Math.min(seconds, this.duration).toFixed(1));
    this.box.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(this.duration)}${said ? `, ${said}` : ""}`);
    this.read(seconds);
  }

  at(event) {
    const box = this.box.getBoundingClientRect();
    return (this.duration * Math.max(0, Math.min(event.clientX - box.left, box.width))) / box.width;
  }

  pressed(event) {
    if (!this.duration || event.button > 0) return;
    this.isHeld = true;
    this.box.setPointerCapture(event.pointerId);
    this.onSeek(this.at(event));
  }

  pointed(event) {
    if (!this.duration) return;
    if (this.isHeld) this.onSeek(this.at(event));
    else this.read(this.at(event));
  }

  // Arrows go from clip to clip, or some seconds where there are none.
  key(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10, PageDown: -10 };
    if (!this.duration || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in steps) this.onSeek(this.stepped(steps[event.key]));
    else if (event.key === "Home") this.onSeek(0);
    else if (event.key === "End") this.onSeek(this.clips ? this.clips.start.at(-1) : this.duration);
    else return;
    event.preventDefault();
  }

  stepped(count) {
    if (!this.clips) return this.time + STEP_S * count;
    const place = Math.max(0, Math.min(this.clipAt(this.time) + count, this.clips.start.length - 1));
    return this.clips.start[place];
  }
}
